"""One run from start to end. A run's timeline is planned once, and its state is computed from the virtual time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from .clock import as_datetime
from .commands import Content, SimulatedCommand

RUNNING = "RUNNING"
SUCCESS = "SUCCESS"
FAILED = "FAILED"
CANCELED = "CANCELED"
SKIPPED = "SKIPPED"
ERROR = "ERROR"


@dataclass(frozen=True)
class SimulatedResource:
    """A file that a command wrote."""

    id: int
    path: str
    content: Content = field(repr=False)


@dataclass(frozen=True)
class SimulatedRunCommand:
    """A command of a run at one moment.

    Attributes:
        id: The id of the command, for `boltCommand`.
        run_id: The id of the run that executes the command.
        command: The text of the command.
        state: `RUNNING`, `SUCCESS`, `FAILED`, or `CANCELED` if it was interrupted.
        return_code: The return code; None while the command runs, and if it was interrupted.
        stdout: The standard output so far.
        stderr: The standard error so far.
        started_at: When the command began, in virtual time.
        ended_at: When the command ended; None while the command runs.
        resources: The files that the command wrote; empty before the command has ended.
    """

    id: int
    run_id: int
    command: str
    state: str
    return_code: int | None
    stdout: str
    stderr: str
    started_at: datetime
    ended_at: datetime | None
    resources: tuple[SimulatedResource, ...] = ()


@dataclass(frozen=True)
class SimulatedRun:
    """A run at one moment.

    Attributes:
        id: The run id.
        schedule_name: The schedule of the run.
        state: The state of the run in `boltRunStatus`.
        branch: The git branch or commit that the run uses.
        commands: The commands that have started, in order.
        reason: The reason that the trigger gave.
        pr_number: The pull request that the trigger named.
        parent_run_id: The id of the run that this run retries; None if this run is no retry.
        actor: Who started the run.
        started_at: When the run was triggered, in virtual time.
        ended_at: When the run ended; None while the run is active.
        canceled: Whether the run ended because it was cancelled.
        cancel_requests: How many cancels were requested, whatever their outcome.
        planned_commands: The texts of all commands that the run was started with.
    """

    id: int
    schedule_name: str
    state: str
    branch: str
    commands: tuple[SimulatedRunCommand, ...]
    reason: str | None
    pr_number: int | None
    parent_run_id: int | None
    actor: str
    started_at: datetime
    ended_at: datetime | None
    canceled: bool
    cancel_requests: int
    planned_commands: tuple[str, ...]

    @property
    def is_active(self) -> bool:
        """Whether the run is still running."""
        return self.ended_at is None


@dataclass(frozen=True)
class Step:
    """A command that a run will execute: the text in this run, and how the command behaves."""

    text: str
    behaviour: SimulatedCommand
    continue_on_error: bool


@dataclass(frozen=True)
class PlannedCommand:
    """A command with its start and end, in virtual seconds since 1970."""

    id: int
    text: str
    start: float
    end: float
    return_code: int
    stdout: str
    stderr: str
    resources: tuple[SimulatedResource, ...]


@dataclass(frozen=True)
class RunEnd:
    """When and how a run ends."""

    at: float
    state: str


@dataclass
class Run:
    """A run. Whenever the state of the run is read, the state is computed from the virtual time."""

    id: int
    schedule_name: str
    branch: str
    steps: tuple[Step, ...]
    created: float
    starting: Sequence[tuple[float, str]]
    planned: tuple[PlannedCommand, ...]
    natural: RunEnd
    actor: str
    reason: str | None = None
    pr_number: int | None = None
    parent_run_id: int | None = None
    cancel_requests: int = 0
    interruption: RunEnd | None = None

    def end(self) -> RunEnd:
        """Return when and how the run will end, as far as is known now."""
        # A run that ends before a cancel takes effect ends as it would have without the cancel.
        if self.interruption is not None and self.interruption.at < self.natural.at:
            return self.interruption
        return self.natural

    def is_active(self, now: float) -> bool:
        """Whether the run is still running."""
        return now < self.end().at

    def state(self, now: float) -> str:
        """Return Bolt's name for the state of the run at the given time."""
        end = self.end()
        if now >= end.at:
            return end.state
        return next((state for until, state in self.starting if now < until), RUNNING)

    def interrupt(self, at: float, state: str) -> None:
        """End the run at the given time, unless the run ends earlier."""
        if self.interruption is None or at < self.interruption.at:
            self.interruption = RunEnd(at, state)

    def commands(self, now: float) -> Iterator[SimulatedRunCommand]:
        """Yield the commands that have started at the given time."""
        end = self.end()
        broken_off = end if end is self.interruption else None
        for command in self.planned:
            if command.start > now or (broken_off and command.start >= broken_off.at):
                return
            yield self._seen(command, now, broken_off)

    def _seen(self, command: PlannedCommand, now: float, broken_off: RunEnd | None) -> SimulatedRunCommand:
        until = min(now, broken_off.at) if broken_off else now
        ended_at: datetime | None = None
        return_code: int | None = None
        state = RUNNING
        if command.end <= until:
            ended_at, return_code = as_datetime(command.end), command.return_code
            state = SUCCESS if return_code == 0 else FAILED
        elif broken_off and broken_off.at <= now:
            # An interrupted command has an end but no return code: this is an inference.
            ended_at = as_datetime(broken_off.at)
            return_code = {SUCCESS: 0, FAILED: 1}.get(broken_off.state)
            state = broken_off.state if return_code is not None else CANCELED
        whole = command.end <= until or (broken_off is not None and broken_off.state == SUCCESS and ended_at)
        share = 1.0 if whole else _share(command, until)
        return SimulatedRunCommand(
            id=command.id,
            run_id=self.id,
            command=command.text,
            state=state,
            return_code=return_code,
            stdout=_first_lines(command.stdout, share),
            stderr=_first_lines(command.stderr, share),
            started_at=as_datetime(command.start),
            ended_at=ended_at,
            # Files appear when the command has ended, even if it failed. An interrupted command wrote none.
            resources=command.resources if whole else (),
        )

    def snapshot(self, now: float) -> SimulatedRun:
        """Return the run as it is at the given time."""
        end = self.end()
        ended = now >= end.at
        return SimulatedRun(
            id=self.id,
            schedule_name=self.schedule_name,
            state=self.state(now),
            branch=self.branch,
            commands=tuple(self.commands(now)),
            reason=self.reason,
            pr_number=self.pr_number,
            parent_run_id=self.parent_run_id,
            actor=self.actor,
            started_at=as_datetime(self.created),
            ended_at=as_datetime(end.at) if ended else None,
            canceled=ended and end.state == CANCELED,
            cancel_requests=self.cancel_requests,
            planned_commands=tuple(step.text for step in self.steps),
        )


def starting_states(
    begin: float, seconds: float, states: Sequence[str]
) -> tuple[tuple[tuple[float, str], ...], float]:
    """Return the states before RUNNING, each with the time at which it ends, and the time at which RUNNING begins.

    The given states share the seconds evenly. If `seconds` is 0, each state lasts one virtual second.
    """
    if not states:
        return (((begin + seconds, "STARTING"),) if seconds > 0 else ()), begin + seconds
    each = seconds / len(states) if seconds > 0 else 1.0
    shown = tuple((begin + each * (place + 1), state) for place, state in enumerate(states))
    return shown, shown[-1][0]


def _share(command: PlannedCommand, now: float) -> float:
    duration = command.end - command.start
    # A command that never ends prints a line each second, so that its log grows.
    if math.isinf(duration):
        lines = max(1, len(command.stdout.splitlines()), len(command.stderr.splitlines()))
        return min(1.0, (now - command.start) / lines)
    return (now - command.start) / duration if duration > 0 else 1.0


def _first_lines(text: str, share: float) -> str:
    lines = text.splitlines(keepends=True)
    # The small allowance compensates for the rounding of times.
    return "".join(lines[: math.floor(len(lines) * share + 1e-6)])
