"""The simulator that tests use: a Bolt workspace behind a real socket, with methods to change and to read it."""

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
from .webhooks import Delivery, SentWebhook

_GLANCE_SECONDS = 0.01
_ONCE = Delivery()


class BoltSimulator(SimulatorHost):
    """A Bolt workspace that runs in this process and speaks the Bolt API over HTTP.

    Use the simulator as a context manager, or call `start` and `stop`. A stopped simulator refuses connections and
    keeps its data. After the next `start`, it uses the same port again. So a stop and a start simulate an outage.

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
        """Add a schedule, or change the schedule of this name for all future runs.

        Args:
            name: The schedule's name.
            commands: The schedule's commands, in order.
            slug: The schedule's slug. By default, the slug is the name.
            branch: The git branch that the schedule's runs use.
            cron: The schedule's cron expression. The simulator itself starts no run.
            owner: The e-mail address of the schedule's owner.
            starting_seconds: How long a run stays in STARTING, in virtual seconds.
            suspended: Whether the schedule's timer is suspended.
            active: Whether the schedule is active. Inactive schedules are listed only with `showInactive`.
            final_state: The final state of each run, whatever the run's commands do: `ERROR`, `SKIPPED` (then the run
                executes no command), or a state that clients do not know. With None, the commands decide.
            intermediate_states: The states before RUNNING, in order, instead of STARTING. These states share
                `starting_seconds` evenly. If `starting_seconds` is 0, each state lasts one virtual second.
            already_running: The response to a trigger while a run is active: `"refuse"` responds with an
                AlreadyRunningException; `"allow"` starts another run.
            cancel: The response to a cancel: `"honour"` cancels the run; `"refuse"` responds with an error; `"not_ok"`
                responds with `ok: false`; `"ignore"` responds with `ok: true`, but the run continues.
            cancel_seconds: How long a cancelled run takes until its state is CANCELED, in virtual seconds.
            setup_commands: Whether runs begin with `git clone` and `dbt deps`, as in Bolt.
            continue_on_error: Whether a run continues after a failed command.
            source: Where the schedule is defined. A schedule from `"YAML"` cannot be suspended through the API.
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
        """Start a run without an HTTP request, even if another run is active: a test can simulate another client's run.

        Args:
            schedule_name: The schedule's name.
            commands: Commands that replace the schedule's commands.
            branch: A git branch or commit that replaces the schedule's branch.
            pr_number: The run's pull request.
            reason: Why the run was started.
            command_configs: Commands as pairs: the text, and whether the run continues after this command has failed.
            continue_on_error: Whether the run continues after a failed command.
            actor: Who started the run.

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
        """Return all runs, or the runs of one schedule, oldest first."""
        with self._workspace.lock:
            if schedule_name is not None:
                self._schedule(schedule_name)
            now = self.clock.seconds()
            return [run.snapshot(now) for run in self._workspace.runs(schedule_name)]

    def run(self, run_id: int) -> SimulatedRun:
        """Return one run.

        Raises:
            KeyError: No run has this id.
        """
        with self._workspace.lock:
            try:
                return self._workspace.run(run_id).snapshot(self.clock.seconds())
            except Refused as refusal:
                raise KeyError(str(refusal)) from None

    def active_runs(self) -> list[SimulatedRun]:
        """Return the runs that have not ended."""
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
        """Count the requests with valid credentials for a root field, or for the downloads of files (`"resource"`).

        Requests without a response count, too.

        Raises:
            ValueError: The API has no such operation.
        """
        self._check_operation(operation)
        return sum(request.authorized and operation in request.operations for request in self.requests)

    @property
    def bad_requests(self) -> list[RecordedRequest]:
        """The requests that the simulator could not understand: mistakes of the client, not faults."""
        return [request for request in self.requests if request.not_understood is not None]

    def allow_bad_requests(self) -> None:
        """Tell the pytest fixture not to fail the test because of `bad_requests`."""
        self.bad_requests_allowed = True

    def wait_for(self, predicate: Callable[[BoltSimulator], object], timeout: float = 10.0) -> None:
        """Wait, in real time, until a condition is true.

        This method blocks its thread. In async code, use `await asyncio.to_thread(simulator.wait_for, ...)`.

        Args:
            predicate: A function that takes the simulator. A true result ends the wait.
            timeout: The longest wait, in real seconds.

        Raises:
            TimeoutError: The condition was not true in time.
        """
        deadline = time.monotonic() + timeout
        while not predicate(self):
            left = deadline - time.monotonic()
            if left <= 0:
                message = f"The condition was not true within {timeout} s; runs: {self.runs()}"
                raise TimeoutError(message)
            # A new request ends this sleep at once. After the sleep, the next check finds what only the clock has
            # changed.
            self._log.wait_for_change(min(left, _GLANCE_SECONDS))

    # Webhooks

    def add_webhook(self, url: str, *, started: Delivery = _ONCE, completed: Delivery = _ONCE) -> None:
        """Send webhooks to a URL, as Bolt does, about each run that starts or completes from now on.

        The webhooks are sent while the simulator is running, one after another. A run that is cancelled or skipped
        sends no `completed`. (Whether that is so in Bolt is not known.)

        Args:
            url: Where the webhooks are sent to.
            started: How often and when the webhook is sent that a run has started.
            completed: How often and when the webhook is sent that a run has failed or succeeded.
        """
        self._webhooks.add(url, started, completed)

    def webhook_body(self, run_id: int) -> dict[str, Any]:
        """Return the body that a webhook about a run has now."""
        self.run(run_id)
        return self._webhook_body(run_id)

    @property
    def webhooks_sent(self) -> list[SentWebhook]:
        """All webhooks that were sent so far, in order."""
        return [*self._webhooks.sent]

    # What goes wrong

    def inject(self, *faults: Fault) -> None:
        """Make calls fail; see `paradime_blocks.testing.faults`.

        Raises:
            ValueError: A fault names an operation that the API does not have.
        """
        for fault in faults:
            if fault.operation is not None:
                self._check_operation(fault.operation)
        self._faults.inject(*faults)

    def clear_faults(self) -> None:
        """Remove all faults that can still hit a call."""
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
            aliases: Whether documents that use aliases are refused.

        Raises:
            ValueError: The schema has no such name.
        """
        self._api.reduce(operations=operations, arguments=arguments, fields=fields, aliases=aliases)

    def reset(self) -> None:
        """Remove all schedules, runs, requests and faults, restore the whole API, and reset the speed of the clock."""
        self._workspace.clear()
        self._faults.clear()
        self._log.clear()
        self._webhooks.clear()
        self._api.restore()
        self.clock.speed = self._speed
        self.bad_requests_allowed = False

    def _check_operation(self, operation: str) -> None:
        known = (*self._api.operations, RESOURCE)
        if operation not in known:
            message = f"The Bolt API has no operation {operation!r}; it has {', '.join(known)}."
            raise ValueError(message)
