"""Which flow runs stood in a flow run's place before: those that earlier attempts of the flows above it called there.

When a parent is begun again, Prefect makes a new flow run for a subflow that has not completed, or whose result
nobody kept; and what that one calls is new as well, down to the last. It numbers the subflows of a flow run as they
are called; for those that a task calls there is what they have written down (`paradime_flows.ledger.callers`).
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
    """Return the flow runs that stood in a flow run's place in earlier attempts of those above it, oldest first.

    One that has a process of its own may live.
    """
    return await _earlier_calls(client, flow_run, _GENERATIONS)


async def calls_by_tasks(client: PrefectClient, flow_run: FlowRun, caller: Caller) -> list[FlowRun]:
    """Return the other runs of a flow below the same parent, in this attempt of it or in earlier ones.

    Args:
        client: An open client.
        flow_run: The one that a task has called.
        caller: The task. In the first attempt of all there is nothing earlier, and nothing is asked for.
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
        # Nobody has numbered it: all that a task calls outside of a flow bear its one key.
        return await _earlier_calls_by_tasks(client, flow_run)
    parent = await client.read_flow_run(call.flow_run_id)
    parents = [*await _earlier_calls(client, parent, generations - 1), parent]
    calls = await _calls_of_that_name(client, call, parents)
    return same_calls(flow_run, call, parent, calls, await _called_by(client, calls))


def same_calls(
    flow_run: FlowRun, call: TaskRun, parent: FlowRun, calls: Iterable[TaskRun], called: Iterable[FlowRun]
) -> list[FlowRun]:
    """Return the flow runs that stood in a flow run's place before it, oldest first.

    Args:
        flow_run: The flow run.
        call: The task run that stands for it.
        parent: The flow run that has called it.
        calls: The task runs of that name and number, of the parent and of those that stood in the parent's place.
        called: The flow runs that these stand for.
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
        # Deployments that are called at once are numbered as the requests happen to arrive.
        found = [one for one in found if one.parameters == flow_run.parameters]
    return sorted(found, key=lambda one: str(one.created))


async def _earlier_calls_by_tasks(client: PrefectClient, flow_run: FlowRun) -> list[FlowRun]:
    caller = written_caller(flow_run)
    if caller is None:
        return []
    return same_calls_by_tasks(flow_run, caller, await calls_by_tasks(client, flow_run, caller))


def same_calls_by_tasks(flow_run: FlowRun, caller: Caller, others: Iterable[FlowRun]) -> list[FlowRun]:
    """Return one call of each earlier attempt: the first of equal ones for the first, the second for the second.

    Args:
        flow_run: The one that a task has called.
        caller: The task.
        others: The other runs of its flow, in this attempt and in earlier ones.
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
    """Return the flow run that stood in a flow run's place already as that began, if it goes on, or is to.

    One that a deployment has started outlives its parent, and can begin when the parent's next attempt has had
    another started in its place; so can the one above it that has called it. One that had begun before goes on until
    the other comes to take its place.

    Args:
        client: An open client.
        flow_run: The flow run.

    Returns:
        The one that is succeeded, which is the flow run or one above it, and the one that stands in its place.
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
    """Whether another flow run of the same call stood in the place of one already as that began, and is not over."""
    began = _began_at(one)
    is_same = other.flow_id == one.flow_id and other.parameters == one.parameters
    is_over = other.state is not None and other.state.is_final()
    was_there = began is not None and other.created is not None and other.created < began
    return is_same and not is_over and was_there and _comes_after(other, one)


def _began_at(flow_run: FlowRun) -> datetime | None:
    """Return when the body of a flow run began that runs now; None if none does."""
    state = flow_run.state
    return state.timestamp if state is not None and state.is_running() else None


def _comes_after(one: FlowRun, other: FlowRun) -> bool:
    """Whether a flow run was made after another one."""
    return one.created is not None and other.created is not None and one.created > other.created


async def _called_by(client: PrefectClient, calls: Iterable[TaskRun]) -> list[FlowRun]:
    """Return the flow runs that some task runs stand for."""
    these = FlowRunFilterParentTaskRunId(any_=[call.id for call in calls])
    return [one async for one in every_flow_run(client, FlowRunFilter(parent_task_run_id=these))]


def _is_same_call(
    one: TaskRun, call: TaskRun, parent: FlowRun, calls: Iterable[TaskRun], called: Iterable[FlowRun]
) -> bool:
    """Whether one of the calls of a name and number is the same as another, of another attempt or this one.

    Prefect's key of a flow is another one when a line is added above it, or its file lies elsewhere; and two flows of
    one name and number have two keys.
    """
    if one.task_key == call.task_key:
        return True
    if one.flow_run_id != parent.id:
        keys = {other.task_key for other in calls if other.flow_run_id == one.flow_run_id}
        return call.task_key not in keys
    # Both are the parent's: the key is another one since its present body began, and the old one is not used any more.
    state = parent.state
    if state is None or not state.is_running() or parent.run_count <= 1:
        return False

    def is_new(created: datetime | None) -> bool:
        return created is None or created >= state.timestamp

    is_used = any(is_new(other.created) for other in called if other.parent_task_run_id == one.id)
    return is_new(call.created) and not is_new(one.created) and not is_used


async def _calls_of_that_name(client: PrefectClient, call: TaskRun, parents: list[FlowRun]) -> list[TaskRun]:
    """Return the task runs of some flow runs that stand for a subflow of the same name and number."""
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
    """Return a call, and those that have its number, of some of its name."""
    return [call, *(one for one in found if one.dynamic_key == call.dynamic_key and one.id != call.id)]
