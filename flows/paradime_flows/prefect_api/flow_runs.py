"""Reads flow runs from Prefect (parents, subflows, earlier states), and sets their final state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Crashed

from paradime_flows.prefect_api.shared_reads import read_flow_run, read_flow_runs
from paradime_flows.prefect_api.supervisor import the_supervisor
from paradime_flows.prefect_api.task_runs import end_left_task_runs

_PAGE = 200
_GENERATIONS = 10
_CANCELS = {StateType.CANCELLING, StateType.CANCELLED}


async def every_flow_run(client: PrefectClient, wanted: FlowRunFilter) -> AsyncIterator[FlowRun]:
    """Iterate over all flow runs that match a filter. Prefect returns at most 200 flow runs in one page.

    Args:
        client: An open Prefect client.
        wanted: The filter for the flow runs.

    Yields:
        Each flow run once. While you iterate, do not change flow runs in a way that changes which flow runs match the
        filter, because the pages would shift.
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


async def _parent_of(client: PrefectClient, flow_run: FlowRun) -> tuple[FlowRun, TaskRun] | None:
    """Return the flow run that has called a flow run as its subflow, and the task run that represents the subflow."""
    if flow_run.parent_task_run_id is None:
        return None
    call = await client.read_task_run(flow_run.parent_task_run_id)
    return None if call.flow_run_id is None else (await read_flow_run(client, call.flow_run_id), call)


async def lineage(client: PrefectClient, flow_run: FlowRun) -> AsyncIterator[FlowRun]:
    """Iterate over a flow run, its parent, the parent's parent and so on.

    Who called whom never changes. So only the first iteration costs two requests for each parent. Each later iteration
    costs one request for all parents.
    """
    yield flow_run
    known = the_supervisor().of(flow_run.id)
    if known.parents is not None:
        found = await read_flow_runs(client, known.parents)
        if found.keys() == set(known.parents):
            for parent_id in known.parents:
                yield found[parent_id]
            return
    parents: list[UUID] = []
    calls: list[TaskRun] = []
    above = await _parent_of(client, flow_run)
    while above is not None and len(parents) < _GENERATIONS:
        one, call = above
        parents.append(one.id)
        calls.append(call)
        yield one
        above = await _parent_of(client, one)
    known.parents, known.calls = parents, calls


async def family_of(
    client: PrefectClient, flow_run_id: UUID, found: Mapping[UUID, FlowRun] | None = None
) -> list[FlowRun]:
    """Return a flow run, its parent, the parent's parent and so on. If the parents are known, this takes one request.

    Args:
        client: An open client.
        flow_run_id: The flow run.
        found: The flow runs that were read just now; None to read the flow run and its known parents.

    Raises:
        ObjectNotFound: The flow run or one of its parents does not exist.
    """
    parents = the_supervisor().of(flow_run_id).parents
    members = [flow_run_id, *(parents or ())]
    if found is None:
        found = await read_flow_runs(client, members)
    if parents is not None and found.keys() >= set(members):
        return [found[member] for member in members]
    flow_run = found.get(flow_run_id) or await read_flow_run(client, flow_run_id)
    return [one async for one in lineage(client, flow_run)]


def is_first_attempt(flow_run: FlowRun) -> bool:
    """Whether a flow run was never retried, and never resumed after a suspension.

    Prefect does not count a resumption. But after a resumption, the state of the flow run is newer than the start of
    the flow run.
    """
    state, start = flow_run.state, flow_run.start_time
    resumed = state is not None and start is not None and state.timestamp > start
    return flow_run.run_count <= 1 and not resumed


def has_its_own_process(flow_run: FlowRun) -> bool:
    """Whether a deployment started the flow run.

    If so, the flow run does not run in the process of its parent, and a retry of the parent does not call it again.
    """
    return flow_run.deployment_id is not None


def is_over(flow_run: FlowRun) -> bool:
    """Whether a flow run has a final state."""
    return flow_run.state is not None and flow_run.state.is_final()


def is_suspended(flow_run: FlowRun) -> bool:
    """Whether a flow run is suspended. A paused flow run is not suspended, because its process is alive and waits."""
    state = flow_run.state
    return state is not None and state.is_paused() and state.name == "Suspended"


async def subflows_of(client: PrefectClient, flow_run_ids: Iterable[UUID]) -> list[FlowRun]:
    """Return the subflow runs of the given flow runs, even the subflow runs that have ended."""
    parents = FlowRunFilterParentFlowRunId(any_=list(flow_run_ids))
    return [child async for child in every_flow_run(client, FlowRunFilter(parent_flow_run_id=parents))]


async def state_types(client: PrefectClient, flow_run_id: UUID) -> list[StateType]:
    """Return the types of all states of a flow run, oldest first."""
    states = await client.read_flow_run_states(flow_run_id)
    return [state.type for state in sorted(states, key=lambda state: state.timestamp)]


async def set_final_state(client: PrefectClient, flow_run: FlowRun, message: str) -> bool:
    """Set the final state of a flow run that no process executes any more.

    The state is Cancelled if a cancel was requested, or else Crashed. A flow run that has already ended keeps its
    state, with one exception: if a cancel was requested before the flow run crashed, Cancelled replaces Crashed.
    The task runs that the process has left Running end as Crashed.

    Args:
        client: An open Prefect client.
        flow_run: The flow run. The caller has just read it from Prefect.
        message: The message of the new state.

    Returns:
        Whether the flow run was cancelled. A cancel that came after the caller read `flow_run` counts, too.
    """
    await end_left_task_runs(client, flow_run.id, message)
    seen = flow_run.state
    if seen is not None and seen.is_final() and not seen.is_crashed():
        return seen.is_cancelled()
    if seen is None or not seen.is_cancelling():
        if seen is None or not seen.is_crashed():
            await client.set_flow_run_state(flow_run.id, Crashed(message=message), force=True)
        # Crashed may have replaced the state of a cancel: the line above may have replaced this state just now, or the
        # process was killed before it noticed the cancel.
        if not _CANCELS.intersection((await state_types(client, flow_run.id))[-2:]):
            return False
    await client.set_flow_run_state(flow_run.id, Cancelled(message=message), force=True)
    return True
