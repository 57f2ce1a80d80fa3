"""The flow `sweep_orphans`: finds Bolt runs that no flow run waits for any longer."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Annotated, Literal
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed
from pydantic import BaseModel, Field

from paradime_blocks.credentials import ParadimeCredentials
from paradime_blocks.errors import BoltError
from paradime_blocks.models import BoltRunState, run_url
from paradime_blocks.run import BoltRun
from paradime_blocks.schedule import TIMEOUT_SECONDS
from paradime_blocks.trail import Trail
from paradime_blocks.trigger import Verdict
from paradime_flows.artifacts import ArtifactWriter
from paradime_flows.calling import async_form, bolt_flow
from paradime_flows.context import current_flow_run_id, resolve_credentials, run_logger
from paradime_flows.family import every_flow_run
from paradime_flows.liveness import STALE_SECONDS, silent_seconds
from paradime_flows.ownership import TAG, FlowRunLedger, Ownership, read_ownerships
from paradime_flows.parameters import CredentialsParameter
from paradime_flows.settle import archive_ownership, find_run, settle

SweepAction = Literal["cancel", "attach", "report"]

_AT_ONCE = 8
_LOOK_SECONDS = 5.0
_ENDED_BADLY = {StateType.CRASHED, StateType.CANCELLED, StateType.FAILED}
_SWEPT = [*_ENDED_BADLY, StateType.RUNNING, StateType.CANCELLING]


class SweptRun(BaseModel):
    """What the sweep found of one flow run, and did.

    Attributes:
        flow_run_id: The flow run.
        flow_run_name: Its name.
        flow_run_state: The state that Prefect holds it for.
        schedule_name: The schedule that it ran.
        run_id: The Bolt run; None if it could not be told.
        state: The Bolt run's state after the sweep; None if it could not be told.
        done: What was done, as a sentence.
    """

    flow_run_id: UUID
    flow_run_name: str
    flow_run_state: str
    schedule_name: str
    run_id: int | None = None
    state: BoltRunState | None = None
    done: str = ""


@bolt_flow(
    name="sweep-orphans",
    description="Finds Bolt runs whose flow run has crashed, ended or vanished, and cancels or takes them up.",
)
async def sweep_orphans(
    credentials: CredentialsParameter = None,
    *,
    action: SweepAction = "cancel",
    older_than_seconds: Annotated[float, Field(ge=0, le=30 * 86_400)] = 900,
    lookback_days: Annotated[float, Field(gt=0, le=365)] = 14,
) -> list[SweptRun]:
    """Find flow runs that are over, or silent, while they still answer for a Bolt run, and act on those.

    Safe to repeat, and for several at once. Each flow run is read again right before anything is done.

    Args:
        credentials: A Paradime Credentials block or the name of one; only Bolt runs of its workspace are swept.
            Empty: the environment's.
        action: cancel: cancel the Bolt run; attach: wait for its end and archive it to its flow run; report:
            only tell.
        older_than_seconds: How long the flow run must have been over or silent, in seconds: the wait gives a
            retry the time to take the run up again.
        lookback_days: How old a flow run may be at most, in days.

    Returns:
        What was found and done, one entry for each Bolt run.

    Example:
        ```python
        from paradime_flows.sweep_orphans import sweep_orphans

        for found in sweep_orphans(action="report"):
            print(found.flow_run_name, found.run_id, found.state)
        ```
    """
    found = await resolve_credentials(credentials)
    sweep = _Sweep(found, action, older_than_seconds)
    async with get_client() as client:
        flow_runs = await _candidates(client, timedelta(days=lookback_days))
        orphans = [flow_run for flow_run in flow_runs if sweep.is_orphan(flow_run)]
        run_logger().info("%d flow runs looked at, %d to be swept.", len(flow_runs), len(orphans))
        limiter = anyio.CapacityLimiter(_AT_ONCE)

        async def one(flow_run: FlowRun) -> None:
            async with limiter:
                await sweep.sweep(client, flow_run.id)

        async with anyio.create_task_group() as group:
            for flow_run in orphans:
                group.start_soon(one, flow_run)
    swept = sorted(sweep.swept, key=lambda entry: (entry.schedule_name, str(entry.flow_run_id)))
    await ArtifactWriter(current_flow_run_id()).table(
        "paradime-orphans", _rows(swept), _described(swept, action)
    )
    return swept


asweep_orphans = async_form(sweep_orphans)


async def _candidates(client: PrefectClient, lookback: timedelta) -> list[FlowRun]:
    """Return all tagged flow runs in a state to be swept; acting comes later, lest pages shift."""
    since = datetime.now(timezone.utc) - lookback
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_SWEPT)),
        expected_start_time=FlowRunFilterExpectedStartTime(after_=since),
    )
    return [
        flow_run
        async for flow_run in every_flow_run(client, wanted)
        if any(ownership.is_open for ownership in read_ownerships(flow_run))
    ]


class _Sweep:
    """One sweep: judges flow runs and settles what they answer for."""

    def __init__(
        self, credentials: ParadimeCredentials, action: SweepAction, older_than_seconds: float
    ) -> None:
        self.credentials = credentials
        self.action = action
        self.older_than_seconds = older_than_seconds
        self.swept: list[SweptRun] = []

    def is_orphan(self, flow_run: FlowRun) -> bool:
        """Whether a flow run has been over or silent for long enough while it answers for a run of this workspace."""
        return bool(self._open(flow_run)) and self._idle_seconds(flow_run) >= self.older_than_seconds

    def _open(self, flow_run: FlowRun) -> list[Ownership]:
        return [
            ownership
            for ownership in read_ownerships(flow_run)
            if ownership.is_open
            and ownership.owned
            and ownership.api_endpoint == self.credentials.api_endpoint
        ]

    def _idle_seconds(self, flow_run: FlowRun) -> float:
        state = flow_run.state
        if state is None:
            return -1
        since_state = (datetime.now(timezone.utc) - state.timestamp).total_seconds()
        silent = silent_seconds(flow_run)
        if state.type in _ENDED_BADLY:
            # A worker can write a crash when the flow run has been retried already.
            lives = silent is not None and silent <= STALE_SECONDS and state.type is not StateType.CANCELLED
            return -1 if lives else since_state
        if silent is None:
            # It has not come to waiting yet, so only time can tell.
            return since_state if since_state > STALE_SECONDS else -1
        return silent if silent > STALE_SECONDS else -1

    async def sweep(self, client: PrefectClient, flow_run_id: UUID) -> None:
        """Read a flow run again, and act on it if it still is an orphan."""
        flow_run = await client.read_flow_run(flow_run_id)
        if flow_run.state is None or flow_run.state.type not in _SWEPT or not self.is_orphan(flow_run):
            return
        for ownership in self._open(flow_run):
            entry = SweptRun(
                flow_run_id=flow_run.id,
                flow_run_name=flow_run.name,
                flow_run_state=flow_run.state.name or flow_run.state.type.value,
                schedule_name=ownership.schedule,
            )
            try:
                await self._act(entry, ownership)
            except BoltError as error:
                entry.done = f"not done: {error.what}"
                run_logger().error("%s", error)
            entry.run_id = ownership.run_id
            self.swept.append(entry)
        if self.action != "report" and flow_run.state.type in {StateType.RUNNING, StateType.CANCELLING}:
            message = "The process of this flow run has vanished; its Bolt runs were swept."
            await client.set_flow_run_state(flow_run.id, Crashed(message=message), force=True)

    async def _act(self, entry: SweptRun, ownership: Ownership) -> None:
        why = f"The sweeper found the flow run {entry.flow_run_state} while its Bolt run was not settled."
        if self.action == "cancel":
            entry.state = await settle(ownership, self.credentials, why)
            entry.done = _done(ownership, entry.state)
            return
        verdict = await find_run(ownership, self.credentials, Trail(ownership.notes), seconds=_LOOK_SECONDS)
        if verdict is not Verdict.FOUND or ownership.run_id is None:
            entry.done = (
                "no Bolt run was started" if verdict is Verdict.ABSENT else "the Bolt run cannot be told"
            )
            if verdict is Verdict.ABSENT and self.action == "attach":
                await FlowRunLedger(ownership, 0).withdraw()
            return
        run = BoltRun(ownership.run_id, self.credentials, ownership.schedule)
        if self.action == "report":
            entry.state = await run.astate()
            entry.done = "reported only"
            return
        entry.state = await run.await_for_completion(max(1.0, ownership.remaining_seconds(TIMEOUT_SECONDS)))
        ownership.state = entry.state
        ownership.notes.append((datetime.now(timezone.utc).isoformat(timespec="seconds"), why))
        await archive_ownership(ownership, self.credentials, outcome=why)
        await FlowRunLedger(ownership, 0).close(entry.state, reported=False)
        entry.done = f"waited for, ended as {entry.state}, archived"


def _done(ownership: Ownership, state: BoltRunState | None) -> str:
    if ownership.run_id is None:
        return "no Bolt run was started" if not ownership.is_open else "the Bolt run cannot be told"
    if state == BoltRunState.CANCELED:
        return "cancelled"
    return f"had ended by itself as {state}" if state is not None else "left as it is"


def _rows(swept: list[SweptRun]) -> list[dict[str, object]]:
    return [
        {
            "Schedule": entry.schedule_name,
            "Flow run": entry.flow_run_name,
            "State in Prefect": entry.flow_run_state,
            "Bolt run": entry.run_id or "",
            "State in Bolt": str(entry.state or ""),
            "Done": entry.done,
            "Page": run_url(entry.run_id) if entry.run_id else "",
        }
        for entry in swept
    ]


def _described(swept: list[SweptRun], action: SweepAction) -> str:
    return f"{len(swept)} Bolt runs without a flow run to wait for them; action: {action}."
