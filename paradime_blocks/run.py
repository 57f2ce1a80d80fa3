"""`BoltRun`: the handle of a Bolt run, an id and credentials; it can be thrown away and made anew."""

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

if TYPE_CHECKING:
    from paradime_blocks.credentials import ParadimeCredentials

POLL_INTERVAL_SECONDS = 15.0
MAX_OUTAGE_SECONDS = 600.0
CANCEL_GRACE_SECONDS = 60.0
_SHORTEST_CANCEL_SECONDS = 3.0
# Shorter intervals than this only ask more often than Bolt answers.
_SHORTEST_POLL_INTERVAL_SECONDS = 0.1
_LEFT_GOING = "The Bolt run was not cancelled and may still be going."

Watcher = Callable[[Observation], Awaitable[None]]


@dataclass(frozen=True)
class BoltRun(JobRun[BoltRunResult]):
    """A Bolt run: look at it, wait for it, cancel it, fetch its result.

    Args:
        run_id: The id of the run.
        credentials: The credentials of its workspace.
        schedule_name: Its schedule, for messages; Bolt does not tell it of a run.
        cancel_on_timeout: Whether it is ours to cancel when its time limit is reached.
        cancel_on_interrupt: Whether it is ours to cancel when the wait for it is interrupted.
        timeout_seconds: How long to wait for its end by default, in seconds; None for no limit.
        poll_interval_seconds: The longest time between two looks, in seconds.
        max_outage_seconds: How long Bolt may be out of reach before a wait gives up, in seconds.
        cancel_grace_seconds: How long a cancel may take until the run has ended, in seconds.

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
        """Refuse an id and times that can be none.

        Raises:
            BoltRequestError: The id is not a whole number above 0, or a time is no number of seconds.
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
        """The run's page in Paradime, for a person."""
        return run_url(self.run_id)

    async def astate(self) -> BoltRunState:
        """Return the run's present state.

        Raises:
            BoltError: Bolt refused to say, or no usable answer came.
        """
        async with self.credentials.get_client() as client:
            return (await client.get_bolt_run(self.run_id, logs=False)).state

    async def acommands(self) -> list[BoltCommand]:
        """Return the run's commands with their output so far; one that has not started is not among them.

        Raises:
            BoltError: Bolt refused to say, or no usable answer came.
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
        """Wait until the run has ended, however it ends; `fetch_result` tells success from failure.

        Time limit and interrupt cancel the run in Bolt if it is ours (`cancel_on_timeout`, `cancel_on_interrupt`);
        an outage of Bolt never does.

        Args:
            timeout_seconds: How long to wait, in seconds; None for the handle's own limit. At 0, the run is
                looked at once.
            watcher: Awaited with every look at the run.
            whole_seconds: The time limit of which `timeout_seconds` is what is left, for messages; None if it is
                the whole.

        Returns:
            The state in which the run ended.

        Raises:
            BoltRunTimedOut: It did not end in time. If it is ours it has been cancelled.
            BoltCancelUnconfirmed: The same, but it could not be cancelled.
            BoltUnavailable: Bolt was out of reach for `max_outage_seconds`. The run may still be going.
            BoltAuthError: The credentials are refused at the first look, or for a minute later on. The run may still be
                going.
            BoltRequestError: `timeout_seconds` is no number of seconds.
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
            # A shield keeps off anyio's cancels only: asyncio's own may have broken off the time limit's cancel.
            if is_to_end:
                with signals_held_off():
                    await to_the_end(self._cancel_after_interrupt())
            raise
        if ended in {BoltRunState.CANCELED, None}:
            done = "it was cancelled" if self.cancel_on_timeout else "it is left going"
            raise BoltRunTimedOut(
                f"The Bolt run did not end within {_plain_seconds(waited)} s; {done}.",
                waited_seconds=waited,
                command=log.running_command,
                **self._facts(ended),
            )
        # It ended by itself while it was being cancelled: that is what it is reported as.
        return ended

    async def _watch_to_the_end(
        self, deadline: Deadline, watcher: Watcher | None, log: RunLog
    ) -> BoltRunState | None:
        """Return the terminal state, or None at the deadline."""
        async with self.credentials.get_client(retry_policy=POLL_POLICY) as client:
            observations = observe(
                lambda: client.get_bolt_run(self.run_id, logs=False),
                poll_interval_seconds=self.poll_interval_seconds,
                deadline=deadline,
                clock=self.clock,
            )
            try:
                async for seen in observations:
                    log.tell(seen)
                    if watcher is not None:
                        await watcher(seen)
                    if seen.status is not None and seen.status.state.is_terminal:
                        # After the watcher, which shows what the run printed until then.
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
                            f"The Bolt run could not be seen for {seen.outage_seconds:.0f} s. {_LEFT_GOING}",
                            operation="BoltRunStatus",
                            **self._facts(log.state),
                        ) from seen.error
            except BoltAuthError as error:
                what = f"{error.message} {_LEFT_GOING}"
                raise error.with_facts(message=what, **self._facts(log.state)) from error
            finally:
                await observations.aclose()  # type: ignore[attr-defined]
        return None

    async def _end_for_timeout(self, waited: float) -> BoltRunState | None:
        """Cancel the run if it is ours; return the state in which it ended, None if it is left going."""
        if not self.cancel_on_timeout:
            return None
        self.logger.warning(
            "Bolt run %s did not end within %s s; cancelling it.", self.run_id, _plain_seconds(waited)
        )
        # A cancel that has begun is seen to its end, whatever interrupts the wait for it.
        with anyio.CancelScope(shield=True):
            ended = await self.acancel()
        return ended  # noqa: RET504 - the type checker knows that a cancel scope may swallow what it ends

    async def _cancel_after_interrupt(self) -> None:
        self.logger.warning("Interrupted; cancelling Bolt run %s.", self.run_id)
        try:
            state = await self.acancel()
        except BoltError as error:
            # The interrupt is what the caller must see; what is left over stands in the log.
            self.logger.error("%s", error)  # noqa: TRY400 - the message says it all
        else:
            self.logger.warning("Bolt run %s ended as %s.", self.run_id, state)

    async def acancel(self, grace_seconds: float | None = None) -> BoltRunState:
        """Cancel the run in Bolt and see that it has ended; a run that has ended already is left as it is.

        Args:
            grace_seconds: How long the run may take to end, in seconds; None for the handle's own.

        Returns:
            The state in which the run ended: CANCELED, or another if it ended by itself meanwhile.

        Raises:
            BoltCancelUnconfirmed: Bolt refused the cancel, or the run had not ended in time.
            BoltAuthError: The credentials are refused.
            BoltRequestError: `grace_seconds` is no number of seconds.
        """
        if grace_seconds is not None:
            check_seconds("grace_seconds", grace_seconds)
        grace = self.cancel_grace_seconds if grace_seconds is None else grace_seconds
        deadline = Deadline(grace, self.clock)
        refusal: BoltError | None = None
        accepted = False
        last: BoltRunState | None = None
        async with self.credentials.get_client(retry_policy=POLL_POLICY) as client:

            async def ask_and_look() -> BoltRunStatus:
                nonlocal refusal, accepted
                if not accepted:
                    try:
                        # A cancel may be sent again, and one that hangs must leave time for it.
                        with anyio.move_on_after(max(_SHORTEST_CANCEL_SECONDS, grace / 3)):
                            accepted = await client.cancel_bolt_run(self.run_id)
                    except BoltAuthError:
                        raise
                    except BoltError as error:
                        refusal = error
                        if asked_to_wait(error) and not deadline.passed:
                            # Who is to stay away does not look either, but for the last time.
                            raise
                return await client.get_bolt_run(self.run_id, logs=False)

            observations = observe(
                ask_and_look, poll_interval_seconds=2.0, deadline=deadline, clock=self.clock
            )
            async for seen in observations:
                last = seen.status.state if seen.status else last
                refusal = seen.error or refusal
                if last is not None and last.is_terminal:
                    return last
                if seen.past_deadline:
                    break
        told = "Bolt took the cancel" if accepted else "Bolt did not take the cancel"
        raise BoltCancelUnconfirmed(
            f"{told}, but the run had not ended {grace:g} s later and may still be going.",
            **self._facts(last),
        ) from refusal

    async def afetch_result(self) -> BoltRunResult:
        """Return the result of a run that succeeded.

        Returns:
            State, times, commands and resources.

        Raises:
            BoltRunFailed: It ended FAILED or ERROR; the error tells the failing command and the end of its log.
            BoltRunCanceled: It ended CANCELED.
            BoltRunSkipped: It ended SKIPPED.
            BoltRunError: It has not ended yet.
            BoltUnavailable: Bolt was out of reach for `max_outage_seconds`.
            BoltError: Any other trouble, as the class says.
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
    """Return a time without more digits than a person reads; what is left of a limit has many."""
    return f"{round(seconds, 1):.10g}"
