"""Which Bolt runs a flow run answers for, written as labels of the flow run.

Labels survive retries, crashes and cancels, and hooks, other processes and the sweeper can read them. They can
be read by flow run only, so each such flow run also carries one constant tag to be found by. A label's value
must be a scalar (a None or a list there breaks Prefect's reads), hence the JSON text.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from pydantic import BaseModel, Field, ValidationError

from paradime_blocks.models import BoltAttempt, BoltRunState
from paradime_blocks.trail import Trail
from paradime_blocks.trigger import TriggerIntent, TriggerRequest
from paradime_flows.archive_settings import ArchiveSettings
from paradime_flows.context import run_logger
from paradime_flows.watch import StoppedByPrefect, reason_to_stop

TAG = "paradime-bolt"
LABEL_PREFIX = "paradime.bolt."
FLOW_KEY = "run"

Policy = Literal["cancel", "leave"]


class Ownership(BaseModel):
    """One intent to run a schedule, the Bolt run that it led to, and what is to become of that.

    Attributes:
        key: Which intent of the flow run this is; a flow has one, a flow of the user's has one per task.
        flow_run_id: The flow run that it belongs to: labels can be copied, ownership cannot.
        attempt: Which attempt of the flow run wrote it last.
        request: What was to be triggered.
        intent: What was known before the trigger; None until it is about to be sent.
        run_id: The Bolt run; None until it is known.
        state: Its state when last seen by us.
        owned: Whether the run is ours to cancel; false for one that we only attached to.
        left: Whether it is left on purpose as soon as it has been started.
        closed: Nobody has to answer for it any longer: it has ended, or was left on purpose.
        reported: Its end has been reported as this flow run's outcome; a later retry is a new intent.
        deadline_at: When it must have ended, in seconds since the epoch.
        api_endpoint: The workspace, so that a sweeper for another one leaves it alone.
        credentials_block: Name of the `ParadimeCredentials` block; None for the environment's credentials.
        on_interrupt: What an interrupt without a person's cancel does to it (SIGTERM, Ctrl-C).
        on_crash: What a crash of the flow run's process does to it.
        archive: What to archive of the run, and where.
        attempts: The runs before it, for this same intent.
        notes: The decision trail.
    """

    key: str = FLOW_KEY
    flow_run_id: UUID
    attempt: int = 1
    request: TriggerRequest
    intent: TriggerIntent | None = None
    run_id: int | None = None
    state: BoltRunState | None = None
    owned: bool = True
    left: bool = False
    closed: bool = False
    reported: bool = False
    deadline_at: float | None = None
    api_endpoint: str = ""
    credentials_block: str | None = None
    on_interrupt: Policy = "cancel"
    on_crash: Policy = "cancel"
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)
    attempts: list[BoltAttempt] = Field(default_factory=list)
    notes: list[tuple[str, str]] = Field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether there is, or may be, a Bolt run to answer for."""
        return not self.closed and (self.intent is not None or self.run_id is not None)

    @property
    def schedule(self) -> str:
        """The schedule's name or slug."""
        return self.request.label

    def remaining_seconds(self, limit: float) -> float:
        """Return what is left of the time limit, in seconds; never more than the limit, whatever the clock says."""
        if self.deadline_at is None:
            return limit
        return min(limit, self.deadline_at - time.time())

    def trail(self) -> Trail:
        """Return the trail as kept with the ownership, to be added to."""
        return Trail(self.notes)

    def to_labels(self) -> dict[str, Any]:
        """Return the labels that keep this ownership; the second and third are for people."""
        labels: dict[str, Any] = {f"{LABEL_PREFIX}{self.key}": self.model_dump_json(exclude_none=True)}
        if self.key == FLOW_KEY:
            labels["paradime.schedule"] = self.schedule
            if self.run_id is not None:
                labels["paradime.run_id"] = self.run_id
        return labels


def read_ownerships(flow_run: FlowRun) -> list[Ownership]:
    """Return what a flow run answers for, by its labels; labels that are another flow run's do not count."""
    found = []
    labels: Mapping[str, Any] = flow_run.labels or {}
    for name, value in labels.items():
        if not name.startswith(LABEL_PREFIX):
            continue
        try:
            ownership = Ownership.model_validate_json(str(value))
        except ValidationError:
            continue
        if ownership.flow_run_id == flow_run.id:
            found.append(ownership)
    return found


async def write_ownership(ownership: Ownership) -> None:
    """Write an ownership to its flow run's labels."""
    async with get_client() as client:
        await client.update_flow_run_labels(ownership.flow_run_id, ownership.to_labels())


async def tag_flow_run(flow_run_id: UUID) -> None:
    """Tag a flow run so that the sweeper finds it."""
    async with get_client() as client:
        flow_run = await client.read_flow_run(flow_run_id)
        if TAG not in flow_run.tags:
            await client.update_flow_run(flow_run_id, tags=[*flow_run.tags, TAG])


class FlowRunLedger:
    """Writes intent and run id to the flow run (`paradime_blocks.trigger.RunLedger`).

    Args:
        ownership: What is written, and kept up to date.
        timeout_seconds: How long a run may take from its trigger, in seconds.
    """

    def __init__(self, ownership: Ownership, timeout_seconds: float) -> None:
        self.ownership = ownership
        self.timeout_seconds = timeout_seconds

    async def intend(self, request: TriggerRequest, intent: TriggerIntent) -> None:
        """Write down that a trigger is about to be sent.

        Raises:
            StoppedByPrefect: The flow run has been cancelled by now; nothing must be sent.
            Superseded: Another process has taken up the flow run by now, or one above it.
            Exception: Prefect could not be told; then nothing must be sent either.
        """
        ownership = self.ownership
        async with get_client() as client:
            # Nobody tells a script, and what was read of Bolt before this may have taken its time.
            reason = await reason_to_stop(client, ownership.flow_run_id)
        if reason is not None:
            raise StoppedByPrefect(reason)
        ownership.request, ownership.intent = request, intent
        ownership.run_id, ownership.state, ownership.owned = None, None, not ownership.left
        ownership.closed, ownership.reported = False, False
        await write_ownership(ownership)
        # Whoever takes up the flow run from now on finds the intent; who has done so before must be heard of.
        async with get_client() as client:
            await reason_to_stop(client, ownership.flow_run_id)

    async def started(self, run_id: int, *, adopted: bool) -> None:
        """Write down which run the trigger started."""
        del adopted  # the trail tells
        ownership = self.ownership
        ownership.run_id, ownership.state = run_id, BoltRunState.STARTING
        ownership.deadline_at = time.time() + self.timeout_seconds
        ownership.closed = ownership.left
        await self.save()

    async def attached(self, run_id: int) -> None:
        """Write down that a run which is not ours is waited for."""
        # Before the id is written: between the two, an interrupt would cancel somebody else's run.
        self.ownership.owned = False
        await self.started(run_id, adopted=False)

    async def withdraw(self) -> None:
        """Write down that nothing was started, so that nobody looks for a run."""
        self.ownership.intent = None
        await self.save()

    async def save(self) -> None:
        """Write after the fact: a Prefect that cannot be told must not lose us the run that there is."""
        try:
            await write_ownership(self.ownership)
        except Exception as error:  # noqa: BLE001
            run_logger().warning("Prefect could not be told of Bolt run %s: %s", self.ownership.run_id, error)

    async def close(self, state: BoltRunState | None, *, reported: bool) -> None:
        """Write down that nobody has to answer for the run any longer."""
        ownership = self.ownership
        ownership.state = state or ownership.state
        ownership.closed, ownership.reported = True, reported
        await self.save()
