"""Which flow runs belong together: the one that called a flow run, and those that it called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterParentTaskRunId,
    TaskRunFilter,
    TaskRunFilterSubFlowRuns,
)
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort

_PAGE = 200
_GENERATIONS = 10


async def every_flow_run(client: PrefectClient, wanted: FlowRunFilter) -> AsyncIterator[FlowRun]:
    """Return all flow runs that a filter fits, page by page: Prefect answers with 200 at most.

    Args:
        client: An open client.
        wanted: The filter.

    Yields:
        Each flow run, once. Do nothing meanwhile that changes which fit, lest pages shift.
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
    """Iterate over a flow run and those above it, from the one that is called to those that call."""
    one: FlowRun | None = flow_run
    for _ in range(_GENERATIONS):
        if one is None:
            return
        yield one
        one = await parent_of(client, one)


def has_its_own_process(flow_run: FlowRun) -> bool:
    """Whether a flow run was started by a deployment: then no parent's body calls it, or calls it again."""
    return flow_run.deployment_id is not None


def is_suspended(flow_run: FlowRun) -> bool:
    """Whether a flow run is suspended; paused is another thing: its process waits in it."""
    state = flow_run.state
    return state is not None and state.is_paused() and state.name == "Suspended"


async def subflows_of(client: PrefectClient, flow_run_ids: Iterable[UUID]) -> list[FlowRun]:
    """Return the flow runs that some flow runs called as their subflows, ended ones as well."""
    parents = FlowRunFilterParentFlowRunId(any_=list(flow_run_ids))
    return [child async for child in every_flow_run(client, FlowRunFilter(parent_flow_run_id=parents))]


async def earlier_calls(client: PrefectClient, flow_run: FlowRun) -> list[FlowRun]:
    """Return the flow runs that stood in a flow run's place in earlier attempts of those above it, oldest first.

    When a parent is begun again, Prefect makes a new flow run for a subflow that has not completed, or whose result
    nobody kept; and what that one calls is new as well, down to the last.
    """
    return await _earlier_calls(client, flow_run, _GENERATIONS)


async def _earlier_calls(client: PrefectClient, flow_run: FlowRun, generations: int) -> list[FlowRun]:
    if flow_run.parent_task_run_id is None or not generations:
        return []
    call = await client.read_task_run(flow_run.parent_task_run_id)
    calls = [call.id]
    if call.flow_run_id is not None:
        parent = await client.read_flow_run(call.flow_run_id)
        earlier_parents = await _earlier_calls(client, parent, generations - 1)
        calls += [other.id async for other in _calls_of(client, earlier_parents) if _same_call(other, call)]
    wanted = FlowRunFilter(parent_task_run_id=FlowRunFilterParentTaskRunId(any_=calls))
    found = [one async for one in every_flow_run(client, wanted) if one.id != flow_run.id]
    return sorted(found, key=lambda one: str(one.created))


def _same_call(one: TaskRun, other: TaskRun) -> bool:
    return (one.task_key, one.dynamic_key) == (other.task_key, other.dynamic_key)


async def _calls_of(client: PrefectClient, parents: list[FlowRun]) -> AsyncIterator[TaskRun]:
    """Iterate over the task runs that stand for the subflows of some flow runs."""
    if not parents:
        return
    these = FlowRunFilter(id=FlowRunFilterId(any_=[parent.id for parent in parents]))
    subflows = TaskRunFilter(subflow_runs=TaskRunFilterSubFlowRuns(exists_=True))
    offset = 0
    while True:
        page = await client.read_task_runs(
            flow_run_filter=these,
            task_run_filter=subflows,
            sort=TaskRunSort.ID_DESC,
            limit=_PAGE,
            offset=offset,
        )
        for task_run in page:
            yield task_run
        if len(page) < _PAGE:
            return
        offset += len(page)
