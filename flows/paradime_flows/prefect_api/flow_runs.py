"""Which flow runs belong together: the one that called a flow run, and those that it called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

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
