"""One run, from its start to its end: a timeline that is laid out at once and read off the clock."""

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
    """A file that a command left behind."""

    id: int
    path: str
    content: Content = field(repr=False)


@dataclass(frozen=True)
class SimulatedRunCommand:
    """A command of a run, as it stood when it was looked at.

    Attributes:
        id: What `boltCommand` knows it by.
        run_id: The run that it belongs to.
        command: Its text.
        state: `RUNNING`, `SUCCESS`, `FAILED`, or `CANCELED` if it was broken off.
        return_code: None while it runs, and if it was broken off.
        stdout: What it has printed so far.
        stderr: The same for the error stream.
        started_at: When it began, in virtual time.
        ended_at: When it ended; None while it runs.
        resources: The files it left behind; none before its end.
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
    """A run, as it stood when it was looked at.

    Attributes:
        id: The run id.
        schedule_name: The schedule that it is a run of.
        state: What `boltRunStatus` would say.
        branch: The branch or commit that it runs on.
        commands: The commands that have started, in order.
        reason: What the trigger gave as its reason.
        pr_number: The pull request that the trigger named.
        parent_run_id: The run that this one is a retry of.
        actor: Who started it.
        started_at: When it was triggered, in virtual time.
        ended_at: When it ended; None while it is active.
        canceled: Whether it ended because it was cancelled.
        cancel_requests: How many cancels were asked of it, whatever became of them.
        planned_commands: The texts of all commands that it was started with.
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
        """Whether it is still going."""
        return self.ended_at is None


@dataclass(frozen=True)
class Step:
    """A command that a run is to carry out: what it is called there, and how it behaves."""

    text: str
    behaviour: SimulatedCommand
    continue_on_error: bool


@dataclass(frozen=True)
class PlannedCommand:
    """A command with its place in time, in virtual seconds since 1970."""

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
    """A run. Its state is worked out from the time each time it is asked for; nothing ticks."""

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
        """How it will end, as far as is known now."""
        # Whatever ends by itself before a cancel takes hold, ends as it would have.
        if self.interruption is not None and self.interruption.at < self.natural.at:
            return self.interruption
        return self.natural

    def is_active(self, now: float) -> bool:
        """Whether it is still going."""
        return now < self.end().at

    def state(self, now: float) -> str:
        """What Bolt calls its state."""
        end = self.end()
        if now >= end.at:
            return end.state
        return next((state for until, state in self.starting if now < until), RUNNING)

    def interrupt(self, at: float, state: str) -> None:
        """End it at the given time, unless it ends by itself, or was to be ended, before that."""
        if self.interruption is None or at < self.interruption.at:
            self.interruption = RunEnd(at, state)

    def commands(self, now: float) -> Iterator[SimulatedRunCommand]:
        """The commands that have started."""
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
            # That a command which was broken off has an end but no return code is an inference.
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
            # Files show when the command has ended, be it badly; one that was broken off wrote none.
            resources=command.resources if whole else (),
        )

    def snapshot(self, now: float) -> SimulatedRun:
        """The run as it stands."""
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
    """The states before RUNNING, each with the time until which it shows, and when RUNNING begins.

    Named states share the time evenly; if there is none to share, each shows for one virtual second.
    """
    if not states:
        return (((begin + seconds, "STARTING"),) if seconds > 0 else ()), begin + seconds
    each = seconds / len(states) if seconds > 0 else 1.0
    shown = tuple((begin + each * (place + 1), state) for place, state in enumerate(states))
    return shown, shown[-1][0]


def _share(command: PlannedCommand, now: float) -> float:
    duration = command.end - command.start
    # A command that never ends prints a line a second, so that there is something to watch.
    if math.isinf(duration):
        lines = max(1, len(command.stdout.splitlines()), len(command.stderr.splitlines()))
        return min(1.0, (now - command.start) / lines)
    return (now - command.start) / duration if duration > 0 else 1.0


def _first_lines(text: str, share: float) -> str:
    lines = text.splitlines(keepends=True)
    # The small allowance makes up for times that are kept as fractions.
    return "".join(lines[: math.floor(len(lines) * share + 1e-6)])
