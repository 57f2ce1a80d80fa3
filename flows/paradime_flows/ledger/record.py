"""The record of a Bolt run that a flow run tracks, stored as a label of the flow run.

Prefect keeps the labels after a retry, a crash or a cancel. Hooks, other processes and the sweeper can read the labels.
Prefect cannot filter flow runs by labels, so each flow run with a record also has a constant tag. The value of a label
is a scalar: Prefect cannot read a flow run if a label is None or a list. So the record is stored as JSON text.
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
        key: The name of this intent among the intents of its flow run. A flow of this package has one intent; a flow of
            the user has one intent for each task.
        flow_run_id: The flow run that this record was written for. If the label was copied to another flow run, the
            copy is ignored there.
        execution: The execution of the flow run (`paradime_flows.ledger.store`) that began or resumed this record last.
        asked: The fingerprint of the caller's request. `request` may be a retry of that request, or its remaining part.
        request: What was to be triggered. The commands are not stored: they may contain secrets, and may be large.
        intent: What was known before the trigger; None until the trigger is about to be sent.
        refused: What was known before a trigger that Bolt refused because the schedule was already running. If a
            gateway sent this trigger twice, the trigger may have started the run that Bolt was running. We do not
            cancel such a run, and do not trigger a second one.
        caller: The tasks that have called the flow run, or that have called the task of the intent.
        taken_from: The flow run from which this record is being taken over; None when the takeover is complete.
        taken_by: The flow run that has taken over this record.
        run_id: The Bolt run; None until the id is known.
        state: The last known state of the Bolt run.
        owned: Whether we may cancel the Bolt run. False if we attached to the run, or if it is not certain that our
            trigger started it.
        attached: Whether the Bolt run is another client's run, for which we wait as `on_already_running` says.
        left: Whether the caller asked not to track the Bolt run after its start.
        closed: Whether the Bolt run is no longer tracked: it has ended, or was left running on purpose.
        reported: Whether the end of the Bolt run was reported as the flow run's outcome. A later retry of the flow run
            is then a new intent.
        unreachable: Whether the wait ended because Bolt was unreachable. Then the flow run's failure does not mean that
            the Bolt run has failed.
        began_at: When the time limit of the Bolt run began, in seconds since the epoch.
        limit_seconds: The time limit of the Bolt run, in seconds from `began_at`.
        api_endpoint: The workspace's endpoint. Only credentials of the same workspace may cancel the Bolt run.
        workspace_uid: The workspace that the credentials name, if they name one.
        credentials_block: The name of the `ParadimeCredentials` block; None for the environment's credentials.
        on_interrupt: What happens to the Bolt run at an interrupt (SIGTERM, Ctrl-C), if nobody has cancelled the flow
            run.
        on_crash: What happens to the Bolt run when the flow run's process crashes.
        on_timeout: What happens to the Bolt run when its time limit is reached, also if the sweeper waits for the run.
        archive: What is archived of the Bolt run, and where.
        failed_run: The Bolt run that failed and is about to be retried, by a retry or by its remaining commands.
        attempts: The earlier Bolt runs of this intent.
        earlier: How many of `attempts` were reported as the flow run's outcome before the flow run started again.
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
        """Whether the caller's request is equal to the given request."""
        return (self.asked or self.request.fingerprint) == request.fingerprint

    @property
    def is_open(self) -> bool:
        """Whether there is, or may be, a Bolt run to track."""
        return not self.closed and (self.intent is not None or self.run_id is not None)

    @property
    def is_unreported(self) -> bool:
        """Whether the end of the Bolt run, or of a trigger, was not reported. The next execution resumes the record."""
        is_begun = self.intent is not None or self.refused is not None or self.run_id is not None
        return is_begun and not self.reported

    @property
    def has_unknown_run(self) -> bool:
        """Whether a trigger may have been sent, and its Bolt run is not known.

        This stays true when all Bolt runs that the trigger may have started have ended.
        """
        return self.is_unreported and self.run_id is None and self.intent is not None

    @property
    def schedule(self) -> str:
        """The schedule's name or slug."""
        return self.request.schedule_name

    def count_attempt(self, run_id: int, state: BoltRunState | None) -> None:
        """Add a Bolt run to the attempts, if it is not one of them yet."""
        if state is not None and run_id not in {attempt.run_id for attempt in self.attempts}:
            self.attempts.append(BoltAttempt(run_id=run_id, state=state))

    def remaining_seconds(self, limit: float) -> float:
        """Return the remaining seconds of a time limit: never more than the limit, even if the clock is wrong."""
        if self.began_at is None:
            return limit
        return min(limit, self.began_at + limit - time.time())

    @property
    def time_is_up(self) -> bool:
        """Whether the time limit of the Bolt run has passed."""
        return self.limit_seconds is not None and self.remaining_seconds(self.limit_seconds) <= 0

    def is_in(self, credentials: ParadimeCredentials) -> bool:
        """Whether the given credentials belong to the workspace of this record."""
        return (self.api_endpoint, self.workspace_uid) == (
            credentials.api_endpoint,
            credentials.workspace_uid,
        )

    def copied_to(self, flow_run: FlowRun, key: str) -> Ownership:
        """Return a copy of this record that belongs to another flow run."""
        new = self.model_copy(update={"flow_run_id": flow_run.id, "key": key}, deep=True)
        new.leased_to(flow_run)
        return new

    def leased_to(self, flow_run: FlowRun) -> None:
        """Store which execution has the lease on the flow run."""
        self._lease = execution_of(flow_run)
        self.execution = self._lease or ""

    def decision_log(self) -> DecisionLog:
        """Return the record's decision log. New notes are added to the record."""
        return DecisionLog(self.notes)

    def to_labels(self) -> dict[str, Any]:
        """Return the labels that store this record, and the labels with the schedule and Bolt run, for people."""
        labels: dict[str, Any] = {f"{LEDGER_LABEL_PREFIX}{self.key}": self.model_dump_json(exclude_none=True)}
        if self.key == FLOW_KEY:
            labels[SCHEDULE_LABEL] = self.schedule
            if self.run_id is not None:
                labels[RUN_ID_LABEL] = self.run_id
        return labels


def read_ownerships(flow_run: FlowRun) -> list[Ownership]:
    """Return the records in a flow run's labels. A label that was copied from another flow run is ignored."""
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
        Superseded: Another execution has taken the lease since the record was read. It has a newer record.
    """
    async with get_client() as client:
        await read_if_leased(client, ownership)
        labels = ownership.to_labels()
        await write_labels(client, ownership.flow_run_id, labels, see=partial(_check_lease_of, ownership))


async def read_if_leased(client: PrefectClient, ownership: Ownership) -> FlowRun:
    """Return the current flow run of a record.

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
