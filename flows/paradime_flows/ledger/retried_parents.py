"""Finds the subflow runs that the same call in a flow's code has made in other attempts of the parent flow runs.

Each subflow run has a tag that is equal for the same call in all attempts: a hash of the outermost flow run and of the
path of calls from there. One request to Prefect finds all flow runs of a call.

Prefect numbers the calls that a flow makes. Prefect does not number the calls that a task makes, so this module counts
them. Calls with equal parameters count as equal. In several processes at once, two equal calls may get the same number.
So if a task is in the path, a second tag tells the calls of one attempt from those of other attempts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import anyio
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

from paradime_flows.ledger.callers import Caller, tasks_around
from paradime_flows.prefect_api import (
    ATTEMPT_TAG_PREFIX,
    CALL_TAG_PREFIX,
    FLOW_RUN_TAG,
    current_task_run_id,
    every_flow_run,
    has_its_own_process,
    is_first_attempt,
    lineage,
    the_supervisor,
    times,
)

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, TaskRun

_DIGITS: Final = 12
_WRITES_AT_MOST: Final = 5

# The name of the present call, instead of Prefect's number. A pipeline names its calls, because its next attempt may
# make other calls, or make them in another order.
call_name: ContextVar[str | None] = ContextVar("call_name", default=None)


@dataclass(frozen=True)
class Call:
    """The call that has made a subflow run.

    Attributes:
        place: The tag that is equal for this call in all attempts of the parents.
        attempt: The tag that is equal for the calls of one attempt; None if no task is in the path. If only flows are
            in the path, the place is enough: Prefect numbers the calls of a flow.
        is_first: Whether no other attempt can have made this call before.
    """

    place: str
    attempt: str | None
    is_first: bool


@dataclass(frozen=True)
class OtherCalls:
    """The flow runs that other attempts have made with the same call.

    Attributes:
        earlier: The flow runs of earlier attempts, newest first.
        replaced: A pair: the flow run itself or one of its parents, and the newer flow run that has replaced it. None
            if there is no such pair.
    """

    earlier: tuple[FlowRun, ...] = ()
    replaced: tuple[FlowRun, FlowRun] | None = None


async def enter(
    client: PrefectClient, family: Sequence[FlowRun], more_tags: Sequence[str] = ()
) -> OtherCalls:
    """Tag a flow run, so that the sweeper and later attempts find it, and find the flow runs of the same call.

    The tags are written before the search. So of two flow runs that begin at once, at least one finds the other.

    Args:
        client: An open client.
        family: The flow run and its parents, as just read from Prefect.
        more_tags: Further tags, by which people find the flow run.
    """
    flow_run = family[0]
    call = call_of(family, the_supervisor().of(flow_run.id).calls)
    wanted = [FLOW_RUN_TAG, *more_tags, *(tag for tag in (call and call.place, call and call.attempt) if tag)]
    await _tag(client, flow_run, wanted)
    if call is None or call.is_first:
        return OtherCalls()
    return await _other_calls(client, family, call)


async def _tag(client: PrefectClient, flow_run: FlowRun, wanted: Sequence[str]) -> None:
    """Add tags to a flow run.

    Prefect replaces all tags of a flow run. Parallel tasks of a flow add tags at the same time. So a task reads the
    tags just before it writes them, and reads them again afterwards.
    """
    in_task = current_task_run_id() is not None
    for _ in range(_WRITES_AT_MOST):
        flow_run = await client.read_flow_run(flow_run.id) if in_task else flow_run
        kept = [tag for tag in flow_run.tags if not tag.startswith((CALL_TAG_PREFIX, ATTEMPT_TAG_PREFIX))]
        tags = list(dict.fromkeys([*kept, *wanted]))
        if set(tags) == set(flow_run.tags):
            return
        await client.update_flow_run(flow_run.id, tags=tags)
        if not in_task:
            return
        await anyio.sleep(times().other_writes_seconds)


def call_of(family: Sequence[FlowRun], calls: Sequence[TaskRun]) -> Call | None:
    """Return the call that has made a flow run; None if nothing has called it, or if its caller is unknown.

    If a task has called a deployment, the process of the deployment's flow run cannot see the task. In this case, the
    path begins at the deployment's flow run.

    Args:
        family: The flow run and its parents.
        calls: The task runs that represent the flow run in its caller, its parent in the parent's caller, and so on.
    """
    root, is_first = family[-1], True
    path: list[object] = []
    attempts: list[object] = []
    for child, parent, call in reversed(list(zip(family, family[1:], calls, strict=False))):
        is_first = is_first and is_first_attempt(parent) and not has_its_own_process(child)
        if call.dynamic_key.isdigit():
            name = call_name.get() if child is family[0] else None
            path.append(_step_by_flow(child, call, name or call.dynamic_key))
            if attempts:
                attempts.append(parent.state and parent.state.id)
        elif (tasks := tasks_around(parent.id)) is not None:
            path.append(_step_by_task(child, tasks))
            attempts.append(tasks)
            is_first = is_first and tasks.is_first
        else:
            root, path, attempts = child, [], []
    if not path:
        return None
    return Call(
        place=CALL_TAG_PREFIX + _hash(root.id, *path),
        attempt=ATTEMPT_TAG_PREFIX + _hash(*attempts) if attempts else None,
        is_first=is_first,
    )


def _step_by_flow(child: FlowRun, call: TaskRun, name: str) -> object:
    # Prefect's key of a flow ends with a hash of its file and line, which may change before the next attempt.
    function = call.task_key.rpartition("-")[0]
    # If deployments are called in parallel, Prefect numbers them in the order in which the requests arrive.
    parameters = _hash(child.parameters) if has_its_own_process(child) else ""
    return (child.flow_id, function, name, parameters)


def _step_by_task(child: FlowRun, tasks: Caller) -> object:
    """Return the step of a path from tasks to the flow run that they have called.

    Each attempt of the flow run, or of a task, counts its calls from the beginning again. So a retried task, and its
    first call, get their old numbers again.
    """
    step = (child.flow_id, tasks.tasks[0].task_key.rpartition("-")[0], _hash(child.parameters))
    attempts = [(task.task_run_id, task.number) for task in tasks.tasks]
    around = [(step, attempt) for attempt in (tasks.flow_run_attempt, *attempts)]
    members = [*(task.task_run_id for task in tasks.tasks), child.id]
    numbers = the_supervisor().number_call(
        tasks.flow_run_id, child.id, list(zip(around, members, strict=True))
    )
    return (*step, *numbers)


async def _other_calls(client: PrefectClient, family: Sequence[FlowRun], call: Call) -> OtherCalls:
    these = FlowRunFilter(tags=FlowRunFilterTags(all_=[call.place]))
    # A flow run that a person has copied has the tags, too, but no parent.
    found = [
        one
        async for one in every_flow_run(client, these)
        if one.id != family[0].id and one.parent_task_run_id is not None and call.attempt not in one.tags
    ]
    earlier = []
    for other in sorted(found, key=lambda one: str(one.created), reverse=True):
        ours, theirs = await _where_they_differ(client, family, other)
        if _is_later(theirs, ours):
            return OtherCalls(replaced=(ours, theirs))
        earlier.append(other)
    return OtherCalls(tuple(earlier))


async def _where_they_differ(
    client: PrefectClient, family: Sequence[FlowRun], other: FlowRun
) -> tuple[FlowRun, FlowRun]:
    """Return the outermost flow runs in which two calls differ: first the flow run of our call, then the other one.

    A flow run of a deployment can outlive its parent, and may then be replaced by another flow run. So the old flow run
    can make its calls after the new flow run has made the same calls. A flow run that is over counts as earlier.
    """
    may_be_newer = any(has_its_own_process(one) for one in family)
    if may_be_newer and not (other.state is not None and other.state.is_final()):
        theirs = [one async for one in lineage(client, other)]
        for one, another in zip(reversed(family), reversed(theirs), strict=False):
            if one.id != another.id:
                return one, another
    return family[0], other


def _is_later(one: FlowRun, other: FlowRun) -> bool:
    """Whether a flow run is not over, and was created after another flow run."""
    is_over = one.state is not None and one.state.is_final()
    return (
        not is_over and one.created is not None and other.created is not None and one.created > other.created
    )


def _hash(*parts: object) -> str:
    return sha256(repr(parts).encode()).hexdigest()[:_DIGITS]
