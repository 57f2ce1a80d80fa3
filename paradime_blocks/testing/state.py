"""What the simulated Bolt workspace stores and does: schedules, runs, commands, resources. This module has no HTTP."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterable

from .clock import Clock
from .planning import Planner, Refused, RunRequest, Schedule, steps_for, steps_to_retry
from .runs import (
    CANCELED,
    ERROR,
    FAILED,
    SKIPPED,
    Run,
    RunEnd,
    SimulatedResource,
    SimulatedRunCommand,
    Step,
    starting_states,
)

_CAN_BE_RETRIED = (FAILED, ERROR, CANCELED)


class Workspace:
    """Everything that the simulated service stores. Each public method holds the same lock while it works."""

    def __init__(self, clock: Clock, first_run_id: int) -> None:
        """Start with no schedules and no runs.

        Args:
            clock: The clock that the runs use.
            first_run_id: The id of the first run.
        """
        self.clock = clock
        self._first_run_id = first_run_id
        self.lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._schedules: dict[str, Schedule] = {}
        self._runs: dict[int, Run] = {}
        self._planner = Planner()
        self._commands: dict[int, Run] = {}
        self._resources: dict[int, int] = {}
        self._schedule_ids = itertools.count(1201)
        self._run_ids = itertools.count(self._first_run_id)

    def clear(self) -> None:
        """Remove all schedules and runs."""
        with self.lock:
            self._forget()

    # Schedules

    def put_schedule(self, schedule: Schedule) -> None:
        """Add a schedule, or replace the schedule of the same name."""
        with self.lock:
            known = self._schedules.get(schedule.name)
            number = known.id if known else next(self._schedule_ids)
            self._schedules[schedule.name] = dataclasses.replace(schedule, id=number)

    def schedule(self, name: str) -> Schedule:
        """Return the schedule with that name or slug.

        Raises:
            Refused: No schedule has this name or slug.
        """
        with self.lock:
            if name in self._schedules:
                return self._schedules[name]
            for schedule in self._schedules.values():
                if schedule.slug == name:
                    return schedule
        message = f"Bolt schedule {name!r} was not found."
        raise Refused(message)

    def schedules(self) -> list[Schedule]:
        """Return all schedules, oldest first."""
        with self.lock:
            return list(self._schedules.values())

    def suspend(self, name: str, *, suspend: bool) -> None:
        """Suspend a schedule or resume it.

        Raises:
            Refused: The schedule comes from a file in the repository. Only schedules from the UI or the API can be
                suspended.
        """
        with self.lock:
            schedule = self.schedule(name)
            if schedule.source == "YAML":
                message = f"Schedule {schedule.name!r} is defined in YAML and must be suspended there."
                raise Refused(message)
            self._schedules[schedule.name] = dataclasses.replace(schedule, suspended=suspend)

    # Runs

    def runs(self, name: str | None = None) -> list[Run]:
        """Return all runs, or the runs of one schedule, oldest first."""
        with self.lock:
            wanted = None if name is None else self.schedule(name).name
            return [run for run in self._runs.values() if wanted in (None, run.schedule_name)]

    def run(self, run_id: int) -> Run:
        """Return the run with that id.

        Raises:
            Refused: No run has this id. We assume that Bolt reports an error for an unknown run, and not `ok: false`.
        """
        with self.lock:
            if run_id in self._runs:
                return self._runs[run_id]
        message = f"Bolt run {run_id} was not found."
        raise Refused(message)

    def trigger(self, name: str, request: RunRequest, *, even_if_running: bool = False) -> Run:
        """Start a run.

        Raises:
            Refused: The request is contradictory, or the schedule is running and does not allow a second run.
        """
        with self.lock:
            schedule = self.schedule(name)
            if not even_if_running:
                self._refuse_second_run(schedule)
            # A suspended schedule can still be triggered: only its timer is suspended (an inference).
            return self._start(schedule, steps_for(schedule, request), request)

    def retry(self, run_id: int, *, everything: bool = False) -> Run:
        """Retry a run. The new run repeats all commands, or only those that the old run did not complete.

        Raises:
            Refused: The run has not ended, or has not failed. With `everything`, a run that succeeded can be retried,
                too.
        """
        with self.lock:
            now = self.clock.seconds()
            old = self.run(run_id)
            schedule = self.schedule(old.schedule_name)
            state = old.state(now)
            if old.is_active(now) or not (everything or state in _CAN_BE_RETRIED):
                message = f"Bolt run {run_id} is {state} and cannot be retried."
                raise Refused(message)
            self._refuse_second_run(schedule)
            steps = [step for step in old.steps if not step.behaviour.is_setup]
            if not everything:
                steps = steps_to_retry(old, now)
            # The new run uses the schedule as it is now, with all changes since the first run.
            known = {command.command: command for command in schedule.commands}
            steps = [
                dataclasses.replace(step, behaviour=known.get(step.behaviour.command, step.behaviour))
                for step in steps
            ]
            request = RunRequest(branch=old.branch, pr_number=old.pr_number, actor="API")
            return self._start(schedule, steps, request, parent_run_id=old.id)

    def retry_latest_failure(self, name: str) -> Run:
        """Retry the latest failed run of a schedule.

        Raises:
            Refused: No run has failed.
        """
        with self.lock:
            now = self.clock.seconds()
            for run in reversed(self.runs(name)):
                if not run.is_active(now) and run.state(now) in _CAN_BE_RETRIED:
                    return self.retry(run.id)
        message = f"Schedule {name!r} has no failed run to retry."
        raise Refused(message)

    def cancel(self, run_id: int) -> bool:
        """Request the cancel of a run.

        Returns:
            The value of `ok`. If the run has ended, we assume that Bolt returns `ok: true` and does not change the run.

        Raises:
            Refused: The schedule refuses cancels.
        """
        with self.lock:
            run = self.run(run_id)
            schedule = self.schedule(run.schedule_name)
            run.cancel_requests += 1
            if schedule.cancel == "refuse":
                message = f"Bolt run {run_id} cannot be canceled."
                raise Refused(message)
            now = self.clock.seconds()
            if schedule.cancel == "honour" and run.is_active(now):
                run.interrupt(now + schedule.cancel_seconds, CANCELED)
            return schedule.cancel != "not_ok"

    def finish(self, run_id: int, state: str) -> None:
        """End a run now; a run that has ended does not change."""
        with self.lock:
            run, now = self.run(run_id), self.clock.seconds()
            if run.is_active(now):
                run.interrupt(now, state)

    # Commands and resources

    def command(self, command_id: int) -> SimulatedRunCommand:
        """Return the command with that id.

        Raises:
            Refused: No run has started a command with this id.
        """
        with self.lock:
            run = self._commands.get(command_id)
            for command in run.commands(self.clock.seconds()) if run else ():
                if command.id == command_id:
                    return command
        message = f"Bolt command {command_id} was not found."
        raise Refused(message)

    def resource(self, resource_id: int) -> SimulatedResource:
        """Return the resource with that id.

        Raises:
            Refused: No command has written a resource with this id.
        """
        with self.lock:
            if resource_id in self._resources:
                for resource in self.command(self._resources[resource_id]).resources:
                    if resource.id == resource_id:
                        return resource
        message = f"Bolt resource {resource_id} was not found."
        raise Refused(message)

    # How a run is made

    def _refuse_second_run(self, schedule: Schedule) -> None:
        now = self.clock.seconds()
        if schedule.already_running == "refuse":
            for run in self._runs.values():
                if run.schedule_name == schedule.name and run.is_active(now):
                    message = (
                        f"AlreadyRunningException: schedule {schedule.name!r} is already running"
                        " and does not allow a second run."
                    )
                    raise Refused(message)

    def _start(
        self,
        schedule: Schedule,
        steps: Iterable[Step],
        request: RunRequest,
        parent_run_id: int | None = None,
    ) -> Run:
        steps = tuple(steps)
        created = self.clock.seconds()
        starting, begin = starting_states(created, schedule.starting_seconds, schedule.intermediate_states)
        # A skipped run executes nothing.
        planned, natural = self._planner.plan(
            schedule, () if schedule.final_state == SKIPPED else steps, begin
        )
        if schedule.final_state is not None:
            natural = RunEnd(natural.at, schedule.final_state)
        run = Run(
            id=next(self._run_ids),
            schedule_name=schedule.name,
            branch=request.branch or schedule.branch,
            steps=steps,
            created=created,
            starting=starting,
            planned=planned,
            natural=natural,
            actor=request.actor,
            reason=request.reason,
            pr_number=request.pr_number,
            parent_run_id=parent_run_id,
        )
        self._runs[run.id] = run
        for command in planned:
            self._commands[command.id] = run
            self._resources.update((resource.id, command.id) for resource in command.resources)
        return run
