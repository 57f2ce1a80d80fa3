"""Sends the trigger of a Bolt run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from httpx import codes

from paradime_blocks.errors import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltError,
    BoltRequestError,
    BoltUnavailable,
    BoltUnsupported,
)
from paradime_blocks.polling import Deadline, system_clock
from paradime_blocks.signals import INTERRUPTS, signals_held_off
from paradime_blocks.text.redaction import Redactor
from paradime_blocks.trigger.request import RunLedger, TriggerIntent, TriggerRequest, fingerprint_of
from paradime_blocks.trigger.search import Finding, find_triggered_run, longest_request_seconds

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient

_SENDS_AT_MOST = 3
# How long to search for the run after a lost answer, and after a refusal: Bolt has answered, so a run appears soon.
_WINDOW_SECONDS = 20.0
_REFUSAL_WINDOW_SECONDS = 6.0
# The least wait after HTTP 429.
_BUSY_SECONDS = 15.0
# How long to wait for the answer to the trigger after an interrupt.
_INTERRUPT_SECONDS = 15.0
_SAVE_SECONDS = 3.0


def may_have_started(error: BaseException) -> bool:
    """Whether a trigger that failed with this error may have started a run."""
    if isinstance(error, BoltUnavailable):
        return error.may_have_acted
    if isinstance(error, (BoltUnsupported, BoltAlreadyRunning, BoltAuthError)):
        return False
    # Without an operation, the client refused the input and sent nothing. With one, a run may have started: a GraphQL
    # resolver can fail after its work, and a gateway can send an error although the server did the work.
    return not isinstance(error, BoltRequestError) or error.operation is not None


def in_own_thread(work: Callable[[], Coroutine[Any, Any, int]]) -> Future[int]:
    """Start work in a daemon thread with its own event loop. At exit, Python does not wait for the thread."""
    future: Future[int] = Future()

    def target() -> None:
        try:
            future.set_result(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 - the future passes the error to the caller
            future.set_exception(error)

    threading.Thread(target=target, name="bolt-trigger", daemon=True).start()
    return future


@dataclass
class Trigger:
    """Sends a trigger, and sends it again only if a search has found for certain that it has started nothing."""

    client: BoltClient
    request: TriggerRequest
    ledger: RunLedger
    # Adds a sentence to the decision log.
    note: Callable[[str], None]
    # How long to search while Bolt is unreachable, and how long to wait while Bolt rate-limits the trigger.
    max_outage_seconds: float
    # The intent of the latest trigger; None if no trigger was sent, or an interrupted one has started nothing.
    intent: TriggerIntent | None = field(default=None, init=False)

    async def run(self) -> int:
        """Trigger a run and return its id. After `BoltAlreadyRunning`, the caller decides whether the run is ours."""
        busy = Deadline(self.max_outage_seconds)
        while True:
            try:
                run_id = await self._send_until_known()
            except BaseException as error:
                # Otherwise the intent stays open: the sweeper, or a retry of the flow run, searches again.
                if self.intent is None or not may_have_started(error):
                    # Prefect may have stored the intent even if this process could not write it.
                    with signals_held_off(), anyio.CancelScope(shield=True):
                        await self.ledger.withdraw()
                if not isinstance(error, BoltUnavailable) or error.status_code != codes.TOO_MANY_REQUESTS:
                    raise
                seconds = max(error.retry_after_seconds or 0.0, _BUSY_SECONDS)
                if seconds > (busy.remaining or 0.0):
                    raise
            else:
                # The run exists now. Its id is stored even if the caller is cancelled.
                with anyio.CancelScope(shield=True):
                    await self.ledger.started(run_id)
                return run_id
            # The intent was withdrawn: a run that somebody else starts during the wait must not count as ours.
            self.note(
                f"Bolt rate-limited the trigger (HTTP 429); nothing was started. Retrying in {seconds:.0f} s."
            )
            await busy.clock.sleep(seconds)

    async def _send_until_known(self) -> int:
        self.intent = None
        schedule = await self.client.get_bolt_schedule(self.request.schedule_name)
        latest = schedule.latest_run_id or 0
        commands = tuple(map(fingerprint_of, self.request.commands or schedule.commands))
        decision, lost = self._in_words(latest), ""
        for _ in range(_SENDS_AT_MOST):
            # A search takes time, and each run that starts from now on may be ours.
            intent = TriggerIntent(latest, system_clock().wall(), commands, self.client.bolt_time())
            await self.ledger.intend(self.request, intent)
            self.intent = intent
            self.note(decision)
            try:
                run_id = await self._send()
            except BoltError as error:
                found = await self._search_after(error, intent)
                if found is not None:
                    return found
                self.intent = None
                decision, lost = "No run has started; the trigger is sent again.", error.message
            else:
                self.note(f"Bolt run {run_id} was started.")
                return run_id
        raise BoltUnavailable(
            f"The trigger was sent {_SENDS_AT_MOST} times; each time the answer was lost and no run started. "
            f"The last error: {lost}",
            schedule_name=self.request.schedule_name,
            operation="TriggerBoltRun",
        )

    def _in_words(self, latest: int) -> str:
        request = self.request
        asked = f"run schedule {request.schedule_name!r}"
        options = [f"branch or commit {request.branch}"] if request.branch else []
        options += [f"commands {', '.join(request.commands)}"] if request.commands else []
        if request.retry_of is not None:
            what = "all of it" if request.retry_everything else "what failed"
            asked = f"retry {what} of run {request.retry_of} of schedule {request.schedule_name!r}"
        elif options:
            asked += f" ({Redactor.of(self.client.settings).line('; '.join(options), 300)})"
        return f"Bolt is asked to {asked}; {f'its latest run is {latest}' if latest else 'it has not run before'}."

    async def search(self, intent: TriggerIntent, window_seconds: float) -> Finding:
        return await find_triggered_run(
            self.client, self.request, intent, window_seconds, self.max_outage_seconds
        )

    async def _search_after(self, error: BoltError, intent: TriggerIntent) -> int | None:
        """Return the run that the trigger started despite an error; None if the trigger may be sent again."""
        if not may_have_started(error):
            raise error
        if isinstance(error, BoltUnavailable):
            self.note(f"The answer to the trigger was lost ({error.message}); searching for its run.")
            longest = longest_request_seconds(self.client.settings.request_timeout_seconds)
            window = _WINDOW_SECONDS if error.was_answered else longest
        else:
            self.note(
                f"Bolt refused the trigger ({error.message}); checking whether it started a run all the same."
            )
            window = _REFUSAL_WINDOW_SECONDS
        finding = await self.search(intent, window)
        if finding.run_id is not None:
            self.note(f"Found Bolt run {finding.run_id}, which the trigger started; this run is used.")
            return finding.run_id
        if not finding.is_absent or (isinstance(error, BoltUnavailable) and error.may_still_act):
            self.note("Cannot determine which run is ours, if any; the trigger is not sent again.")
            what = "The answer to the trigger was lost, and it is unknown whether a run started."
            raise finding.unknown_trigger(what, self.request.schedule_name) from error
        if isinstance(error, BoltUnavailable):
            return None
        raise error

    async def _send(self) -> int:
        """Send the trigger in its own thread: if the caller is cancelled, the answer is not lost."""
        request, called_off = self.request, threading.Event()

        async def send() -> int:
            async with self.client.clone(may_send=lambda: not called_off.is_set()) as client:
                if request.retry_of is not None:
                    return await client.retry_bolt_run(request.retry_of, everything=request.retry_everything)
                return await client.trigger_bolt_run(request.schedule_name, **request.options)

        answer = asyncio.wrap_future(in_own_thread(send))
        # If the answer comes too late, nobody reads it. Without this line, asyncio would then log its error.
        answer.add_done_callback(lambda late: late.cancelled() or late.exception())
        try:
            # Without the shield, a cancel of the caller would cancel the future, and the answer would be lost.
            return await asyncio.shield(answer)
        except INTERRUPTS:
            # If the client waits for its next try, `set` ends this wait. A request that was sent will be answered.
            called_off.set()
            with signals_held_off(), anyio.CancelScope(shield=True):
                self.note("Interrupted before the trigger was answered; waiting for the answer.")
                await asyncio.wait({answer}, timeout=_INTERRUPT_SECONDS)
                # If no answer comes, the intent stays open.
                error = answer.exception() if answer.done() else TimeoutError()
                if error is None:
                    self.note(f"The trigger started Bolt run {answer.result()}.")
                    # If Prefect is unreachable, the cancel of the run does not wait until the id is stored.
                    with anyio.move_on_after(_SAVE_SECONDS):
                        await self.ledger.started(answer.result())
                elif not may_have_started(error):
                    self.note("The trigger started nothing.")
                    self.intent = None
            raise
