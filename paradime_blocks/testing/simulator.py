"""The simulator that tests use: a Bolt workspace behind a real socket, with a method for everything."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .commands import SimulatedCommand, as_command
from .faults import RESOURCE, Fault
from .host import SimulatorHost
from .planning import AlreadyRunning, CancelPolicy, Refused, RunRequest, Schedule
from .requests import RecordedRequest
from .runs import SimulatedRun

_GLANCE_SECONDS = 0.01


class BoltSimulator(SimulatorHost):
    """A Bolt workspace that lives in this process and speaks the Bolt API over HTTP.

    Use it as a context manager, or call `start` and `stop`. A stopped simulator refuses connections and keeps
    its data. Started again, it is back on the same port: that simulates an outage.

    Example:
        >>> with BoltSimulator(speed=60) as simulator:
        ...     simulator.add_schedule("daily", commands=["dbt run", "dbt test"])
        ...     run_id = simulator.start_run("daily")
        ...     simulator.clock.advance(60)
        ...     simulator.run(run_id).state
        'SUCCESS'
    """

    # What the workspace holds

    def add_schedule(
        self,
        name: str,
        commands: Sequence[str | SimulatedCommand] = ("dbt run",),
        *,
        slug: str | None = None,
        branch: str = "main",
        cron: str = "0 3 * * *",
        owner: str = "data-team@example.com",
        starting_seconds: float = 0.0,
        suspended: bool = False,
        active: bool = True,
        final_state: str | None = None,
        intermediate_states: Sequence[str] = (),
        already_running: AlreadyRunning = "refuse",
        cancel: CancelPolicy = "honour",
        cancel_seconds: float = 0.0,
        setup_commands: bool = True,
        continue_on_error: bool = False,
        source: str = "UI",
    ) -> None:
        """Add a schedule, or change the one of that name for all future runs.

        Args:
            name: Its name.
            commands: Its commands, in order.
            slug: The newer identifier. By default, the name.
            branch: The branch that it runs on.
            cron: When it would run on its own. The simulator starts nothing on its own.
            owner: The email of its owner.
            starting_seconds: How long a run stays in STARTING, in virtual seconds.
            suspended: Whether its timer is suspended.
            active: Whether it is active; inactive ones are listed with `showInactive` only.
            final_state: The final state of each run, whatever its commands do: `ERROR`, `SKIPPED` (which
                executes no command), or a state unknown to clients.
            intermediate_states: The states before RUNNING, in order, instead of STARTING. They share
                `starting_seconds` evenly, or last a virtual second each.
            already_running: What a trigger gets while a run is active: `"refuse"` responds with an
                AlreadyRunningException.
            cancel: `"honour"` cancels; `"refuse"` responds with an error and `"not_ok"` with `ok: false`;
                `"ignore"` responds with `ok: true`, and the run continues.
            cancel_seconds: How long a cancelled run takes to be CANCELED, in virtual seconds.
            setup_commands: Whether runs begin with `git clone` and `dbt deps`, as in Bolt.
            continue_on_error: Whether a run continues after a failed command.
            source: Where it is defined. A schedule from `"YAML"` cannot be suspended through the API.
        """
        schedule = Schedule(
            id=0,
            name=name,
            slug=slug or name,
            commands=tuple(as_command(command) for command in commands),
            branch=branch,
            cron=cron,
            owner=owner,
            starting_seconds=starting_seconds,
            suspended=suspended,
            active=active,
            final_state=final_state,
            intermediate_states=tuple(intermediate_states),
            already_running=already_running,
            cancel=cancel,
            cancel_seconds=cancel_seconds,
            setup_commands=setup_commands,
            continue_on_error=continue_on_error,
            source=source,
        )
        self._workspace.put_schedule(schedule)

    def update_schedule(self, name: str, **changes: Any) -> None:
        """Change a schedule for future runs (`cancel` and `cancel_seconds` take effect at once)."""
        if "commands" in changes:
            changes["commands"] = tuple(as_command(command) for command in changes["commands"])
        with self._workspace.lock:
            self._workspace.put_schedule(dataclasses.replace(self._schedule(name), **changes))

    def start_run(
        self,
        schedule_name: str,
        *,
        commands: Sequence[str] | None = None,
        branch: str | None = None,
        pr_number: int | None = None,
        reason: str | None = None,
        command_configs: Sequence[tuple[str, bool | None]] | None = None,
        continue_on_error: bool | None = None,
        actor: str = "Scheduler",
    ) -> int:
        """Start a run as another client would: without a request, even if a run is active.

        Args:
            schedule_name: The schedule.
            commands: What to run instead of its own commands.
            branch: What to run on instead of its own branch.
            pr_number: The run's pull request.
            reason: Why it was started.
            command_configs: Commands, each with whether to continue when it fails.
            continue_on_error: Whether the run continues after a failed command.
            actor: Who started it.

        Returns:
            The run id.
        """
        request = RunRequest(
            commands=commands,
            branch=branch,
            pr_number=pr_number,
            reason=reason,
            command_configs=command_configs,
            continue_on_error=continue_on_error,
            actor=actor,
        )
        self._schedule(schedule_name)
        return self._workspace.trigger(schedule_name, request, even_if_running=True).id

    def finish(self, run_id: int, state: str = "SUCCESS") -> None:
        """End a run now; a run that has ended does not change."""
        self.run(run_id)
        self._workspace.finish(run_id, state)

    def runs(self, schedule_name: str | None = None) -> list[SimulatedRun]:
        """All runs, or those of one schedule, oldest first."""
        with self._workspace.lock:
            if schedule_name is not None:
                self._schedule(schedule_name)
            now = self.clock.seconds()
            return [run.snapshot(now) for run in self._workspace.runs(schedule_name)]

    def run(self, run_id: int) -> SimulatedRun:
        """One run.

        Raises:
            KeyError: If there is no such run.
        """
        with self._workspace.lock:
            try:
                return self._workspace.run(run_id).snapshot(self.clock.seconds())
            except Refused as refusal:
                raise KeyError(str(refusal)) from None

    def active_runs(self) -> list[SimulatedRun]:
        """The runs that have not ended."""
        return [run for run in self.runs() if run.is_active]

    def _schedule(self, name: str) -> Schedule:
        try:
            return self._workspace.schedule(name)
        except Refused as refusal:
            raise KeyError(str(refusal)) from None

    # What clients have requested

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests so far, in the order of arrival."""
        return self._log.all()

    def count(self, operation: str) -> int:
        """Count the requests with that root field (or `"resource"`) that had valid credentials, answered or not.

        Raises:
            ValueError: If the API has no such operation.
        """
        self._check_operation(operation)
        return sum(request.authorized and operation in request.operations for request in self.requests)

    @property
    def bad_requests(self) -> list[RecordedRequest]:
        """The requests that the simulator could not understand: mistakes of the client, not faults."""
        return [request for request in self.requests if request.not_understood is not None]

    def allow_bad_requests(self) -> None:
        """Do not let the pytest fixture fail the test because of `bad_requests`."""
        self.bad_requests_allowed = True

    def wait_for(self, predicate: Callable[[BoltSimulator], object], timeout: float = 10.0) -> None:
        """Wait, in real time, until a condition is true.

        It blocks. In async code, use `await asyncio.to_thread(simulator.wait_for, ...)`.

        Args:
            predicate: Takes the simulator; a true result ends the wait.
            timeout: The longest wait, in real seconds.

        Raises:
            TimeoutError: If the condition is not true in time.
        """
        deadline = time.monotonic() + timeout
        while not predicate(self):
            left = deadline - time.monotonic()
            if left <= 0:
                message = f"The condition was not true within {timeout} s; runs: {self.runs()}"
                raise TimeoutError(message)
            # A request wakes the wait. What only the clock changes is found by checking again soon.
            self._log.wait_for_change(min(left, _GLANCE_SECONDS))

    # What goes wrong

    def inject(self, *faults: Fault) -> None:
        """Make calls fail; see `paradime_blocks.testing.faults`.

        Raises:
            ValueError: If a fault names an operation that the API does not have.
        """
        for fault in faults:
            if fault.operation is not None:
                self._check_operation(fault.operation)
        self._faults.inject(*faults)

    def clear_faults(self) -> None:
        """Remove all faults that are not used up."""
        self._faults.clear()

    @property
    def pending_faults(self) -> tuple[Fault, ...]:
        """The faults that can still hit a call."""
        return self._faults.pending

    def lacks(
        self,
        *,
        operations: Iterable[str] = (),
        arguments: Iterable[str] = (),
        fields: Iterable[str] = (),
        aliases: bool = False,
    ) -> None:
        """Act as an older backend, which lacks parts of the API and reports that with GraphQL errors.

        Args:
            operations: Root fields, such as `listBoltRuns`.
            arguments: Arguments of root fields, such as `triggerBoltRun.reason`.
            fields: Fields by type (`BoltScheduleType.suspended`) or by their path from an operation
                (`boltScheduleName.suspended`).
            aliases: Refuse documents that use aliases.

        Raises:
            ValueError: If the schema has no such name.
        """
        self._api.reduce(operations=operations, arguments=arguments, fields=fields, aliases=aliases)

    def reset(self) -> None:
        """Reset everything: no schedules, runs, requests, faults or lacks, and the clock at its first speed."""
        self._workspace.clear()
        self._faults.clear()
        self._log.clear()
        self._api.restore()
        self.clock.speed = self._speed
        self.bad_requests_allowed = False

    def _check_operation(self, operation: str) -> None:
        known = (*self._api.operations, RESOURCE)
        if operation not in known:
            message = f"The Bolt API has no operation {operation!r}; it has {', '.join(known)}."
            raise ValueError(message)
