"""Triggering at most once: a lost answer is looked into, never guessed (`paradime_blocks.trigger.search`)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
import httpx

from paradime_blocks.errors import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltError,
    BoltRequestError,
    BoltTriggerUnknown,
    BoltUnavailable,
    BoltUnsupported,
)
from paradime_blocks.polling import Clock, Deadline, system_clock
from paradime_blocks.signals import INTERRUPTS, signals_held_off
from paradime_blocks.text.redaction import Redactor
from paradime_blocks.trigger.own_thread import Work, in_own_thread
from paradime_blocks.trigger.request import RunLedger, TriggerIntent, TriggerRequest, fingerprint_of
from paradime_blocks.trigger.search import (
    Finding,
    Verdict,
    find_triggered_run,
    longest_request_seconds,
    unknown_trigger,
)

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient
    from paradime_blocks.trigger.decision_log import DecisionLog

_SENDS_AT_MOST = 3
_REFUSAL_WINDOW_SECONDS = 6.0
_TOLD_CHARACTERS = 300
# Where Bolt has too much to do and asks for less than this, or for nothing.
_BUSY_SECONDS = 15.0
_SAVE_SECONDS = 3.0
# Of what nothing has come yet there is nothing to cancel, and so time.
_WITHDRAWAL_SECONDS = 10.0


def may_have_started(error: BaseException) -> bool:
    """Judge whether a trigger that failed like this may have started a run all the same."""
    if isinstance(error, BoltUnavailable):
        return error.may_have_acted
    if isinstance(error, (BoltUnsupported, BoltAlreadyRunning, BoltAuthError)):
        return False
    if isinstance(error, BoltRequestError):
        # Without an operation it was refused before it was sent. GraphQL resolvers can fail after their work, and a
        # gateway can answer in its own words for a server that has done it.
        return error.operation is not None
    return not isinstance(error, BoltError)


def _asked_by(error: BoltError) -> float:
    asked = error.retry_after_seconds if isinstance(error, BoltUnavailable) else None
    return max(asked or 0.0, _BUSY_SECONDS)


def _is_busy(error: BoltError, limit: Deadline) -> bool:
    """Whether Bolt has too much to do (HTTP 429), and asks for no longer than there is time."""
    busy = isinstance(error, BoltUnavailable) and error.status_code == httpx.codes.TOO_MANY_REQUESTS
    return busy and _asked_by(error) <= (limit.remaining or 0.0)


async def make_intent(client: BoltClient, request: TriggerRequest, clock: Clock) -> TriggerIntent:
    """Read what must be known before a trigger is sent.

    Raises:
        BoltError: The schedule does not exist, or Bolt cannot be reached; nothing has been sent.
    """
    schedule = await client.get_bolt_schedule(request.schedule_name)
    return TriggerIntent(
        latest_run_id=schedule.latest_run_id or 0,
        intended_at=clock.wall(),
        bolt_time=client.bolt_time(),
        commands=tuple(map(fingerprint_of, request.commands or schedule.commands)),
        branch=request.branch,
        retry_of=request.retry_of,
    )


@dataclass
class Trigger:
    """Sends a trigger at most once per intent.

    Attributes:
        client: An open client.
        request: What to trigger.
        ledger: Where intent and run id are written.
        decision_log: Where decisions are told.
        window_seconds: How long absence must last to be believed after an answer that tells nothing; if none came at
            all, as long as a server may work at a request, if that is longer.
        max_outage_seconds: How long to look on while Bolt cannot be reached, and to wait while it has too much to do
            to take a trigger.
        interrupt_seconds: How long an interrupted trigger is waited for, so that its run is known.
        clock: The time; for tests.
        start: Starts the request that triggers; for tests.
    """

    client: BoltClient
    request: TriggerRequest
    ledger: RunLedger
    decision_log: DecisionLog
    window_seconds: float = 20.0
    max_outage_seconds: float = 600.0
    interrupt_seconds: float = 15.0
    clock: Clock = field(default_factory=system_clock)
    start: Callable[[Work], Future[int]] = field(default_factory=lambda: in_own_thread)
    _lost: str | None = field(default=None, init=False)

    async def run(self) -> int:
        """Trigger, and return the id of the run.

        Raises:
            BoltAlreadyRunning: The schedule runs already. Where a gateway has sent the trigger twice, the run in
                the way may be our own; the caller judges.
            BoltTriggerUnknown: The answer was lost, and looking did not tell.
            BoltError: Nothing was started, as far as looking could tell.
        """
        try:
            return await self._run()
        except BoltAlreadyRunning:
            # Its caller judges whether the run in the way may be our own.
            raise
        except BoltError as error:
            if isinstance(error, BoltTriggerUnknown) or may_have_started(error):
                # It was looked for, and not found; the sweeper, or a retry, looks again.
                await self.ledger.save()
                raise
            if self._lost is None:
                await self.ledger.withdraw()
                raise
            if self.request.retry_of is None:
                await self.ledger.disown()
            else:
                # What is a retry of that run is ours, whenever it shows itself.
                await self.ledger.save()
            what = (
                f"{error.message} The answer to an earlier send of this trigger was lost ({self._lost}); no run of it "
                f"has been seen since, and a retry of this flow run looks once more."
            )
            raise error.with_facts(message=what) from error

    async def _run(self) -> int:
        busy = Deadline(self.max_outage_seconds, self.clock)
        intent = await self._intend(busy)
        sent = 0
        while sent < _SENDS_AT_MOST:
            if self._lost is not None:
                # Looking has taken its time, and whoever may send it now is to be asked anew. If it is not sent, the
                # intent stays: what was sent before may show itself yet.
                intent = replace(intent, intended_at=self.clock.wall(), bolt_time=self.client.bolt_time())
                await self.ledger.intend(self.request, intent)
                self.decision_log.note("No run has started; the trigger is sent again.")
            try:
                run_id = await self._send_shielded()
            except BoltError as error:
                if _is_busy(error, busy):
                    if self._lost is None:
                        # Nothing was started. What others start meanwhile must not be taken for it.
                        await self.ledger.withdraw()
                        await self._wait_for_bolt(error)
                        intent = await self._intend(busy)
                        continue
                    if self.request.retry_of is None:
                        # None has been seen: what shows itself while we wait may be somebody else's.
                        await self.ledger.disown()
                    await self._wait_for_bolt(error)
                    found = await self._look_again(intent)
                else:
                    found = await self._look_after(error, intent)
                    sent, self._lost = sent + 1, error.message
                if found is None:
                    continue
                self.decision_log.note(
                    f"Bolt run {found} is the one that our trigger started; it is adopted."
                )
                await self._started(found, adopted=True)
                return found
            self.decision_log.note(f"Bolt run {run_id} was started.")
            await self._started(run_id, adopted=False)
            return run_id
        msg = (
            f"The trigger was sent {_SENDS_AT_MOST} times; each time the answer was lost and no run started. "
            f"The last time: {self._lost}"
        )
        raise BoltUnavailable(msg, schedule_name=self.request.schedule_name, operation="TriggerBoltRun")

    async def _intend(self, busy: Deadline) -> TriggerIntent:
        """Read what must be known before the trigger is sent, and write down that it will be."""
        intent = await self._make_intent(busy)
        try:
            await self.ledger.intend(self.request, intent)
        except BaseException:
            # It may have been written down all the same; then a run that somebody else starts would be taken for it.
            with signals_held_off(), anyio.move_on_after(_WITHDRAWAL_SECONDS, shield=True):
                await self.ledger.withdraw()
            raise
        earlier = (
            f"its latest run is {intent.latest_run_id}" if intent.latest_run_id else "it has not run before"
        )
        self.decision_log.note(f"{self._told()}; {earlier}.")
        return intent

    async def _make_intent(self, busy: Deadline) -> TriggerIntent:
        while True:
            try:
                return await make_intent(self.client, self.request, self.clock)
            except BoltError as error:
                if not _is_busy(error, busy):
                    raise
                await self._wait_for_bolt(error)

    async def _wait_for_bolt(self, error: BoltError) -> None:
        seconds = _asked_by(error)
        self.decision_log.note(
            f"Bolt has too much to do now and has started nothing; asked again in {seconds:.0f} s."
        )
        await self.clock.sleep(seconds)

    def _told(self) -> str:
        """Say what is sent."""
        request = self.request
        if request.retry_of is not None:
            what = "all of it" if request.retry_everything else "what failed"
            return f"Bolt is asked to retry {what} of run {request.retry_of} of schedule {request.schedule_name!r}"
        asked = [f"branch or commit {request.branch}"] if request.branch else []
        asked += [f"commands {', '.join(request.commands)}"] if request.commands else []
        redact = Redactor.of(self.client.settings)
        told = f" ({redact.line('; '.join(asked), _TOLD_CHARACTERS)})" if asked else ""
        return f"Bolt is asked to run schedule {request.schedule_name!r}{told}"

    async def _look_again(self, intent: TriggerIntent) -> int | None:
        """Return the run of a trigger whose answer was lost before; None if it may be sent again."""
        finding = await self._look(intent, 0.0)
        if finding.verdict is Verdict.UNSURE:
            raise self._unknown(finding)
        return finding.run_id if finding.verdict is Verdict.FOUND else None

    async def _look_after(self, error: BoltError, intent: TriggerIntent) -> int | None:
        """Return the run that a failed trigger started all the same; None if it may be sent again."""
        window = self.window_seconds
        if isinstance(error, BoltAlreadyRunning):
            if self._lost is None:
                raise error.with_facts(schedule_name=self.request.schedule_name) from error
            self.decision_log.note(
                "Bolt says that the schedule runs already; looking whether that is our own run."
            )
        elif not may_have_started(error):
            raise error
        elif isinstance(error, BoltUnavailable):
            self.decision_log.note(
                f"The answer to the trigger was lost ({error.message}); looking for its run."
            )
            if not error.was_answered:
                window = max(window, longest_request_seconds(self.client.settings.request_timeout_seconds))
        else:
            # A trigger that has begun its run can end in an error, too; it was answered, so the run shows soon.
            self.decision_log.note(
                f"Bolt refused the trigger ({error.message}); looking whether a run began all the same."
            )
            window = _REFUSAL_WINDOW_SECONDS
        finding = await self._look(intent, window)
        if finding.verdict is Verdict.FOUND:
            return finding.run_id
        # After a time-out the request may still lie with the server: what is not there now can come.
        may_come = isinstance(error, BoltUnavailable) and error.may_still_act
        if finding.verdict is Verdict.UNSURE or may_come:
            raise self._unknown(finding) from error
        if isinstance(error, BoltUnavailable):
            return None
        raise error

    async def _look(self, intent: TriggerIntent, window_seconds: float) -> Finding:
        try:
            return await find_triggered_run(
                self.client,
                self.request,
                intent,
                window_seconds=window_seconds,
                max_outage_seconds=self.max_outage_seconds,
                clock=self.clock,
            )
        except BoltAuthError as error:
            # Credentials that end now say nothing of the trigger that was sent with them before.
            self.decision_log.note(f"Bolt could not be asked: {error.message}")
            return Finding(Verdict.UNSURE)

    def _unknown(self, finding: Finding) -> BoltTriggerUnknown:
        self.decision_log.note("It cannot be told which run is ours, if any; nothing is sent a second time.")
        what = "The answer to the trigger was lost, and it cannot be told whether a run started."
        return unknown_trigger(what, self.request.schedule_name, finding)

    async def _started(self, run_id: int, *, adopted: bool) -> None:
        # From here on there is a run to answer for: no cancel may come between it and its record.
        with anyio.CancelScope(shield=True):
            await self.ledger.started(run_id, adopted=adopted)

    async def _send_shielded(self) -> int:
        """Send where no cancel of the caller, of either kind, can lose the answer."""
        called_off = threading.Event()
        future = self.start(lambda: self._send_once(called_off))
        try:
            return await asyncio.wrap_future(future)
        except INTERRUPTS:
            # It may be waiting to try again; what is on its way already can only be waited for.
            called_off.set()
            with signals_held_off(), anyio.CancelScope(shield=True):
                await self._settle(future)
            raise

    async def _send_once(self, called_off: threading.Event) -> int:
        async with self.client.clone(may_send=lambda: not called_off.is_set()) as client:
            return await self.request.send(client)

    async def _settle(self, future: Future[int]) -> None:
        """Learn, after an interrupt, which run the trigger started, so that it can be cancelled.

        Without an answer the intent stays open: whoever settles it looks for the run.
        """
        self.decision_log.note("Interrupted while the trigger was under way; waiting for its answer.")
        with anyio.move_on_after(self.interrupt_seconds):
            while not future.done():  # noqa: ASYNC110 - the answer comes from a thread that knows no event loop
                await anyio.sleep(0.05)
        if not future.done():
            return
        error = future.exception()
        if error is None:
            run_id = future.result()
            self.decision_log.note(f"Bolt run {run_id} had been started.")
            # It is known here from now on; a Prefect that does not answer must not hold up its cancel.
            with anyio.move_on_after(_SAVE_SECONDS):
                await self.ledger.started(run_id, adopted=False)
        elif self._lost is None and not may_have_started(error):
            self.decision_log.note("The trigger had started nothing.")
            await self.ledger.withdraw()
