"""Reads flow runs from Prefect (parents, subflows, earlier states), and sets their final state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Crashed

_PAGE = 200
_GENERATIONS = 10
_CANCELS = {StateType.CANCELLING, StateType.CANCELLED}


async def every_flow_run(client: PrefectClient, wanted: FlowRunFilter) -> AsyncIterator[FlowRun]:
    """Return all flow runs that match a filter, page by page, because Prefect returns at most 200 at once.

    Args:
        client: An open client.
        wanted: The filter.

    Yields:
        Each flow run, once. While you iterate, do not change flow runs so that others match the filter: the pages
        would shift.
    """
    seen = set()
    offset = 0
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=wanted, sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=offset
        )
        for flow_run in page:
            if flow_run.id not in seen:
                seen.add(flow_run.id)
                yield flow_run
        if len(page) < _PAGE:
            return
        offset += len(page)


async def parent_of(client: PrefectClient, flow_run: FlowRun) -> FlowRun | None:
    """Return the flow run that called a flow run as its subflow."""
    if flow_run.parent_task_run_id is None:
        return None
    task_run = await client.read_task_run(flow_run.parent_task_run_id)
    return None if task_run.flow_run_id is None else await client.read_flow_run(task_run.flow_run_id)


async def lineage(client: PrefectClient, flow_run: FlowRun) -> AsyncIterator[FlowRun]:
    """Iterate over a flow run and its parents, from the flow run upwards."""
    one: FlowRun | None = flow_run
    for _ in range(_GENERATIONS):
        if one is None:
            return
        yield one
        one = await parent_of(client, one)


def has_its_own_process(flow_run: FlowRun) -> bool:
    """Whether a deployment started the flow run. Then its parent does not execute it, and does not call it again."""
    return flow_run.deployment_id is not None


def is_suspended(flow_run: FlowRun) -> bool:
    """Whether a flow run is suspended. A paused flow run is not suspended: its process waits."""
    state = flow_run.state
    return state is not None and state.is_paused() and state.name == "Suspended"


async def subflows_of(client: PrefectClient, flow_run_ids: Iterable[UUID]) -> list[FlowRun]:
    """Return the subflows of some flow runs, also those that have ended."""
    parents = FlowRunFilterParentFlowRunId(any_=list(flow_run_ids))
    return [child async for child in every_flow_run(client, FlowRunFilter(parent_flow_run_id=parents))]


async def state_types(client: PrefectClient, flow_run_id: UUID) -> list[StateType]:
    """Return the types of all states of a flow run, oldest first."""
    states = await client.read_flow_run_states(flow_run_id)
    return [state.type for state in sorted(states, key=lambda state: state.timestamp)]


async def set_final_state(client: PrefectClient, flow_run: FlowRun, message: str) -> bool:
    """Set the final state of a flow run that no process executes any more.

    The state is Cancelled if a cancel was requested, or else Crashed. A flow run that has already ended keeps its
    state. The one exception: if a cancel was requested before the flow run crashed, Crashed is replaced by Cancelled.

    Args:
        client: An open client.
        flow_run: The flow run, as just read.
        message: The message of the state.

    Returns:
        Whether the flow run was cancelled. A cancel after `flow_run` was read counts, too.
    """
    seen = flow_run.state
    if seen is not None and seen.is_final() and not seen.is_crashed():
        return seen.is_cancelled()
    if seen is None or not seen.is_cancelling():
        if seen is None or not seen.is_crashed():
            await client.set_flow_run_state(flow_run.id, Crashed(message=message), force=True)
        # The state Crashed may have replaced the state of a cancel: we may have done so just now, or a process that
        # was killed before it noticed the cancel.
        if not _CANCELS.intersection((await state_types(client, flow_run.id))[-2:]):
            return False
    await client.set_flow_run_state(flow_run.id, Cancelled(message=message), force=True)
    return True
