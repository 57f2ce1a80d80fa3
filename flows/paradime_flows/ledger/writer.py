"""Writes the record of an intent before and after the trigger, while the Bolt run is running, and at its end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from prefect.client.schemas.objects import FlowRun

from paradime_blocks import BoltRunState
from paradime_blocks.models import BoltRunStatus
from paradime_blocks.trigger import TriggerIntent, TriggerRequest
from paradime_flows.events import RunSubject, emit_if_running, emit_triggered
from paradime_flows.ledger.phase import Phase, Relation
from paradime_flows.ledger.record import Record, write_record
from paradime_flows.ledger.store import Superseded
from paradime_flows.prefect_api import run_logger


@dataclass(eq=False)
class FlowRunLedger:
    """Writes the intent and the id of the Bolt run to the flow run (`paradime_blocks.trigger.request.RunLedger`).

    Only a trigger needs the time limit of the Bolt run and `check`. `check` is awaited with the flow run, as read back
    after an intent was written, and raises an error if the trigger must not be sent.
    """

    record: Record
    timeout_seconds: float | None = None
    check: Callable[[FlowRun], Awaitable[None]] | None = None
    # The flow run, as read back after the last write; None if the write failed, and before the first write.
    seen: FlowRun | None = field(default=None, init=False)
    _running: int | None = field(default=None, init=False)

    async def intend(self, request: TriggerRequest, intent: TriggerIntent) -> None:
        """Write that a trigger is about to be sent. If this raises anything, the trigger must not be sent."""
        record = self.record
        record.request, record.intent = request, intent
        record.run_id, record.state, record.unreachable = None, None, False
        record.phase, record.relation = Phase.SENDING, Relation.OURS
        # Replace the time of an earlier Bolt run.
        record.began_at, record.limit_seconds = intent.intended_at, self.timeout_seconds
        flow_run = await write_record(record)
        record.began_here = time.monotonic()
        # An execution that starts from now on finds the intent. An execution that started before now is noticed here.
        # A cancel is noticed here, too: Prefect does not report a cancel to a script, and the earlier requests to Bolt
        # may have taken long.
        if self.check is not None:
            await self.check(flow_run)

    async def started(self, run_id: int) -> None:
        """Write which Bolt run the trigger started. The run's time limit began when the trigger was sent."""
        emit_triggered(self.subject(run_id))
        await self._track(run_id)

    async def attached(self, run_id: int, relation: Relation) -> None:
        """Write that we wait for a Bolt run that is not ours, or may not be ours. The time limit begins now."""
        # The relation is set before the id is written. Otherwise an interrupt between the two would cancel the run of
        # another client.
        self.record.relation = relation
        self.record.began_at, self.record.began_here = time.time(), time.monotonic()
        await self._track(run_id)

    async def _track(self, run_id: int) -> None:
        self.record.run_id, self.record.state = run_id, BoltRunState.STARTING
        self.record.failed_run, self.record.limit_seconds = None, self.timeout_seconds
        await self.resumed()

    async def resumed(self) -> None:
        """Write that this execution tracks the known Bolt run."""
        if self.record.phase is not Phase.REPORTED:
            self.record.phase = Phase.RELEASED if self.record.left else Phase.RUNNING
        await self.save()

    def subject(self, run_id: int) -> RunSubject:
        return RunSubject.of(run_id, self.record, self.record.schedule, self.record.flow_run_id)

    def saw(self, run_id: int, status: BoltRunStatus | None) -> None:
        """Send the event that a Bolt run has started, once, and only if the status shows the start."""
        if self._running != run_id and emit_if_running(self.subject(run_id), status):
            self._running = run_id

    async def withdraw(self) -> None:
        """Write that the trigger has started no Bolt run, or was not sent, so that no later execution searches for one.

        If the trigger was a retry, the failed Bolt run is the record's Bolt run again: the next execution retries it.
        """
        record = self.record
        record.intent = None
        # The record may still name the run of an earlier intent, which was reported.
        if record.run_id is None or record.phase is Phase.REPORTED:
            record.run_id, record.state = None, None
            record.phase, record.relation = Phase.TAKEN, Relation.OURS
        if record.failed_run is not None:
            record.run_id = record.failed_run
            record.state = next(each.state for each in record.attempts if each.run_id == record.run_id)
            record.phase = Phase.ENDED
        await self.save()

    async def save(self) -> None:
        """Write the record. If Prefect is unreachable, only warn, because the Bolt run must still be tracked."""
        # An interrupt can end the write.
        self.seen = None
        try:
            # Another execution may have read the record, and may have written a newer record since then.
            with suppress(Superseded):
                self.seen = await write_record(self.record)
        except Exception as error:  # noqa: BLE001
            run_logger().warning(
                "Could not write the record of Bolt run %s to Prefect: %s", self.record.run_id, error
            )

    async def close(self, state: BoltRunState | None, *, reported: bool) -> None:
        """Write that the Bolt run is no longer tracked."""
        record = self.record
        record.state = state or record.state
        if reported:
            record.phase, record.failed_run = Phase.REPORTED, None
        elif record.run_id is None or (record.state is not None and record.state.is_terminal):
            record.phase = Phase.ENDED
        else:
            record.phase = Phase.RELEASED
        await self.save()
