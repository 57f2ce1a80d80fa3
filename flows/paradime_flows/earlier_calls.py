"""Which flow runs stood in a flow run's place before: those that earlier attempts of the flows above it called there.

When a parent is begun again, Prefect makes a new flow run for a subflow that has not completed, or whose result
nobody kept; and what that one calls is new as well, down to the last. It numbers the subflows of a flow run as they
are called, but not those that a task calls: such a flow run writes down who has called it, in which attempt (`Caller`).
"""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentTaskRunId,
    TaskRunFilter,
    TaskRunFilterName,
)
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import TaskRunSort
from prefect.context import FlowRunContext, TaskRunContext
from pydantic import BaseModel

from paradime_flows.family import every_flow_run, has_its_own_process, subflows_of

_GENERATIONS = 10
_PAGE = 200


class Caller(BaseModel):
    """The task that has called a flow as its subflow.

    Attributes:
        flow_run_id: The task's flow run.
        flow_run_attempt: Which attempt of that one it was.
        task_run_id: The task run.
        task_run_attempt: Which attempt of the task it was.
    """

    flow_run_id: UUID
    flow_run_attempt: int
    task_run_id: UUID
    task_run_attempt: int

    def comes_after(self, other: Caller) -> bool:
        """Whether another call was made in an attempt before this one, of the flow or of the task."""
        if self.flow_run_id != other.flow_run_id:
            return False
        if self.task_run_id == other.task_run_id:
            return self.task_run_attempt > other.task_run_attempt
        return self.flow_run_attempt > other.flow_run_attempt


def current_caller() -> Caller | None:
    """Return the task that has called the present flow; None if a flow has, or a deployment."""
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    if flow is None or flow.flow_run is None or task is None:
        return None
    task_run = task.task_run
    if task_run.flow_run_id in {None, flow.flow_run.id} or flow.flow_run.parent_task_run_id is None:
        return None
    return Caller(
        flow_run_id=task_run.flow_run_id,
        flow_run_attempt=task_run.flow_run_run_count,
        task_run_id=task_run.id,
        task_run_attempt=task_run.run_count,
    )


async def earlier_calls(client: PrefectClient, flow_run: FlowRun) -> list[FlowRun]:
    """Return the flow runs that stood in a flow run's place in earlier attempts of those above it, oldest first.

    One that has a process of its own may live.
    """
    return await _earlier_calls(client, flow_run, _GENERATIONS)


async def calls_by_tasks(client: PrefectClient, flow_run: FlowRun) -> list[FlowRun]:
    """Return the other runs of a flow below the same parent, in this attempt of it or in earlier ones."""
    if flow_run.parent_task_run_id is None:
        return []
    call = await client.read_task_run(flow_run.parent_task_run_id)
    if call.flow_run_id is None:
        return []
    parent = await client.read_flow_run(call.flow_run_id)
    parents = [parent.id, *(one.id for one in await earlier_calls(client, parent))]
    found = await subflows_of(client, parents)
    return [one for one in found if one.id != flow_run.id and one.flow_id == flow_run.flow_id]


async def _earlier_calls(client: PrefectClient, flow_run: FlowRun, generations: int) -> list[FlowRun]:
    if flow_run.parent_task_run_id is None or not generations:
        return []
    call = await client.read_task_run(flow_run.parent_task_run_id)
    if call.flow_run_id is None or not call.dynamic_key.isdigit():
        # Nobody has numbered it: all that a task calls outside of a flow bear its one key.
        return []
    parent = await client.read_flow_run(call.flow_run_id)
    parents = [*await _earlier_calls(client, parent, generations - 1), parent]
    calls = await _same_calls(client, call, parents)
    wanted = FlowRunFilter(parent_task_run_id=FlowRunFilterParentTaskRunId(any_=[one.id for one in calls]))
    found = [
        one
        async for one in every_flow_run(client, wanted)
        if one.id != flow_run.id and one.flow_id == flow_run.flow_id
    ]
    if has_its_own_process(flow_run):
        # Deployments that are called at once are numbered as the requests happen to arrive.
        found = [one for one in found if one.parameters == flow_run.parameters]
    return sorted(found, key=lambda one: str(one.created))


async def _same_calls(client: PrefectClient, call: TaskRun, parents: list[FlowRun]) -> list[TaskRun]:
    """Return the task runs that stand for the same call of a subflow in some flow runs.

    Prefect's key of a flow changes with each line that is added above it, so names are compared.
    """
    these = FlowRunFilter(id=FlowRunFilterId(any_=[parent.id for parent in parents]))
    named = TaskRunFilter(name=TaskRunFilterName(any_=[call.name]))
    found: list[TaskRun] = []
    while True:
        page = await client.read_task_runs(
            flow_run_filter=these,
            task_run_filter=named,
            sort=TaskRunSort.ID_DESC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            break
    return [call, *(one for one in found if one.dynamic_key == call.dynamic_key and one.id != call.id)]
