"""The record of a Bolt run that a flow run tracks, stored in labels of the flow run (README.md), and its writer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, field_serializer

from paradime_blocks import BoltAttempt, BoltRunState, ParadimeCredentials
from paradime_blocks.models import BoltRunStatus
from paradime_blocks.trigger import DecisionLog, TriggerIntent, TriggerRequest
from paradime_flows.choices import OnInterrupt, Policy
from paradime_flows.events import RunSubject, emit_if_running, emit_triggered
from paradime_flows.ledger.phase import Phase, Relation
from paradime_flows.ledger.store import NO_LEASE, Lease, Superseded, lease_to_settle, put, top_lease
from paradime_flows.prefect_api import logger_for, prefect_client, run_logger
from paradime_flows.prefect_api.labels import LEDGER_LABEL_PREFIX, RUN_ID_LABEL, SCHEDULE_LABEL, schedule_tag
from paradime_flows.reporting.archive_settings import ArchiveSettings

FLOW_KEY = "run"


class Record(BaseModel):
    """An intent to run a schedule, the Bolt run that it has started, and what to do with that run."""

    # A flow of this package has one intent; a flow of the user has one intent for each task, with the task run's id.
    key: str = FLOW_KEY
    # A copy of the label in another flow run is ignored.
    flow_run_id: UUID
    # The lease that this process holds, and writes the record with; until then, the greatest lease that it has read.
    lease: Lease = NO_LEASE
    # The fingerprint of the caller's request.
    asked: str = ""
    # What was to be triggered: the caller's request, a retry of it, or its remaining part.
    request: TriggerRequest
    # The attempts in which the intent was made (`paradime_flows.ledger.retried_parents`).
    called_in: str = ""
    # What was known before the trigger; None until the trigger is about to be sent.
    intent: TriggerIntent | None = None
    run_id: int | None = None
    state: BoltRunState | None = None
    phase: Phase = Phase.TAKEN
    relation: Relation = Relation.OURS
    # Whether the caller asked not to track the Bolt run after its start.
    left: bool = False
    # Whether Bolt was unreachable when the wait ended. Then a failed flow run does not mean that the Bolt run failed.
    unreachable: bool = False
    # When the time limit began, in seconds since the epoch; and on the monotonic clock, unless in another execution.
    began_at: float | None = None
    began_here: float | None = Field(default=None, exclude=True)
    limit_seconds: float | None = None
    # Only credentials of the same workspace may cancel the Bolt run.
    api_endpoint: str = ""
    workspace_uid: str | None = None
    # None for the credentials of the environment.
    credentials_block: str | None = None
    on_interrupt: OnInterrupt = "auto"
    # Whether Prefect runs the flow run again after a SIGTERM.
    is_rescheduled: bool = False
    on_crash: Policy = "cancel"
    on_timeout: Policy = "cancel"
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)
    # The Bolt run that failed and is about to be retried, or whose remaining commands are about to be triggered.
    failed_run: int | None = None
    # The earlier Bolt runs. The first `earlier` of them were reported before the flow run started again.
    attempts: list[BoltAttempt] = Field(default_factory=list)
    earlier: int = 0
    notes: list[tuple[str, str]] = Field(default_factory=list)
    _flow_run_name: str = PrivateAttr(default="")

    @field_serializer("request")
    def _stored(self, request: TriggerRequest) -> dict[str, Any]:
        """Leave out the commands: they may contain secrets, and may be large."""
        options = {} if request.branch is None else {"branch": request.branch}
        return {"schedule_name": request.schedule_name, "options": options, "retry_of": request.retry_of}

    @property
    def may_be_cancelled(self) -> bool:
        """Whether the Bolt run is ours, and the caller asked to track it."""
        return self.relation is Relation.OURS and not self.left

    @property
    def is_of_task(self) -> bool:
        return self.key != FLOW_KEY

    @property
    def is_open(self) -> bool:
        """Whether there is, or may be, a Bolt run to track."""
        return self.phase in {Phase.SENDING, Phase.RUNNING}

    @property
    def is_unreported(self) -> bool:
        """Whether the end of the Bolt run, or of a trigger, was not reported. The next execution resumes the record."""
        return self.phase not in {Phase.TAKEN, Phase.REPORTED}

    @property
    def schedule(self) -> str:
        return self.request.schedule_name

    def count_attempt(self, run_id: int, state: BoltRunState | None) -> None:
        if state is not None and run_id not in {attempt.run_id for attempt in self.attempts}:
            self.attempts.append(BoltAttempt(run_id=run_id, state=state))

    def remaining_seconds(self, limit: float) -> float:
        """Return the remaining seconds of a time limit, from 0 to the limit, even if the clock is wrong."""
        began_at = self.began_at or time.time()
        return max(0.0, min(limit, began_at + limit - time.time()))

    @property
    def time_is_up(self) -> bool:
        return self.limit_seconds is not None and self.remaining_seconds(self.limit_seconds) == 0

    @property
    def workspace(self) -> tuple[str, str | None]:
        return self.api_endpoint, self.workspace_uid

    def is_in(self, credentials: ParadimeCredentials) -> bool:
        return self.workspace == (credentials.api_endpoint, credentials.workspace_uid)

    def decision_log(self) -> DecisionLog:
        """Return the decision log, whose new notes also appear in the log of the flow run."""
        return DecisionLog(self.notes, log=logger_for(self.flow_run_id, self._flow_run_name).warning)

    def to_labels(self) -> dict[str, Any]:
        name = f"{LEDGER_LABEL_PREFIX}{self.key}.{self.lease.epoch}.{self.lease.holder}"
        # JSON text, since Prefect cannot read a flow run if a label is None or a list.
        labels: dict[str, Any] = {name: self.model_dump_json(exclude_none=True)}
        if not self.is_of_task:
            labels[SCHEDULE_LABEL] = self.schedule
            if self.run_id is not None:
                labels[RUN_ID_LABEL] = self.run_id
        return labels


def fold(entries: Iterable[Record]) -> Record:
    """Return the record that counts (README.md)."""
    oldest_first = sorted(entries, key=lambda entry: entry.lease)
    top = oldest_first[-1]
    if top.run_id is None and top.phase in {Phase.SENDING, Phase.ENDED}:
        for entry in oldest_first:
            if entry.run_id is not None and entry.intent == top.intent:
                top.run_id, top.state, top.phase = entry.run_id, entry.state, entry.phase
    return top


def read_records(flow_run: FlowRun) -> list[Record]:
    """Return the records in a flow run's labels."""
    entries: dict[str, list[Record]] = {}
    for name, value in (flow_run.labels or {}).items():
        if name.startswith(LEDGER_LABEL_PREFIX):
            with suppress(ValidationError):
                entry = Record.model_validate_json(str(value))
                if entry.flow_run_id == flow_run.id:
                    entries.setdefault(entry.key, []).append(entry)
    found = [fold(each) for each in entries.values()]
    for record in found:
        record.lease = top_lease(flow_run.labels)
        record._flow_run_name = flow_run.name  # noqa: SLF001 - not stored
    return found


async def runs_of_others(record: Record) -> set[int]:
    """Return the Bolt runs of a record's schedule that other triggers have started; none if Prefect does not answer."""
    tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[schedule_tag(record.schedule)]))
    try:
        async with prefect_client() as client:
            # Prefect returns at most 200 in one answer. A search is only about the last minutes.
            flow_runs = await client.read_flow_runs(
                flow_run_filter=tagged, sort=FlowRunSort.START_TIME_DESC, limit=200
            )
    except Exception as error:  # noqa: BLE001 - the search then uses only what Bolt shows
        run_logger().warning("Could not ask Prefect which Bolt runs other flow runs have started: %s", error)
        return set()
    # If a flow run has taken over a record, the old record and the new record have the same trigger.
    return {
        other.run_id
        for flow_run in flow_runs
        for other in read_records(flow_run)
        if other.run_id is not None
        and other.relation is Relation.OURS
        and other.intent not in {None, record.intent}
        and other.workspace == record.workspace
    }


async def write_record(record: Record) -> FlowRun:
    """Write a record with the lease that this process holds; return the flow run, as read after the write."""
    async with prefect_client() as client:
        return await put(client, record.flow_run_id, record.to_labels(), record.lease)


async def hold(client: PrefectClient, record: Record) -> None:
    """Take the lease for a settler, and read what others wrote before. If this process has it, check it is not lost."""
    seen = record.lease
    # The lease is set before Prefect is asked. If Prefect does not answer, the record is used as it was read, and is
    # later written with this lease.
    record.lease = lease_to_settle(record.flow_run_id, seen)
    flow_run = await client.read_flow_run(record.flow_run_id)
    if record.lease == seen:
        if seen.is_lost(flow_run.labels):
            raise Superseded(flow_run)
        return
    if top_lease(flow_run.labels) == seen:
        flow_run = await put(client, record.flow_run_id, {record.lease.label: ""})
    if top_lease(flow_run.labels) != record.lease:
        raise Superseded(flow_run)
    for fresh in read_records(flow_run):
        if fresh.key == record.key:
            vars(record).update({**vars(fresh), "notes": record.notes})


@dataclass(eq=False)
class FlowRunLedger:
    """Writes the record before and after the trigger, while the Bolt run is running, and at its end."""

    record: Record
    # Raises an error if the trigger must not be sent. It gets the flow run, as read back after an intent was written.
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
        record.began_at = intent.intended_at
        flow_run = await write_record(record)
        record.began_here = time.monotonic()
        # An execution that starts from now on finds the intent. An execution that started before now is noticed here.
        # A cancel is noticed here, too: the earlier requests to Bolt may have taken long.
        if self.check is not None:
            await self.check(flow_run)

    async def started(self, run_id: int) -> None:
        """Write which Bolt run the trigger started. The run's time limit began when the trigger was sent."""
        emit_triggered(self.subject(run_id))
        await self.track(run_id)

    async def attached(self, run_id: int, relation: Relation) -> None:
        """Write that we wait for a Bolt run that is not ours, or may not be ours. The time limit begins now."""
        # The relation is set before the id is written. Otherwise an interrupt between the two would cancel the run of
        # another client.
        self.record.relation = relation
        self.record.began_at, self.record.began_here = time.time(), time.monotonic()
        await self.track(run_id)

    async def track(self, run_id: int | None = None) -> None:
        """Write that this execution tracks a Bolt run: a new one, or by default the one that the record has."""
        record = self.record
        if run_id is not None:
            record.run_id, record.state, record.failed_run = run_id, BoltRunState.STARTING, None
        if record.phase is not Phase.REPORTED:
            record.phase = Phase.RELEASED if record.left else Phase.RUNNING
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
        record.intent, record.run_id, record.state = None, None, None
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
        if reported or record.phase is Phase.REPORTED:
            record.phase, record.failed_run = Phase.REPORTED, None
        elif record.run_id is None or (record.state is not None and record.state.is_terminal):
            record.phase = Phase.ENDED
        else:
            record.phase = Phase.RELEASED
        await self.save()
