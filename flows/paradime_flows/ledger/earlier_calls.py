"""Finds the flow runs of the same call in earlier attempts of the parents.

When a parent is retried, Prefect makes a new flow run for a subflow that has not completed, or whose result was not
persisted. All subflows of this new flow run are new, too. Prefect numbers the subflows of a flow run in the order of
the calls. If a task calls a subflow, a label of the subflow names the task (`paradime_flows.ledger.callers`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

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

from paradime_flows.ledger.callers import Caller, written_caller
from paradime_flows.prefect_api import every_flow_run, has_its_own_process, lineage, subflows_of

_GENERATIONS = 10
_PAGE = 200


async def earlier_calls(client: PrefectClient, flow_run: FlowRun) -> list[FlowRun]:
    """Return the flow runs of the same call in earlier attempts of the parents, oldest first.

    A flow run that has its own process may still be running.
    """
    return await _earlier_calls(client, flow_run, _GENERATIONS)


async def calls_by_tasks(client: PrefectClient, flow_run: FlowRun, caller: Caller) -> list[FlowRun]:
    """Return the other flow runs of the same flow under the same parent, in this or an earlier attempt of the parent.

    Args:
        client: An open client.
        flow_run: The flow run that a task has called.
        caller: The task. The very first attempt has no earlier calls, so Prefect is not asked for them.
    """
    parent = await client.read_flow_run(caller.flow_run_id)
    earlier = await earlier_calls(client, parent)
    if caller.is_first and not earlier:
        return []
    found = await subflows_of(client, [one.id for one in [*earlier, parent]])
    return [one for one in found if one.id != flow_run.id and one.flow_id == flow_run.flow_id]


async def _earlier_calls(client: PrefectClient, flow_run: FlowRun, generations: int) -> list[FlowRun]:
    if flow_run.parent_task_run_id is None or not generations:
        return []
    call = await client.read_task_run(flow_run.parent_task_run_id)
    if call.flow_run_id is None:
        return []
    if not call.dynamic_key.isdigit():
        # A task made this call. Prefect does not number the calls of a task: all have the same key.
        return await _earlier_calls_by_tasks(client, flow_run)
    parent = await client.read_flow_run(call.flow_run_id)
    parents = [*await _earlier_calls(client, parent, generations - 1), parent]
    calls = await _calls_of_that_name(client, call, parents)
    return same_calls(flow_run, call, parent, calls, await _called_by(client, calls))


def same_calls(
    flow_run: FlowRun, call: TaskRun, parent: FlowRun, calls: Iterable[TaskRun], called: Iterable[FlowRun]
) -> list[FlowRun]:
    """Return the earlier flow runs of the same call as a flow run, oldest first.

    Args:
        flow_run: The flow run.
        call: The task run that represents the flow run in its parent.
        parent: The parent, which is the flow run that has called it.
        calls: The task runs with the same name and number as `call`, of the parent and of the parent's earlier calls.
        called: The flow runs that `calls` represent.
    """
    calls = list(calls)
    called = [one for one in called if one.id != flow_run.id and one.flow_id == flow_run.flow_id]
    same = {one.id: one.flow_run_id for one in calls if _is_same_call(one, call, parent, calls, called)}
    found = [
        one
        for one in called
        if one.parent_task_run_id in same
        and (same[one.parent_task_run_id] != parent.id or _comes_after(flow_run, one))
    ]
    if has_its_own_process(flow_run):
        # If deployments are called in parallel, Prefect numbers them in the order in which the requests arrive.
        found = [one for one in found if one.parameters == flow_run.parameters]
    return sorted(found, key=lambda one: str(one.created))


async def _earlier_calls_by_tasks(client: PrefectClient, flow_run: FlowRun) -> list[FlowRun]:
    caller = written_caller(flow_run)
    if caller is None:
        return []
    return same_calls_by_tasks(flow_run, caller, await calls_by_tasks(client, flow_run, caller))


def same_calls_by_tasks(flow_run: FlowRun, caller: Caller, others: Iterable[FlowRun]) -> list[FlowRun]:
    """Return one call of each earlier attempt. If an attempt made equal calls, return the call at the same position.

    Args:
        flow_run: The flow run that a task has called.
        caller: The task.
        others: The other flow runs of the same flow, in this attempt and in earlier attempts.
    """
    calls = [
        (theirs, one)
        for one in others
        if one.parameters == flow_run.parameters and (theirs := written_caller(one)) is not None
    ]
    calls.sort(key=lambda call: str(call[1].created))
    before = [theirs for theirs, one in calls if _comes_after(flow_run, one)]
    attempts: dict[tuple[int, str], list[FlowRun]] = {}
    for theirs, one in calls:
        level = 0 if theirs.flow_run_id != caller.flow_run_id else caller.level_retried_since(theirs)
        if level is not None:
            attempts.setdefault((level, theirs.numbers(level)), []).append(one)
    found = []
    for (level, _), equal in attempts.items():
        number = sum(theirs.numbers(level) == caller.numbers(level) for theirs in before)
        found += equal[number : number + 1]
    return sorted(found, key=lambda one: str(one.created))


async def newer_call(client: PrefectClient, flow_run: FlowRun) -> tuple[FlowRun, FlowRun] | None:
    """Return the newer flow run of the same call, if it existed before the given flow run, or its parent, began.

    A flow run that a deployment started can outlive its parent. So the flow run can begin late: after the parent's next
    attempt has started a newer flow run of the same call. The same is true for each parent of the flow run. A flow run
    that began before the newer flow run was created continues until the newer flow run takes its lease.

    Args:
        client: An open client.
        flow_run: The flow run.

    Returns:
        The replaced flow run, which is the given flow run or one of its parents, and the newer flow run that replaces
        it; None if nothing was replaced.
    """
    async for one in lineage(client, flow_run):
        if not has_its_own_process(one) or one.parent_task_run_id is None or _began_at(one) is None:
            continue
        call = await client.read_task_run(one.parent_task_run_id)
        if call.flow_run_id is None or not call.dynamic_key.isdigit():
            continue
        for other in await _called_by(client, [call]):
            if is_in_its_place(other, one):
                return one, other
    return None


def is_in_its_place(other: FlowRun, one: FlowRun) -> bool:
    """Whether `other` is a newer flow run of the same call, existed before `one` began, and is not over."""
    began = _began_at(one)
    is_same = other.flow_id == one.flow_id and other.parameters == one.parameters
    is_over = other.state is not None and other.state.is_final()
    was_there = began is not None and other.created is not None and other.created < began
    return is_same and not is_over and was_there and _comes_after(other, one)


def _began_at(flow_run: FlowRun) -> datetime | None:
    """Return when the current execution of a flow run began; None if it is not running."""
    state = flow_run.state
    return state.timestamp if state is not None and state.is_running() else None


def _comes_after(one: FlowRun, other: FlowRun) -> bool:
    """Whether a flow run was created after another one."""
    return one.created is not None and other.created is not None and one.created > other.created


async def _called_by(client: PrefectClient, calls: Iterable[TaskRun]) -> list[FlowRun]:
    """Return the flow runs that the given task runs represent."""
    these = FlowRunFilterParentTaskRunId(any_=[call.id for call in calls])
    return [one async for one in every_flow_run(client, FlowRunFilter(parent_task_run_id=these))]


def _is_same_call(
    one: TaskRun, call: TaskRun, parent: FlowRun, calls: Iterable[TaskRun], called: Iterable[FlowRun]
) -> bool:
    """Whether two calls of the same name and number are the same call, in this attempt or in another attempt.

    Two flows with the same name have different keys in Prefect. But the key of a flow also changes if a line is added
    before the flow in its file, or if the file is moved.
    """
    if one.task_key == call.task_key:
        return True
    if one.flow_run_id != parent.id:
        keys = {other.task_key for other in calls if other.flow_run_id == one.flow_run_id}
        return call.task_key not in keys
    # Both calls belong to the parent. They are the same call if the key has changed: the old call was made before the
    # parent's current execution began, the new call was made since, and no call since then has used the old key.
    state = parent.state
    if state is None or not state.is_running() or parent.run_count <= 1:
        return False

    def is_new(created: datetime | None) -> bool:
        return created is None or created >= state.timestamp

    is_used = any(is_new(other.created) for other in called if other.parent_task_run_id == one.id)
    return is_new(call.created) and not is_new(one.created) and not is_used


async def _calls_of_that_name(client: PrefectClient, call: TaskRun, parents: list[FlowRun]) -> list[TaskRun]:
    """Return the task runs of the given parents that represent a subflow of the same name and number as `call`."""
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
    return of_its_number(call, found)


def of_its_number(call: TaskRun, found: Iterable[TaskRun]) -> list[TaskRun]:
    """Return a call, and the calls of the same name that have the same number."""
    return [call, *(one for one in found if one.dynamic_key == call.dynamic_key and one.id != call.id)]
