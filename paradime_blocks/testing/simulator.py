"""The simulator as tests see it: a Bolt workspace behind a real socket, with handles for everything."""

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
    what it knows; started again, it is back on the same port: that makes an outage.

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
        """Add a schedule, or change the one of that name for all runs to come.

        Args:
            name: Its name.
            commands: What it runs, in order.
            slug: The newer identifier; the name itself unless given.
            branch: The branch that it runs on.
            cron: When it would run by itself; the simulator starts nothing by itself.
            owner: The email of its owner.
            starting_seconds: How long a run shows STARTING, in virtual seconds.
            suspended: Whether its timer is suspended.
            active: Whether it is active; inactive ones are listed with `showInactive` only.
            final_state: What each run ends as, whatever its commands do: `ERROR`, `SKIPPED` (which carries
                out no command), or a state that nobody has heard of.
            intermediate_states: The states to show, in turn, before RUNNING, in place of STARTING. They share
                `starting_seconds` evenly, or last a virtual second each.
            already_running: What a trigger gets while a run is active: `"refuse"` answers an
                AlreadyRunningException.
            cancel: `"honour"` cancels; `"refuse"` answers an error and `"not_ok"` answers `ok: false`;
                `"ignore"` answers `ok: true`, and the run goes on.
            cancel_seconds: How long a cancelled run takes to be CANCELED, in virtual seconds.
            setup_commands: Whether runs begin with `git clone` and `dbt deps`, as Bolt's do.
            continue_on_error: Whether a run goes on after a failed command.
            source: Where it is defined; one from `"YAML"` cannot be suspended by API.
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
        """Change some of a schedule, for runs to come (`cancel` and `cancel_seconds` at once)."""
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
        """Start a run as somebody else would, without a request, and even if one is active.

        Args:
            schedule_name: The schedule.
            commands: What to run in place of its own commands.
            branch: What to run on in place of its own branch.
            pr_number: The pull request that it is for.
            reason: Why it was started.
            command_configs: Commands with whether to go on when they fail.
            continue_on_error: Whether the run goes on after a failed command.
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
        """End a run now; one that has ended stays as it is."""
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
        """The runs that are still going."""
        return [run for run in self.runs() if run.is_active]

    def _schedule(self, name: str) -> Schedule:
        try:
            return self._workspace.schedule(name)
        except Refused as refusal:
            raise KeyError(str(refusal)) from None

    # What clients have asked for

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests so far, in the order in which they came."""
        return self._log.all()

    def count(self, operation: str) -> int:
        """How many requests with that root field (or `"resource"`) got past the credentials, answered or not.

        Raises:
            ValueError: If the API has no such operation.
        """
        self._check_operation(operation)
        return sum(request.authorized and operation in request.operations for request in self.requests)

    @property
    def bad_requests(self) -> list[RecordedRequest]:
        """The requests that the simulator could not understand: slips of the client, not faults."""
        return [request for request in self.requests if request.not_understood is not None]

    def allow_bad_requests(self) -> None:
        """Keep the pytest fixture from failing the test because of `bad_requests`."""
        self.bad_requests_allowed = True

    def wait_for(self, predicate: Callable[[BoltSimulator], object], timeout: float = 10.0) -> None:
        """Wait, in real time, until something holds of the simulator.

        It blocks: in async code, `await asyncio.to_thread(simulator.wait_for, ...)`.

        Args:
            predicate: Is handed the simulator; anything true ends the wait.
            timeout: How long to wait at most, in real seconds.

        Raises:
            TimeoutError: If it does not come to hold in time.
        """
        deadline = time.monotonic() + timeout
        while not predicate(self):
            left = deadline - time.monotonic()
            if left <= 0:
                message = f"What was waited for did not come about within {timeout} s; runs: {self.runs()}"
                raise TimeoutError(message)
            # Requests wake it; what comes about by the clock alone is found by looking again soon.
            self._log.wait_for_change(min(left, _GLANCE_SECONDS))

    # What goes wrong

    def inject(self, *faults: Fault) -> None:
        """Make calls go wrong; see `paradime_blocks.testing.faults`.

        Raises:
            ValueError: If a fault waits for an operation that the API does not have.
        """
        for fault in faults:
            if fault.operation is not None:
                self._check_operation(fault.operation)
        self._faults.inject(*faults)

    def clear_faults(self) -> None:
        """Take back all faults that are not used up."""
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
        """Be an older backend, which does not know some of the API and says so as GraphQL does.

        Args:
            operations: Root fields, such as `listBoltRuns`.
            arguments: Arguments of root fields, such as `triggerBoltRun.reason`.
            fields: Fields by type (`BoltScheduleType.suspended`) or by the way to them from an operation
                (`boltScheduleName.suspended`).
            aliases: Refuse documents that use aliases.

        Raises:
            ValueError: If the schema has nothing of such a name.
        """
        self._api.reduce(operations=operations, arguments=arguments, fields=fields, aliases=aliases)

    def reset(self) -> None:
        """Be as new: no schedules, runs, requests, faults or lacks, and the clock at its first speed."""
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
