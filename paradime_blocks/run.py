"""`BoltRun`, the handle of a Bolt run. A handle needs only a run's id and credentials: any process can create it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from prefect.blocks.abstract import JobRun

from paradime_blocks.client.inputs import check_id, check_seconds
from paradime_blocks.errors import (
    BoltAuthError,
    BoltCancelUnconfirmed,
    BoltError,
    BoltRunTimedOut,
    BoltUnavailable,
)
from paradime_blocks.models import BoltCommand, BoltRunResult, BoltRunState, BoltRunStatus, run_url
from paradime_blocks.outcome import Outcome, facts_of
from paradime_blocks.polling import (
    CANCEL_GRACE_SECONDS,
    MAX_OUTAGE_SECONDS,
    POLL_INTERVAL_SECONDS,
    POLL_POLICY,
    Clock,
    Deadline,
    Observation,
    asked_to_wait,
    observe,
    system_clock,
)
from paradime_blocks.run_log import RunLog
from paradime_blocks.signals import INTERRUPTS, signals_held_off, to_the_end
from paradime_blocks.sync import sync_form
from paradime_blocks.waiting import observed

if TYPE_CHECKING:
    from paradime_blocks.credentials import ParadimeCredentials

_SHORTEST_CANCEL_SECONDS = 3.0
# A shorter interval has no use: Bolt does not answer faster.
_SHORTEST_POLL_INTERVAL_SECONDS = 0.1
_LEFT_RUNNING = "The Bolt run was not cancelled and may still be running."

Watcher = Callable[[Observation], Awaitable[None]]


@dataclass(frozen=True)
class BoltRun(JobRun[BoltRunResult]):
    """A Bolt run: read its state, wait for it, cancel it, fetch its result.

    Args:
        run_id: The id of the run.
        credentials: The credentials of the run's workspace.
        schedule_name: The name of the run's schedule, for messages. Bolt's API does not return this name.
        cancel_on_timeout: Whether to cancel the run when its time limit is reached.
        cancel_on_interrupt: Whether to cancel the run when the wait for it is interrupted.
        timeout_seconds: How long to wait for the run's end by default, in seconds; None for no limit.
        poll_interval_seconds: The longest time between two polls, in seconds.
        max_outage_seconds: How long Bolt may be unreachable before the wait fails, in seconds.
        cancel_grace_seconds: How long the run may take to end after a cancel, in seconds.

    Example:
        ```python
        from paradime_blocks import BoltSchedule, ParadimeCredentials
        from paradime_blocks.testing import BoltSimulator

        with BoltSimulator(speed=100) as simulator:
            simulator.add_schedule("daily", commands=["dbt run"])
            credentials = ParadimeCredentials(
                api_endpoint=simulator.api_endpoint,
                api_key=simulator.api_key,
                api_secret=simulator.api_secret,
            )
            run = BoltSchedule(schedule_name="daily", credentials=credentials).trigger()
            run.wait_for_completion()
            print(run.fetch_result().state)
        ```
    """

    run_id: int
    credentials: ParadimeCredentials = field(repr=False)
    schedule_name: str | None = None
    cancel_on_timeout: bool = field(default=False, repr=False)
    cancel_on_interrupt: bool = field(default=False, repr=False)
    timeout_seconds: float | None = field(default=None, repr=False)
    poll_interval_seconds: float = field(default=POLL_INTERVAL_SECONDS, repr=False)
    max_outage_seconds: float = field(default=MAX_OUTAGE_SECONDS, repr=False)
    cancel_grace_seconds: float = field(default=CANCEL_GRACE_SECONDS, repr=False)
    clock: Clock = field(default_factory=system_clock, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the id and the times.

        Raises:
            BoltRequestError: The id is not a whole number above 0, or a time is not a number of seconds.
        """
        check_id("run_id", self.run_id)
        if self.timeout_seconds is not None:
            check_seconds("timeout_seconds", self.timeout_seconds)
        check_seconds(
            "poll_interval_seconds", self.poll_interval_seconds, least=_SHORTEST_POLL_INTERVAL_SECONDS
        )
        check_seconds("max_outage_seconds", self.max_outage_seconds)
        check_seconds("cancel_grace_seconds", self.cancel_grace_seconds)

    @property
    def url(self) -> str:
        """The URL of the run's page in Paradime."""
        return run_url(self.run_id)

    async def astate(self) -> BoltRunState:
        """Return the run's current state.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        async with self.credentials.get_client() as client:
            return (await client.get_bolt_run(self.run_id, logs=False)).state

    async def acommands(self) -> list[BoltCommand]:
        """Return the run's commands that have started, with their output so far.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        async with self.credentials.get_client() as client:
            return (await client.get_bolt_run(self.run_id)).commands

    async def await_for_completion(
        self,
        timeout_seconds: float | None = None,
        *,
        watcher: Watcher | None = None,
        whole_seconds: float | None = None,
    ) -> BoltRunState:
        """Wait until the run has ended, in any state. `fetch_result` raises an error if the run did not succeed.

        All waits of one event loop with the same credentials share their polls: one request reads the status of up to
        100 runs. The sync form has an event loop of its own in each thread, so its waits share no polls.

        The time limit and an interrupt cancel the run in Bolt if `cancel_on_timeout` and `cancel_on_interrupt` say so.
        An outage of Bolt never cancels the run.

        Args:
            timeout_seconds: How long to wait, in seconds; None for the handle's `timeout_seconds`. With 0, the run
                is polled once.
            watcher: An async function that is called after each poll.
            whole_seconds: The whole time limit of the run, in seconds. Messages show this limit. Set `whole_seconds` if
                `timeout_seconds` is only the rest of this limit.

        Returns:
            The state in which the run ended.

        Raises:
            BoltRunTimedOut: The run did not end in time. If `cancel_on_timeout` is set, the run was cancelled.
            BoltCancelUnconfirmed: The run did not end in time, and the cancel failed.
            BoltUnavailable: Bolt was unreachable for `max_outage_seconds`. The run may still be running.
            BoltAuthError: Bolt refused the credentials before any poll had succeeded, or later for at least a minute.
                The run may still be running.
            BoltRequestError: `timeout_seconds` is not a number of seconds.
        """
        if timeout_seconds is not None:
            check_seconds("timeout_seconds", timeout_seconds)
        limit = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline = Deadline(limit, self.clock)
        waited = max(0.0, limit or 0.0) if whole_seconds is None else whole_seconds
        is_to_end = self.cancel_on_interrupt
        log = RunLog(self.run_id, self.credentials, self.logger)
        try:
            state = await self._watch_to_the_end(deadline, watcher, log)
            if state is not None:
                return state
            is_to_end = is_to_end or self.cancel_on_timeout
            ended = await self._end_for_timeout(waited)
        except INTERRUPTS:
            # The time limit may have begun to cancel the Bolt run. An asyncio cancel may then have interrupted that
            # cancel, in spite of anyio's shield. So the Bolt run is cancelled here.
            if is_to_end:
                with signals_held_off():
                    await to_the_end(self._cancel_after_interrupt())
            raise
        if ended in {BoltRunState.CANCELED, None}:
            done = "it was cancelled" if self.cancel_on_timeout else "it is still running"
            raise BoltRunTimedOut(
                f"The Bolt run did not end within {_plain_seconds(waited)} s; {done}.",
                waited_seconds=waited,
                command=log.running_command,
                **self._facts(ended),
            )
        # The run ended by itself before the cancel took effect.
        return ended

    async def _watch_to_the_end(
        self, deadline: Deadline, watcher: Watcher | None, log: RunLog
    ) -> BoltRunState | None:
        """Poll until the run has ended and return its state; None if the deadline is reached first."""
        async with (
            self.credentials.get_client(retry_policy=POLL_POLICY) as client,
            observed(
                client, self.run_id, self.schedule_name, self.poll_interval_seconds, deadline, self.clock
            ) as observations,
        ):
            try:
                async for seen in observations:
                    log.observe(seen)
                    if watcher is not None:
                        await watcher(seen)
                    if seen.status is not None and seen.status.state.is_terminal:
                        # This line is logged after the watcher was called: the watcher logs the last lines of the run.
                        self.logger.info(
                            "Bolt run %s ended as %s. %s", self.run_id, seen.status.state, self.url
                        )
                        return seen.status.state
                    if seen.past_deadline:
                        return None
                    if seen.outage_seconds > self.max_outage_seconds:
                        if isinstance(seen.error, BoltAuthError):
                            raise seen.error
                        raise BoltUnavailable(
                            f"The Bolt run could not be polled for {seen.outage_seconds:.0f} s. {_LEFT_RUNNING}",
                            operation="BoltRunStatus",
                            **self._facts(log.state),
                        ) from seen.error
            except BoltAuthError as error:
                what = f"{error.message} {_LEFT_RUNNING}"
                raise error.with_facts(message=what, **self._facts(log.state)) from error
        return None

    async def _end_for_timeout(self, waited: float) -> BoltRunState | None:
        """If `cancel_on_timeout` is set, cancel the run and return its final state; otherwise return None."""
        if not self.cancel_on_timeout:
            return None
        self.logger.warning(
            "Bolt run %s did not end within %s s; cancelling it.", self.run_id, _plain_seconds(waited)
        )
        # A cancel that has begun is completed, even if this wait is interrupted.
        with anyio.CancelScope(shield=True):
            try:
                ended = await self.acancel()
            except BoltCancelUnconfirmed as error:
                message = f"The Bolt run did not end within {_plain_seconds(waited)} s. {error.message}"
                raise error.with_facts(message=message) from error
        return ended

    async def _cancel_after_interrupt(self) -> None:
        self.logger.warning("Interrupted; cancelling Bolt run %s.", self.run_id)
        try:
            state = await self.acancel()
        except BoltError as error:
            # The caller must get the interrupt's exception, so this error is only logged.
            self.logger.error("%s", error)  # noqa: TRY400 - no traceback is needed
        else:
            self.logger.warning("Bolt run %s ended as %s.", self.run_id, state)

    async def acancel(self, grace_seconds: float | None = None) -> BoltRunState:
        """Cancel the run in Bolt and wait until it has ended. A run that has already ended does not change.

        Args:
            grace_seconds: How long the run may take to end, in seconds; None for the handle's `cancel_grace_seconds`.

        Returns:
            The state in which the run ended: CANCELED, or another state if the run ended by itself first.

        Raises:
            BoltCancelUnconfirmed: Bolt refused the cancel, or the run did not end in time.
            BoltAuthError: Bolt refused the credentials.
            BoltRequestError: `grace_seconds` is not a number of seconds.
        """
        if grace_seconds is not None:
            check_seconds("grace_seconds", grace_seconds)
        grace = self.cancel_grace_seconds if grace_seconds is None else grace_seconds
        deadline = Deadline(grace, self.clock)
        refusal: BoltError | None = None
        accepted = False
        last: BoltRunState | None = None
        async with self.credentials.get_client(retry_policy=POLL_POLICY) as client:

            async def cancel_and_poll() -> BoltRunStatus:
                nonlocal refusal, accepted
                if not accepted:
                    try:
                        # A cancel request that hangs is stopped early, so that there is time to send it again.
                        with anyio.move_on_after(max(_SHORTEST_CANCEL_SECONDS, grace / 3)):
                            accepted = await client.cancel_bolt_run(self.run_id)
                    except BoltAuthError:
                        raise
                    except BoltError as error:
                        refusal = error
                        if asked_to_wait(error) and not deadline.passed:
                            # Bolt asked us to wait, so we do not poll now. Only the poll at the deadline is always
                            # sent.
                            raise
                return await client.get_bolt_run(self.run_id, logs=False)

            observations = observe(
                cancel_and_poll, poll_interval_seconds=2.0, deadline=deadline, clock=self.clock
            )
            async for seen in observations:
                last = seen.status.state if seen.status else last
                refusal = seen.error or refusal
                if last is not None and last.is_terminal:
                    return last
                if seen.past_deadline:
                    break
        answer = "Bolt accepted the cancel" if accepted else "Bolt did not accept the cancel"
        raise BoltCancelUnconfirmed(
            f"{answer}; the run had not ended {grace:g} s later and may still be running.",
            **self._facts(last),
        ) from refusal

    async def afetch_result(self) -> BoltRunResult:
        """Return the result of a run that succeeded.

        Returns:
            The result: state, times, commands and resources.

        Raises:
            BoltRunFailed: The run ended in state FAILED or ERROR. The error contains the command that failed, and the
                end of the command's log.
            BoltRunCanceled: The run ended in state CANCELED.
            BoltRunSkipped: The run ended in state SKIPPED.
            BoltRunError: The run has not ended yet.
            BoltUnavailable: Bolt was unreachable for `max_outage_seconds`.
            BoltError: Bolt refused a request.
        """
        return await Outcome(
            self.run_id,
            self.credentials,
            schedule_name=self.schedule_name,
            max_outage_seconds=self.max_outage_seconds,
            clock=self.clock,
            logger=self.logger,
        ).fetch()

    def _facts(self, state: BoltRunState | None) -> dict[str, Any]:
        return facts_of(self.run_id, self.schedule_name, state)

    state = sync_form(astate)
    commands = sync_form(acommands)
    wait_for_completion = sync_form(await_for_completion)  # type: ignore[arg-type]
    cancel = sync_form(acancel)
    fetch_result = sync_form(afetch_result)  # type: ignore[arg-type]


def _plain_seconds(seconds: float) -> str:
    """Return a time in seconds as text, with at most one decimal."""
    return f"{round(seconds, 1):.10g}"
