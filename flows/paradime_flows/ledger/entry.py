"""The record of a Bolt run that a flow run tracks, stored as a label of the flow run.

Labels survive retries, crashes and cancels, and hooks, other processes and the sweeper can read them. Prefect cannot
filter by them, so each such flow run also has a constant tag. A label's value must be a scalar (a None or a list there
breaks Prefect's reads), so the record is JSON text.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, field_serializer

from paradime_blocks import BoltAttempt, BoltRunState, ParadimeCredentials
from paradime_blocks.trigger import DecisionLog, TriggerIntent, TriggerRequest
from paradime_flows.choices import Policy
from paradime_flows.ledger.callers import Caller
from paradime_flows.ledger.store import Superseded, execution_of, write_labels
from paradime_flows.prefect_api import FLOW_RUN_TAG, LEDGER_LABEL_PREFIX, RUN_ID_LABEL, SCHEDULE_LABEL
from paradime_flows.reporting.archive_settings import ArchiveSettings

FLOW_KEY = "run"


class Ownership(BaseModel):
    """An intent to run a schedule, the Bolt run that it has started, and what to do with that run.

    Attributes:
        key: Which intent of the flow run this is; our flows have one, a flow of the user's has one per task.
        flow_run_id: The flow run that it belongs to: a copied label does not count.
        execution: The execution of the flow run (`paradime_flows.ledger.store`) that resumed it last.
        asked: The fingerprint of the caller's request; `request` may be a retry of that, or the rest of it.
        request: What was to be triggered. Its commands are not stored: they may contain secrets and be large.
        intent: What was known before the trigger; None until it is about to be sent.
        refused: What was known before a trigger that Bolt refused since the schedule was running. If a gateway sent the
            request twice, that trigger may have started this run. Such a run is not cancelled, and no second one is
            triggered.
        caller: The tasks that have called the flow run, or in which the task of the intent is called.
        taken_from: The flow run that it is being taken over from; None when the takeover is complete.
        taken_by: The flow run that has taken it over.
        run_id: The Bolt run; None until it is known.
        state: Its last known state.
        owned: Whether the run is ours to cancel; false for one that we attached to, or that only may be ours.
        attached: Whether it is another client's run, for which we wait as `on_already_running` says.
        left: Whether the run is not tracked after its start, as requested.
        closed: Whether the run is no longer tracked: it has ended, or was left on purpose.
        reported: Whether its end was reported as this flow run's outcome; a later retry is a new intent.
        unreachable: Whether the wait ended because Bolt was unreachable, so that the flow run's failure does not mean
            that the run failed.
        began_at: When its time limit began, in seconds since the epoch.
        limit_seconds: How long it may take from then, in seconds.
        api_endpoint: The workspace's endpoint. Only credentials of the same workspace may cancel the run.
        workspace_uid: The workspace that the endpoint's token acts on, if it names one.
        credentials_block: Name of the `ParadimeCredentials` block; None for the environment's credentials.
        on_interrupt: What an interrupt (SIGTERM, Ctrl-C) does to it, if nobody has cancelled the flow run.
        on_crash: What a crash of the flow run's process does to it.
        on_timeout: What its time limit does to it, also if the sweeper waits for it.
        archive: What to archive of the run, and where.
        failed_run: The run that failed and is about to be retried, by a retry or by its remaining commands.
        attempts: The runs before it, for this same intent.
        earlier: How many of them were reported as the flow run's outcome before it started again.
        notes: The decision log.
    """

    key: str = FLOW_KEY
    flow_run_id: UUID
    execution: str = ""
    asked: str = ""
    request: TriggerRequest
    intent: TriggerIntent | None = None
    refused: TriggerIntent | None = None
    caller: Caller | None = None
    taken_from: UUID | None = None
    taken_by: UUID | None = None
    run_id: int | None = None
    state: BoltRunState | None = None
    owned: bool = True
    attached: bool = False
    left: bool = False
    closed: bool = False
    reported: bool = False
    unreachable: bool = False
    began_at: float | None = None
    limit_seconds: float | None = None
    api_endpoint: str = ""
    workspace_uid: str | None = None
    credentials_block: str | None = None
    on_interrupt: Policy = "cancel"
    on_crash: Policy = "cancel"
    on_timeout: Policy = "cancel"
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)
    failed_run: int | None = None
    attempts: list[BoltAttempt] = Field(default_factory=list)
    earlier: int = 0
    notes: list[tuple[str, str]] = Field(default_factory=list)
    _lease: str | None = PrivateAttr(default=None)
    _is_saved: bool = PrivateAttr(default=True)

    @field_serializer("request")
    def _stored(self, request: TriggerRequest) -> dict[str, Any]:
        """Return the part of the request that another process needs."""
        options = {} if request.branch is None else {"branch": request.branch}
        retry = {} if request.retry_of is None else {"retry_of": request.retry_of}
        return {"schedule_name": request.schedule_name, "options": options, **retry}

    def asks_for(self, request: TriggerRequest) -> bool:
        """Whether the caller's request is equal to a request."""
        return (self.asked or self.request.fingerprint) == request.fingerprint

    @property
    def is_open(self) -> bool:
        """Whether there is, or may be, a Bolt run to track."""
        return not self.closed and (self.intent is not None or self.run_id is not None)

    @property
    def is_unreported(self) -> bool:
        """Whether the end of its run, or of a trigger, was not reported: the next execution resumes it."""
        is_begun = self.intent is not None or self.refused is not None or self.run_id is not None
        return is_begun and not self.reported

    @property
    def has_unknown_run(self) -> bool:
        """Whether a trigger was sent whose run is not known, also if all runs that may be it have ended."""
        return self.is_unreported and self.run_id is None and self.intent is not None

    @property
    def schedule(self) -> str:
        """The schedule's name or slug."""
        return self.request.schedule_name

    def count_attempt(self, run_id: int, state: BoltRunState | None) -> None:
        """Count a run among the attempts, once."""
        if state is not None and run_id not in {attempt.run_id for attempt in self.attempts}:
            self.attempts.append(BoltAttempt(run_id=run_id, state=state))

    def remaining_seconds(self, limit: float) -> float:
        """Return the rest of a time limit, in seconds; never more than the limit, whatever the clock says."""
        if self.began_at is None:
            return limit
        return min(limit, self.began_at + limit - time.time())

    @property
    def time_is_up(self) -> bool:
        """Whether its own time limit has passed."""
        return self.limit_seconds is not None and self.remaining_seconds(self.limit_seconds) <= 0

    def is_in(self, credentials: ParadimeCredentials) -> bool:
        """Whether credentials belong to its workspace."""
        return (self.api_endpoint, self.workspace_uid) == (
            credentials.api_endpoint,
            credentials.workspace_uid,
        )

    def copied_to(self, flow_run: FlowRun, key: str) -> Ownership:
        """Return a copy that belongs to another flow run."""
        new = self.model_copy(update={"flow_run_id": flow_run.id, "key": key}, deep=True)
        new.leased_to(flow_run)
        return new

    def leased_to(self, flow_run: FlowRun) -> None:
        """Store which execution has the lease of its flow run."""
        self._lease = execution_of(flow_run)
        self.execution = self._lease or ""

    def decision_log(self) -> DecisionLog:
        """Return the record's decision log, to add to it."""
        return DecisionLog(self.notes)

    def to_labels(self) -> dict[str, Any]:
        """Return the labels that store this record; the second and third are for people."""
        labels: dict[str, Any] = {f"{LEDGER_LABEL_PREFIX}{self.key}": self.model_dump_json(exclude_none=True)}
        if self.key == FLOW_KEY:
            labels[SCHEDULE_LABEL] = self.schedule
            if self.run_id is not None:
                labels[RUN_ID_LABEL] = self.run_id
        return labels


def read_ownerships(flow_run: FlowRun) -> list[Ownership]:
    """Return the records in a flow run's labels; a label that was copied from another flow run does not count."""
    found: list[Ownership] = []
    labels: Mapping[str, Any] = flow_run.labels or {}
    for name, value in labels.items():
        if not name.startswith(LEDGER_LABEL_PREFIX):
            continue
        try:
            ownership = Ownership.model_validate_json(str(value))
        except ValidationError:
            continue
        if ownership.flow_run_id == flow_run.id:
            ownership._lease = execution_of(flow_run)  # noqa: SLF001 - not stored: who had the lease when it was read
            found.append(ownership)
    return found


async def write_ownership(ownership: Ownership) -> None:
    """Write a record to its flow run's labels.

    Raises:
        Superseded: Another execution has taken the lease since the record was read, and has a newer record.
    """
    async with get_client() as client:
        await read_if_leased(client, ownership)
        labels = ownership.to_labels()
        await write_labels(client, ownership.flow_run_id, labels, see=partial(_check_lease_of, ownership))


async def read_if_leased(client: PrefectClient, ownership: Ownership) -> FlowRun:
    """Return the flow run of a record as it is now.

    Raises:
        Superseded: Another execution has taken the lease since the record was read.
    """
    flow_run = await client.read_flow_run(ownership.flow_run_id)
    _check_lease_of(ownership, flow_run)
    return flow_run


def _check_lease_of(ownership: Ownership, flow_run: FlowRun) -> None:
    if execution_of(flow_run) != ownership._lease:  # noqa: SLF001
        raise Superseded(flow_run)


async def tag_flow_run(flow_run_id: UUID) -> None:
    """Tag a flow run so that the sweeper finds it."""
    async with get_client() as client:
        flow_run = await client.read_flow_run(flow_run_id)
        if FLOW_RUN_TAG not in flow_run.tags:
            await client.update_flow_run(flow_run_id, tags=[*flow_run.tags, FLOW_RUN_TAG])
