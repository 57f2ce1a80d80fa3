"""Writes the record of an intent before and after the trigger, while the Bolt run is running, and at its end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

from paradime_blocks import BoltRunState
from paradime_blocks.trigger import TriggerIntent, TriggerRequest
from paradime_flows.ledger.record import Ownership, write_ownership
from paradime_flows.ledger.store import Superseded
from paradime_flows.prefect_api import run_logger

Check = Callable[[UUID], Awaitable[None]]
NoteStart = Callable[[Ownership, int, float], None]


class FlowRunLedger:
    """Writes the intent and the id of the Bolt run to the flow run (`paradime_blocks.trigger.request.RunLedger`).

    Args:
        ownership: The record. It is updated and written.
        timeout_seconds: The time limit of a Bolt run, in seconds from the trigger. Only needed to trigger.
        check: Awaited before and after an intent is written. `check` raises if the trigger must not be sent. Only
            needed to trigger.
        note_start: Called with the record, the Bolt run, and the time at which the time limit of the run began, by the
            monotonic clock. Only needed to trigger.
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
            StoppedByPrefect: The flow run was cancelled. The trigger must not be sent.
            Superseded: Another process runs the flow run, or one of its parents, now. The trigger must not be sent.
            Pause: The flow run was suspended. The trigger must not be sent.
            Exception: Prefect did not accept the record, or is unreachable. The trigger must not be sent.
        """
        ownership = self.ownership
        # Prefect does not tell a script that its flow run was cancelled. The requests to Bolt before this line may have
        # taken long, so a cancel may have come meanwhile.
        await self._check_wanted()
        ownership.request, ownership.intent = request, intent
        ownership.run_id, ownership.state, ownership.owned = None, None, not ownership.left
        ownership.attached = False
        ownership.closed, ownership.reported, ownership.unreachable = False, False, False
        # Replace the time of an earlier Bolt run.
        ownership.began_at, ownership.limit_seconds = intent.intended_at, self.timeout_seconds
        await write_ownership(ownership)
        self._intended = time.monotonic()
        # An execution that starts from now on finds the intent. An execution that started before now is noticed here.
        await self._check_wanted()

    async def _check_wanted(self) -> None:
        assert self._check is not None  # noqa: S101 - a caller that triggers has given it
        await self._check(self.ownership.flow_run_id)

    async def started(self, run_id: int, *, adopted: bool) -> None:
        """Write which Bolt run the trigger started. The run's time limit began when the trigger was sent."""
        del adopted  # the decision log has it
        intent = self.ownership.intent
        if self._intended is not None and self._note_start is not None:
            self._note_start(self.ownership, run_id, self._intended)
        await self._track(run_id, time.time() if intent is None else intent.intended_at)

    async def attached(self, run_id: int) -> None:
        """Write that we wait for a Bolt run that is not ours. The time limit begins now."""
        # `owned` is set before the id is written. Otherwise an interrupt in between would cancel another client's run.
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
        """Write that Bolt refused the trigger because the schedule is running. That Bolt run may be ours."""
        ownership = self.ownership
        earlier, intent = ownership.refused, ownership.intent
        if intent is not None and earlier is not None and earlier.retry_of == intent.retry_of:
            # Our trigger may have started any Bolt run that began after the latest run of the earlier intent.
            intent = replace(intent, latest_run_id=earlier.latest_run_id)
        ownership.refused = intent or earlier
        await self.withdraw()

    async def withdraw(self) -> None:
        """Write that the trigger has started no Bolt run, so that no later execution searches for one.

        If the trigger was a retry, the failed Bolt run is the record's Bolt run again: the next execution retries it.
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
        """Write that the Bolt run must not be cancelled, because it is not certain that our trigger started it."""
        self.ownership.owned = False
        await self.save()

    async def save(self) -> None:
        """Write the record. If Prefect is unreachable, only warn, because the Bolt run must still be tracked."""
        # This is set first, because an interrupt can end the write, too.
        self.ownership._is_saved = False  # noqa: SLF001 - not stored in Prefect: whether the last change was written
        try:
            await write_ownership(self.ownership)
        except Superseded:
            # Another execution has read the record, and has written a newer record since then.
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
        """Write that the Bolt run is no longer tracked."""
        ownership = self.ownership
        ownership.state = state or ownership.state
        ownership.closed, ownership.reported = True, reported
        if reported:
            ownership.failed_run = None
        await self.save()
