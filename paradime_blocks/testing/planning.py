"""Plans the timeline of a run, from a schedule and a request."""

from __future__ import annotations

import dataclasses
import itertools
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from .commands import SimulatedCommand, setup_commands
from .runs import FAILED, SUCCESS, PlannedCommand, Run, RunEnd, SimulatedResource, Step

AlreadyRunning = Literal["refuse", "allow"]
CancelPolicy = Literal["honour", "refuse", "not_ok", "ignore"]


class Refused(Exception):
    """Bolt refuses the request; the text is the GraphQL error's message."""


@dataclass(frozen=True)
class Schedule:
    """A schedule, and how the schedule's runs behave. `BoltSimulator.add_schedule` describes each field."""

    id: int
    name: str
    slug: str
    commands: tuple[SimulatedCommand, ...]
    branch: str
    cron: str
    owner: str
    starting_seconds: float
    suspended: bool
    active: bool
    final_state: str | None
    intermediate_states: tuple[str, ...]
    already_running: AlreadyRunning
    cancel: CancelPolicy
    cancel_seconds: float
    setup_commands: bool
    continue_on_error: bool
    source: str

    @property
    def uuid(self) -> str:
        """The schedule's uuid, derived from the schedule's name, so that the logs of two test runs can be compared."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"bolt-simulator/{self.name}"))


@dataclass(frozen=True)
class RunRequest:
    """What a trigger asks for, apart from the schedule."""

    commands: Sequence[str] | None = None
    branch: str | None = None
    pr_number: int | None = None
    reason: str | None = None
    command_configs: Sequence[tuple[str, bool | None]] | None = None
    continue_on_error: bool | None = None
    actor: str = "API"


class Planner:
    """Plans runs, and assigns ids to their commands and resources."""

    def __init__(self) -> None:
        """Start with the first ids."""
        self._executions: Counter[tuple[str, str]] = Counter()
        # The ids look like the ids in the vendor's examples. Command ids and resource ids are so far apart that a test
        # notices when a client mixes them up.
        self._command_ids = itertools.count(243281)
        self._resource_ids = itertools.count(2023484)

    def plan(
        self, schedule: Schedule, steps: Iterable[Step], begin: float
    ) -> tuple[tuple[PlannedCommand, ...], RunEnd]:
        """Return the commands that will start, with their ids and times, and the end of the run."""
        planned: list[PlannedCommand] = []
        state, at = SUCCESS, begin
        for step in steps:
            behaviour = step.behaviour
            execution = self._executions[schedule.name, behaviour.command]
            self._executions[schedule.name, behaviour.command] += 1
            code = behaviour.code(execution)
            resources = tuple(
                SimulatedResource(next(self._resource_ids), path, content)
                for path, content in behaviour.files(code).items()
            )
            planned.append(
                PlannedCommand(
                    id=next(self._command_ids),
                    text=step.text,
                    start=at,
                    end=at + behaviour.duration_seconds,
                    return_code=code,
                    stdout=behaviour.output(code),
                    stderr=behaviour.stderr,
                    resources=resources,
                )
            )
            at = planned[-1].end
            if code != 0:
                # A run that continued after a failed command still counts as failed (an inference).
                state = FAILED
                if not step.continue_on_error:
                    break
        return tuple(planned), RunEnd(at, state)


def steps_for(schedule: Schedule, request: RunRequest) -> list[Step]:
    """Return the steps that a run executes, including Bolt's own commands at the beginning.

    Raises:
        Refused: The request is contradictory, or has no command.
    """
    if request.commands is not None and request.command_configs is not None:
        message = "Give at most one of `commands` and `commandConfigs`."
        raise Refused(message)
    wanted: list[tuple[str, bool | None]] = [(command.command, None) for command in schedule.commands]
    if request.commands is not None:
        wanted = [(text, None) for text in request.commands]
    elif request.command_configs is not None:
        wanted = list(request.command_configs)
    # It is not known what Bolt does with an empty list. The simulator refuses an empty list, so that clients do not use
    # one.
    if not wanted or not all(text.strip() for text, _ in wanted):
        message = "A run needs at least one command, and no command may be empty."
        raise Refused(message)
    goes_on = schedule.continue_on_error if request.continue_on_error is None else request.continue_on_error
    # A command that is part of the schedule behaves as the schedule defines, even if a request names the command.
    known = {command.command: command for command in schedule.commands}
    first = setup_commands(request.branch or schedule.branch) if schedule.setup_commands else ()
    steps = [Step(command.command, command, continue_on_error=False) for command in first]
    for text, choice in wanted:
        behaviour = known.get(text) or SimulatedCommand(text)
        choices = (choice, behaviour.continue_on_error, goes_on)
        steps.append(Step(text, behaviour, next(each for each in choices if each is not None)))
    return steps


def looks_like_commit(branch: str) -> bool:
    """Return whether a branch argument is a commit hash, not a branch name."""
    return re.fullmatch(r"[0-9a-f]{40}", branch) is not None


def steps_to_retry(run: Run, now: float) -> list[Step]:
    """Return the steps of a retry: the first command that did not succeed, and all commands after it.

    The first step becomes `dbt retry`, if its command failed and dbt can resume the command.
    """
    outcome = {place: command.return_code for place, command in enumerate(run.commands(now))}
    steps: list[Step] = []
    for place, step in enumerate(run.steps):
        if step.behaviour.is_setup or (not steps and outcome.get(place) == 0):
            continue
        failed_here = not steps and outcome.get(place) not in (None, 0)
        text = step.behaviour.text_for_retry if failed_here else step.text
        steps.append(dataclasses.replace(step, text=text))
    # All commands succeeded, but the run failed: there is nothing to leave out.
    return steps or [step for step in run.steps if not step.behaviour.is_setup]
