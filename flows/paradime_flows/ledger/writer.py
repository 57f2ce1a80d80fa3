"""Writing what a flow run answers for, as its trigger and its run go on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

from paradime_blocks import BoltRunState
from paradime_blocks.trigger import TriggerIntent, TriggerRequest
from paradime_flows.ledger.entry import Ownership, write_ownership
from paradime_flows.ledger.store import Superseded
from paradime_flows.prefect_api import run_logger

Check = Callable[[UUID], Awaitable[None]]
NoteStart = Callable[[Ownership, int, float], None]


class FlowRunLedger:
    """Writes intent and run id to the flow run (`paradime_blocks.trigger.request.RunLedger`).

    Args:
        ownership: What is written, and kept up to date.
        timeout_seconds: How long a run may take from its trigger, in seconds; for who triggers one.
        check: Awaited before an intent is written and after; raises an error if nothing must be sent; for who triggers.
        note_start: Is told when the time of a run began to count, by the monotonic clock; for who triggers one.
    """

    def __init__(
        self,
        ownership: Ownership,
        timeout_seconds: float | None = None,
        *,
        check: Check | None = None,
        note_start: NoteStart | None = None,
    ) -> None:
        self.ownership = ownership
        self.timeout_seconds = timeout_seconds
        self._check = check
        self._note_start = note_start
        self._intended: float | None = None

    async def intend(self, request: TriggerRequest, intent: TriggerIntent) -> None:
        """Write down that a trigger is about to be sent.

        Raises:
            StoppedByPrefect: The flow run has been cancelled by now; nothing must be sent.
            Superseded: Another process has taken up the flow run by now, or one above it.
            Pause: The flow run has been suspended by now.
            Exception: Prefect could not be told; then nothing must be sent either.
        """
        ownership = self.ownership
        # Nobody tells a script, and what was read of Bolt before this may have taken its time.
        await self._check_wanted()
        ownership.request, ownership.intent = request, intent
        ownership.run_id, ownership.state, ownership.owned = None, None, not ownership.left
        ownership.attached = False
        ownership.closed, ownership.reported, ownership.unreachable = False, False, False
        # Not the time of a run before this one.
        ownership.began_at, ownership.limit_seconds = intent.intended_at, self.timeout_seconds
        await write_ownership(ownership)
        self._intended = time.monotonic()
        # Whoever takes up the flow run from now on finds the intent; who has done so before must be heard of.
        await self._check_wanted()

    async def _check_wanted(self) -> None:
        assert self._check is not None  # noqa: S101 - who triggers has given it
        await self._check(self.ownership.flow_run_id)

    async def started(self, run_id: int, *, adopted: bool) -> None:
        """Write down which run the trigger started; its time has counted since the trigger was sent."""
        del adopted  # the decision log tells
        intent = self.ownership.intent
        if self._intended is not None and self._note_start is not None:
            self._note_start(self.ownership, run_id, self._intended)
        await self._track(run_id, time.time() if intent is None else intent.intended_at)

    async def attached(self, run_id: int) -> None:
        """Write down that a run which is not ours is waited for; its time counts from now."""
        # Before the id is written: between the two, an interrupt would cancel somebody else's run.
        self.ownership.owned = False
        if self._note_start is not None:
            self._note_start(self.ownership, run_id, time.monotonic())
        await self._track(run_id, time.time())

    async def _track(self, run_id: int, began_at: float) -> None:
        ownership = self.ownership
        ownership.run_id, ownership.state = run_id, BoltRunState.STARTING
        ownership.began_at, ownership.limit_seconds = began_at, self.timeout_seconds
        ownership.closed = ownership.left
        ownership.refused, ownership.failed_run = None, None
        await self.save()

    async def refused(self) -> None:
        """Write down that Bolt has refused the trigger since the schedule runs, be it by a run of our own."""
        ownership = self.ownership
        earlier, intent = ownership.refused, ownership.intent
        if intent is not None and earlier is not None and earlier.retry_of == intent.retry_of:
            # The earlier one tells of more runs, and this one of such as began later.
            intent = replace(intent, latest_run_id=earlier.latest_run_id)
        ownership.refused = intent or earlier
        await self.withdraw()

    async def withdraw(self) -> None:
        """Write down that nothing was started, so that nobody looks for a run.

        If it was to retry a run, that one's failure is what there is to go on with: whoever comes after us retries it.
        """
        ownership = self.ownership
        ownership.intent = None
        if ownership.failed_run is not None:
            ownership.run_id = ownership.failed_run
            ownership.state = next(
                each.state for each in ownership.attempts if each.run_id == ownership.run_id
            )
            ownership.closed, ownership.reported = True, False
        await self.save()

    async def disown(self) -> None:
        """Write down that what the trigger may have started is not ours for certain, and not to be cancelled."""
        self.ownership.owned = False
        await self.save()

    async def save(self) -> None:
        """Write after the fact: a Prefect that cannot be told must not lose us the run that there is."""
        # It can be broken off, too.
        self.ownership._is_saved = False  # noqa: SLF001 - not written: what this process knows of what is
        try:
            await write_ownership(self.ownership)
        except Superseded:
            # Whoever has taken up the flow run has read what there was, and has written more since.
            pass
        except Exception as error:  # noqa: BLE001
            run_logger().warning("Prefect could not be told of Bolt run %s: %s", self.ownership.run_id, error)
            return
        self.ownership._is_saved = True  # noqa: SLF001

    async def save_again(self) -> None:
        """Write what could not be written before, if there is anything."""
        if not self.ownership._is_saved:  # noqa: SLF001
            await self.save()

    async def close(self, state: BoltRunState | None, *, reported: bool) -> None:
        """Write down that nobody has to answer for the run any longer."""
        ownership = self.ownership
        ownership.state = state or ownership.state
        ownership.closed, ownership.reported = True, reported
        if reported:
            ownership.failed_run = None
        await self.save()
