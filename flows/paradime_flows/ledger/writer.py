"""Writes the record of an intent while its run is triggered, runs and ends."""

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
        ownership: The record, which is updated and written.
        timeout_seconds: How long a run may take from its trigger, in seconds. Only needed to trigger.
        check: Awaited before and after an intent is written; raises if nothing must be sent. Only needed to trigger.
        note_start: Called with the start of a run's time limit, by the monotonic clock. Only needed to trigger.
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
        """Write that a trigger is about to be sent.

        Raises:
            StoppedByPrefect: The flow run was cancelled; nothing must be sent.
            Superseded: Another process runs the flow run, or one of its parents, now.
            Pause: The flow run was suspended.
            Exception: Prefect did not accept the record; nothing must be sent either.
        """
        ownership = self.ownership
        # Prefect does not notify a script, and the requests to Bolt before this may have taken long.
        await self._check_wanted()
        ownership.request, ownership.intent = request, intent
        ownership.run_id, ownership.state, ownership.owned = None, None, not ownership.left
        ownership.attached = False
        ownership.closed, ownership.reported, ownership.unreachable = False, False, False
        # Not the time of a run before this one.
        ownership.began_at, ownership.limit_seconds = intent.intended_at, self.timeout_seconds
        await write_ownership(ownership)
        self._intended = time.monotonic()
        # An execution that starts from now on finds the intent; one that started before must be noticed here.
        await self._check_wanted()

    async def _check_wanted(self) -> None:
        assert self._check is not None  # noqa: S101 - a caller that triggers has given it
        await self._check(self.ownership.flow_run_id)

    async def started(self, run_id: int, *, adopted: bool) -> None:
        """Write which run the trigger started; its time limit began when the trigger was sent."""
        del adopted  # the decision log has it
        intent = self.ownership.intent
        if self._intended is not None and self._note_start is not None:
            self._note_start(self.ownership, run_id, self._intended)
        await self._track(run_id, time.time() if intent is None else intent.intended_at)

    async def attached(self, run_id: int) -> None:
        """Write that we wait for a run which is not ours; its time limit begins now."""
        # Before the id is written: else an interrupt between the two would cancel another client's run.
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
        """Write that Bolt refused the trigger since the schedule is running; that may be a run of ours."""
        ownership = self.ownership
        earlier, intent = ownership.refused, ownership.intent
        if intent is not None and earlier is not None and earlier.retry_of == intent.retry_of:
            # The earlier intent covers more runs: those that began after its latest run.
            intent = replace(intent, latest_run_id=earlier.latest_run_id)
        ownership.refused = intent or earlier
        await self.withdraw()

    async def withdraw(self) -> None:
        """Write that nothing was started, so that no later execution searches for a run.

        If it was a retry, the failed run is the record's run again: the next execution retries it.
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
        """Write that a run which the trigger may have started is not certainly ours, and is not to be cancelled."""
        self.ownership.owned = False
        await self.save()

    async def save(self) -> None:
        """Write the record; if Prefect is unreachable, only warn, since the run must still be tracked."""
        # An interrupt can end this, too.
        self.ownership._is_saved = False  # noqa: SLF001 - not part of the record: whether its last change is written
        try:
            await write_ownership(self.ownership)
        except Superseded:
            # The other execution has read the record, and has written a newer one since.
            pass
        except Exception as error:  # noqa: BLE001
            run_logger().warning(
                "Could not write the record of Bolt run %s to Prefect: %s", self.ownership.run_id, error
            )
            return
        self.ownership._is_saved = True  # noqa: SLF001

    async def save_again(self) -> None:
        """Write the record again if the last write failed."""
        if not self.ownership._is_saved:  # noqa: SLF001
            await self.save()

    async def close(self, state: BoltRunState | None, *, reported: bool) -> None:
        """Write that the run is no longer tracked."""
        ownership = self.ownership
        ownership.state = state or ownership.state
        ownership.closed, ownership.reported = True, reported
        if reported:
            ownership.failed_run = None
        await self.save()
