"""Finds the subflow runs that the same call in a flow's code has made in other attempts of the parents (README.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.context import ContextModel, FlowRunContext, TaskRunContext

from paradime_flows.ledger.store import WRITES_AT_MOST
from paradime_flows.prefect_api import (
    current_execution,
    current_task_run_id,
    every_flow_run,
    has_its_own_process,
    is_first_attempt,
    is_over,
    lineage,
    the_supervisor,
    times,
)
from paradime_flows.prefect_api.labels import ATTEMPT_TAG_PREFIX, CALL_TAG_PREFIX, FLOW_RUN_TAG

# The name of the present call, instead of Prefect's number. A pipeline names its calls, because its next attempt may
# make other calls, or make them in another order.
call_name: ContextVar[str | None] = ContextVar("call_name", default=None)


class Call(NamedTuple):
    """The call that has made a subflow run."""

    # The tag that is equal for this call in all attempts of the parents, and for equal calls that tasks make.
    place: str
    # The attempts in which tasks have made the call (`are_of_two_attempts`); empty if no task is in the path.
    attempts: str
    # Whether no other attempt can have made this call before.
    is_first: bool


def are_of_two_attempts(one: str, other: str) -> bool:
    """Whether a flow run or a task was retried between two equal calls.

    The attempts of a call are the attempt of a flow run, and then the id and the attempt of each task and flow run
    inside it. If two calls were made in one attempt, the first parts that differ are ids, or no parts differ.
    """
    parts = zip(one.split("."), other.split("."), strict=False)
    differing = [number for number, (ours, theirs) in enumerate(parts) if ours != theirs]
    return bool(differing) and differing[0] % 2 == 0


def attempts_around(flow_run_id: UUID) -> str:
    """Return the attempts in which the current code of a flow run is running."""
    outside = the_supervisor().of(flow_run_id).attempts
    return _attempts(outside, flow_run_id, current_execution(), tasks_around(flow_run_id))


def _attempts(outside: str, flow_run_id: UUID, execution: str, tasks: Sequence[TaskRun]) -> str:
    ids = [outside, _hash(flow_run_id)] if outside else []
    inside = [part for each in tasks for part in (each.id, each.run_count)]
    return ".".join([*ids, *(_hash(part)[:6] for part in (execution, *inside))])


def tasks_around(flow_run_id: UUID) -> list[TaskRun]:
    """Return the tasks of a flow run that have called the current code, the outermost task first."""
    # Prefect passes a task's context on to all that the task calls. For a subflow, Prefect enters it once more.
    around = [context.task_run for context in _contexts(TaskRunContext)][::-1]
    return list({task.id: task for task in around if task.flow_run_id == flow_run_id}.values())


def _execution_around(flow_run: FlowRun) -> str:
    """Return the execution of a flow run that has called the current code. A pause does not begin another one."""
    for context in _contexts(FlowRunContext):
        if context.flow_run is not None and context.flow_run.id == flow_run.id:
            flow_run = context.flow_run
    return "" if flow_run.state is None else str(flow_run.state.id)


def _contexts(kind: type[ContextModel]) -> Iterator[Any]:
    """Iterate over Prefect's contexts around the current code, the innermost first."""
    context: Any = kind.get()
    while isinstance(context, kind):
        yield context
        # Prefect has no public name for the context around this one, but keeps it in a token.
        context = getattr(context._token, "old_value", None)  # noqa: SLF001


async def enter(
    client: PrefectClient, family: Sequence[FlowRun], more_tags: Sequence[str] = ()
) -> tuple[Sequence[FlowRun], tuple[FlowRun, FlowRun] | None]:
    """Tag a flow run, so that the sweeper and later attempts find it, and find the flow runs of the same call.

    `family` is the flow run and its parents. Return the flow runs that earlier attempts have made with the same call,
    newest first. If a newer flow run has replaced one of the family, return the replaced flow run and the newer one.
    """
    known = the_supervisor().of(family[0].id)
    wanted = [FLOW_RUN_TAG, *more_tags]
    call = call_of(family, known.calls)
    if call is not None:
        known.attempts = call.attempts
        wanted += [call.place, *([ATTEMPT_TAG_PREFIX + call.attempts] if call.attempts else [])]
    # The tags are written before the search. So of two flow runs that begin at once, at least one finds the other.
    await _tag(client, family[0], wanted)
    if call is None or call.is_first:
        return (), None
    these = FlowRunFilter(tags=FlowRunFilterTags(all_=[call.place]))
    ours = ATTEMPT_TAG_PREFIX + call.attempts
    # A flow run that a person has copied has the tags, too, but no parent.
    found = [
        one
        async for one in every_flow_run(client, these)
        if one.id != family[0].id and one.parent_task_run_id is not None
        if all(are_of_two_attempts(ours, tag) for tag in one.tags if tag.startswith(ATTEMPT_TAG_PREFIX))
    ]
    found.sort(key=lambda one: str(one.created), reverse=True)
    for other in found:
        if not is_over(other):
            theirs = [one async for one in lineage(client, other)]
            both = zip(reversed(family), reversed(theirs), strict=False)
            # An old flow run of a deployment can make its calls after its replacement has made the same calls. So the
            # outermost flow runs count in which the two calls differ.
            old, new = next((pair for pair in both if pair[0].id != pair[1].id), (family[0], other))
            if not is_over(new) and str(new.created) > str(old.created):
                return (), (old, new)
    return found, None


async def _tag(client: PrefectClient, flow_run: FlowRun, wanted: Sequence[str]) -> None:
    """Add tags to a flow run. Prefect replaces all its tags, so parallel tasks read the tags before and after that."""
    in_task = current_task_run_id() is not None
    for _ in range(WRITES_AT_MOST):
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

    `calls` are the task runs that represent the flow run in its caller, its parent in the parent's caller, and so on.
    """
    root, is_first, attempts = family[-1], True, ""
    path: list[object] = []
    for child, parent, call in reversed(list(zip(family, family[1:], calls, strict=False))):
        tasks, by_flow = tasks_around(parent.id), call.dynamic_key.isdigit()
        is_first = is_first and is_first_attempt(parent) and not has_its_own_process(child)
        is_first = is_first and all(each.run_count <= 1 for each in tasks)
        if not by_flow and not tasks:
            # A task has called a deployment, whose process cannot see the task. So the path begins there.
            root, path, attempts = child, [], ""
            continue
        # Prefect's key of a function ends with a hash of its file and line, which may change before the next attempt.
        functions = [each.task_key.rpartition("-")[0] for each in tasks or [call]]
        # If deployments are called in parallel, Prefect numbers them in the order in which the requests arrive.
        parameters = "" if by_flow and not has_its_own_process(child) else _hash(child.parameters)
        name = (call_name.get() if child is family[0] else None) or call.dynamic_key
        path.append((child.flow_id, functions, name if by_flow else "", parameters))
        if attempts or tasks:
            attempts = _attempts(attempts, parent.id, _execution_around(parent), tasks)
    if not path:
        return None
    return Call(CALL_TAG_PREFIX + _hash(root.id, *path), attempts, is_first)


def _hash(*parts: object) -> str:
    return sha256(repr(parts).encode()).hexdigest()[:12]
