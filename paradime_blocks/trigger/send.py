"""Triggers a Bolt run at most once. If the answer is lost, this module searches for the run (`trigger.search`)."""

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
_DETAIL_CHARACTERS = 300
# The least wait after HTTP 429.
_BUSY_SECONDS = 15.0
_SAVE_SECONDS = 3.0
# A withdrawal may take longer than a save: the trigger has not been sent yet, so there is no run to cancel.
_WITHDRAWAL_SECONDS = 10.0


def may_have_started(error: BaseException) -> bool:
    """Whether a trigger that failed with this error may have started a run."""
    if isinstance(error, BoltUnavailable):
        return error.may_have_acted
    if isinstance(error, (BoltUnsupported, BoltAlreadyRunning, BoltAuthError)):
        return False
    if isinstance(error, BoltRequestError):
        # If the error has no operation, the client refused the input and sent nothing. Otherwise a run may have
        # started: a GraphQL resolver can fail after its work, and a gateway can send an error although the server did
        # the work.
        return error.operation is not None
    return not isinstance(error, BoltError)


def _asked_by(error: BoltError) -> float:
    asked = error.retry_after_seconds if isinstance(error, BoltUnavailable) else None
    return max(asked or 0.0, _BUSY_SECONDS)


def _is_busy(error: BoltError, limit: Deadline) -> bool:
    """Whether Bolt rate-limited the request (HTTP 429), and the wait that Bolt asks for ends before the time limit."""
    busy = isinstance(error, BoltUnavailable) and error.status_code == httpx.codes.TOO_MANY_REQUESTS
    return busy and _asked_by(error) <= (limit.remaining or 0.0)


async def make_intent(client: BoltClient, request: TriggerRequest, clock: Clock) -> TriggerIntent:
    """Before the trigger is sent, read from Bolt the facts that a later search needs.

    Raises:
        BoltError: The schedule does not exist, or Bolt is unreachable; no trigger was sent.
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
        ledger: Stores the intent and the run id.
        decision_log: Keeps the decisions about the trigger.
        window_seconds: How long to search for the Bolt run, in seconds. If the search finds no Bolt run, the trigger
            counts as not executed. After a lost answer, the search lasts as long as a server may work on a request.
        max_outage_seconds: How long to search while Bolt is unreachable, and how long to wait while Bolt rate-limits
            the trigger.
        interrupt_seconds: How long to wait for the answer to the trigger if the caller is interrupted.
        clock: The clock; tests replace it.
        start: Starts the thread that sends the trigger; tests replace it.
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
        """Trigger a run and return its id.

        Raises:
            BoltAlreadyRunning: The schedule is already running. The running Bolt run may be ours, if a gateway sent the
                trigger twice; the caller decides whether it is.
            BoltTriggerUnknown: The answer to the trigger was lost, and the search did not show whether a run started.
            BoltError: The trigger failed. As far as is known, it started no run.
        """
        try:
            return await self._run()
        except BoltAlreadyRunning:
            raise  # the caller decides whether the running Bolt run may be ours
        except BoltError as error:
            if isinstance(error, BoltTriggerUnknown) or may_have_started(error):
                # The search did not find the run. The sweeper, or a retry of the flow run, searches again.
                await self.ledger.save()
                raise
            if self._lost is None:
                await self.ledger.withdraw()
                raise
            if self.request.retry_of is None:
                await self.ledger.disown()
            else:
                # If Bolt shows a retry of the run `retry_of` later, that retry is ours.
                await self.ledger.save()
            what = (
                f"{error.message} The answer to an earlier try of this trigger was lost ({self._lost}). A search has "
                f"found no run of that try. A retry of this flow run searches again."
            )
            raise error.with_facts(message=what) from error

    async def _run(self) -> int:
        busy = Deadline(self.max_outage_seconds, self.clock)
        intent = await self._intend(busy)
        sent = 0
        while sent < _SENDS_AT_MOST:
            if self._lost is not None:
                # The search took time. So `intend` checks again that this execution may send the trigger. If it may
                # not, the intent stays in the ledger, since the run of the earlier trigger may still appear.
                intent = replace(intent, intended_at=self.clock.wall(), bolt_time=self.client.bolt_time())
                await self.ledger.intend(self.request, intent)
                self.decision_log.note("No run has started; the trigger is sent again.")
            try:
                run_id = await self._send_shielded()
            except BoltError as error:
                if _is_busy(error, busy):
                    if self._lost is None:
                        # The trigger started no run. A run that somebody else starts during the wait must not count
                        # as ours.
                        await self.ledger.withdraw()
                        await self._wait_for_bolt(error)
                        intent = await self._intend(busy)
                        continue
                    if self.request.retry_of is None:
                        # No run was found. A run that appears during the wait may be somebody else's.
                        await self.ledger.disown()
                    await self._wait_for_bolt(error)
                    found = await self._search_again(intent)
                else:
                    found = await self._search_after(error, intent)
                    sent, self._lost = sent + 1, error.message
                if found is None:
                    continue
                self.decision_log.note(
                    f"Found Bolt run {found}, which the trigger started; this run is used."
                )
                await self._started(found, adopted=True)
                return found
            self.decision_log.note(f"Bolt run {run_id} was started.")
            await self._started(run_id, adopted=False)
            return run_id
        msg = (
            f"The trigger was sent {_SENDS_AT_MOST} times; each time the answer was lost and no run started. "
            f"The last error: {self._lost}"
        )
        raise BoltUnavailable(msg, schedule_name=self.request.schedule_name, operation="TriggerBoltRun")

    async def _intend(self, busy: Deadline) -> TriggerIntent:
        """Read from Bolt the facts that a later search needs, and store the intent."""
        intent = await self._make_intent(busy)
        try:
            await self.ledger.intend(self.request, intent)
        except BaseException:
            # The intent may have been stored in spite of the error. So the intent is withdrawn: otherwise a run that
            # somebody else starts would count as ours.
            with signals_held_off(), anyio.move_on_after(_WITHDRAWAL_SECONDS, shield=True):
                await self.ledger.withdraw()
            raise
        earlier = (
            f"its latest run is {intent.latest_run_id}" if intent.latest_run_id else "it has not run before"
        )
        self.decision_log.note(f"{self._request_in_words()}; {earlier}.")
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
            f"Bolt rate-limited the trigger (HTTP 429); nothing was started. Retrying in {seconds:.0f} s."
        )
        await self.clock.sleep(seconds)

    def _request_in_words(self) -> str:
        """Return a sentence that describes the request, for the decision log."""
        request = self.request
        if request.retry_of is not None:
            what = "all of it" if request.retry_everything else "what failed"
            return f"Bolt is asked to retry {what} of run {request.retry_of} of schedule {request.schedule_name!r}"
        asked = [f"branch or commit {request.branch}"] if request.branch else []
        asked += [f"commands {', '.join(request.commands)}"] if request.commands else []
        redact = Redactor.of(self.client.settings)
        details = f" ({redact.line('; '.join(asked), _DETAIL_CHARACTERS)})" if asked else ""
        return f"Bolt is asked to run schedule {request.schedule_name!r}{details}"

    async def _search_again(self, intent: TriggerIntent) -> int | None:
        """Return the run of an earlier trigger whose answer was lost; None if this trigger started no run."""
        finding = await self._search(intent, 0.0)
        if finding.verdict is Verdict.UNSURE:
            raise self._unknown(finding)
        return finding.run_id if finding.verdict is Verdict.FOUND else None

    async def _search_after(self, error: BoltError, intent: TriggerIntent) -> int | None:
        """Return the id of the run that the trigger started despite an error; None if the trigger may be sent again."""
        window = self.window_seconds
        if isinstance(error, BoltAlreadyRunning):
            if self._lost is None:
                raise error.with_facts(schedule_name=self.request.schedule_name) from error
            self.decision_log.note(
                "Bolt reports the schedule as already running; checking whether the run is ours."
            )
        elif not may_have_started(error):
            raise error
        elif isinstance(error, BoltUnavailable):
            self.decision_log.note(
                f"The answer to the trigger was lost ({error.message}); searching for its run."
            )
            if not error.was_answered:
                window = max(window, longest_request_seconds(self.client.settings.request_timeout_seconds))
        else:
            # A trigger can fail although it started a run. Bolt has answered, so such a run appears soon.
            self.decision_log.note(
                f"Bolt refused the trigger ({error.message}); checking whether it started a run all the same."
            )
            window = _REFUSAL_WINDOW_SECONDS
        finding = await self._search(intent, window)
        if finding.verdict is Verdict.FOUND:
            return finding.run_id
        # After a timeout the server may still process the trigger, and its run can appear later.
        may_come = isinstance(error, BoltUnavailable) and error.may_still_act
        if finding.verdict is Verdict.UNSURE or may_come:
            raise self._unknown(finding) from error
        if isinstance(error, BoltUnavailable):
            return None
        raise error

    async def _search(self, intent: TriggerIntent, window_seconds: float) -> Finding:
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
            # The credentials were valid when the trigger was sent.
            self.decision_log.note(f"The search failed: {error.message}")
            return Finding(Verdict.UNSURE)

    def _unknown(self, finding: Finding) -> BoltTriggerUnknown:
        self.decision_log.note("Cannot determine which run is ours, if any; the trigger is not sent again.")
        what = "The answer to the trigger was lost, and it is unknown whether a run started."
        return unknown_trigger(what, self.request.schedule_name, finding)

    async def _started(self, run_id: int, *, adopted: bool) -> None:
        # The run exists now. Its id is stored even if the caller is cancelled.
        with anyio.CancelScope(shield=True):
            await self.ledger.started(run_id, adopted=adopted)

    async def _send_shielded(self) -> int:
        """Send the trigger in its own thread: if the caller is cancelled, the answer is not lost."""
        called_off = threading.Event()
        future = self.start(lambda: self._send_once(called_off))
        try:
            return await asyncio.wrap_future(future)
        except INTERRUPTS:
            # If the client is waiting for its next try, `set` ends this wait. If the request was sent, we must wait for
            # the answer.
            called_off.set()
            with signals_held_off(), anyio.CancelScope(shield=True):
                await self._settle(future)
            raise

    async def _send_once(self, called_off: threading.Event) -> int:
        async with self.client.clone(may_send=lambda: not called_off.is_set()) as client:
            return await self.request.send(client)

    async def _settle(self, future: Future[int]) -> None:
        """After an interrupt, find out which run the trigger started, so that the run can be cancelled.

        If no answer comes, the intent stays open, and a later reconciliation of the intent searches for the run.
        """
        self.decision_log.note("Interrupted before the trigger was answered; waiting for the answer.")
        with anyio.move_on_after(self.interrupt_seconds):
            while not future.done():  # noqa: ASYNC110 - the answer comes from a thread without this event loop
                await anyio.sleep(0.05)
        if not future.done():
            return
        error = future.exception()
        if error is None:
            run_id = future.result()
            self.decision_log.note(f"The trigger started Bolt run {run_id}.")
            # This process knows the run's id now. If Prefect is unreachable, the cancel does not wait until the id is
            # stored.
            with anyio.move_on_after(_SAVE_SECONDS):
                await self.ledger.started(run_id, adopted=False)
        elif self._lost is None and not may_have_started(error):
            self.decision_log.note("The trigger started nothing.")
            await self.ledger.withdraw()
