"""Finds the record to resume: of an earlier attempt, or of the flow run that the current flow run replaces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from paradime_blocks import BoltError, BoltRequestError, BoltSchedule, ParadimeCredentials
from paradime_blocks.text import one_line
from paradime_flows.ledger import (
    FLOW_KEY,
    Caller,
    Ownership,
    Superseded,
    calls_by_tasks,
    earlier_calls,
    execution_of,
    read_ownerships,
    supersede,
)
from paradime_flows.prefect_api import flow_run_url, run_logger, the_supervisor
from paradime_flows.runner.takeover import (
    can_be_continued,
    is_same_run,
    release_to,
    take_over_run,
    write_final_state,
)
from paradime_flows.supervision import clean_up

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from paradime_blocks.trigger import TriggerRequest

# The flow runs whose records a subflow may resume, if the caller has named them. None if the caller has not called
# `resuming`: then the records of earlier calls of the same subflow may be resumed.
_named: ContextVar[list[UUID] | None] = ContextVar("named", default=None)


def with_reason(request: TriggerRequest, flow_run: FlowRun) -> TriggerRequest:
    """Return the request with a reason, which Paradime's page shows. The default reason names the flow run."""
    if request.options.get("reason") is not None:
        return request
    url = flow_run_url(flow_run.id)
    name = one_line(flow_run.name, 100) or str(flow_run.id)
    return request.with_options(reason=f"Prefect flow run {name}" + (f" ({url})" if url else ""))


def claim(
    found: list[Ownership], key: str, request: TriggerRequest, execution: str, caller: Caller | None = None
) -> Ownership | None:
    """From the records of a flow run, return the record that an intent resumes.

    Each execution of a flow run makes new task runs, and so does each attempt of a task that calls other tasks. So a
    task run resumes an earlier record with an equal request.

    Args:
        found: The flow run's records.
        key: The intent's key.
        request: What is to be triggered.
        execution: The current execution of the flow run (`paradime_flows.ledger.store`).
        caller: The tasks that have called the intent's task, if any.

    Raises:
        BoltRequestError: The flow run tracks a Bolt run of another schedule.
    """
    for ownership in found:
        if ownership.key == key:
            _check_schedule(ownership, request)
            return ownership
    for ownership in found:
        claimed = the_supervisor().of(ownership.flow_run_id).claimed
        claimant, claimed_by = claimed.get((ownership.key, execution), (None, None))
        # A task may be retried before it has written anything. Then the task may claim the same record again.
        is_ours = claimant == key
        is_earlier = (
            is_ours or ownership.execution != execution or _is_retried_since(caller, ownership.caller)
        )
        is_free = is_ours or claimant is None or _is_retried_since(caller, claimed_by)
        same = ownership.asks_for(request) and FLOW_KEY not in {ownership.key, key}
        if same and is_earlier and is_free:
            claimed[ownership.key, execution] = (key, caller)
            return ownership
    return None


def _is_retried_since(caller: Caller | None, other: Caller | None) -> bool:
    return caller is not None and other is not None and caller.comes_after(other)


def _check_schedule(ownership: Ownership, request: TriggerRequest) -> None:
    """Raise if the record belongs to another schedule.

    When a parent is retried, Prefect reuses the parent's subflow runs, in the order of their numbers. If the parent
    calls other subflows in its next attempt, or calls them in another order, Prefect returns the flow run of another
    call.
    """
    if ownership.schedule != request.schedule_name:
        raise BoltRequestError(
            f"This flow run ran {ownership.schedule!r} in an earlier attempt and now asks for "
            f"{request.schedule_name!r}.",
            guidance="Nothing was sent. Call the same subflows in the same order in each attempt of a flow, "
            "or call tasks.",
            schedule_name=request.schedule_name,
        )


@contextmanager
def resuming(flow_run_id: UUID | None) -> Iterator[None]:
    """A subflow that is called in the `with` block takes over the record of one given flow run only.

    Args:
        flow_run_id: The flow run of the same step in an earlier attempt of the parent. None: the subflow takes over no
            record.
    """
    token = _named.set([] if flow_run_id is None else [flow_run_id])
    try:
        yield
    finally:
        _named.reset(token)


def can_be_resumed(ownership: Ownership) -> bool:
    """Whether a new flow run can resume the record: the end of its Bolt run, or of its trigger, was not reported."""
    return ownership.key == FLOW_KEY and ownership.is_unreported


async def take_over_earlier(
    flow_run: FlowRun,
    key: str,
    schedule: BoltSchedule,
    request: TriggerRequest,
    caller: Caller | None = None,
) -> Ownership | None:
    """Take over the record of an old flow run that the new flow run replaces: an unreported record, or a success.

    Args:
        flow_run: The new flow run.
        key: The intent's key.
        schedule: The schedule that the new flow run runs.
        request: What the new flow run is to trigger.
        caller: The tasks that have called the new flow run, if any.
    """
    named = _named.get() if key == FLOW_KEY else None
    async with get_client() as client:
        earlier, taken = await _earlier_flow_runs(client, flow_run, named, caller)
        if named is None and caller is None:
            earlier = [
                await _stop_if_alive(client, one, flow_run) if _asks_for_same(one, schedule, request) else one
                for one in earlier
            ]
    # Two intents must not return the same Bolt run.
    taken += read_ownerships(flow_run)
    new: Ownership | None = None
    for previous in earlier:
        found = [old for old in read_ownerships(previous) if (old.key == FLOW_KEY) == (key == FLOW_KEY)]
        for old in found:
            if new is not None:
                # An earlier process may have taken over the old record, and died before it marked that record.
                if old.is_unreported and is_same_run(old, new):
                    # Another flow run may be taking over the old record: then that flow run marks it.
                    with suppress(Superseded):
                        await release_to(new, old)
            elif can_be_continued(old, taken) and old.is_in(schedule.credentials):
                if old.asks_for(request):
                    new = await _claim(old, flow_run, key, caller, schedule.credentials)
                elif named is not None:
                    reason = f"Flow run {flow_run.name!r} asks for something else in this step."
                    await cancel_leftover(old, schedule.credentials, reason, flow_run)
        taken += found
    return new


async def _earlier_flow_runs(
    client: PrefectClient, flow_run: FlowRun, named: list[UUID] | None, caller: Caller | None
) -> tuple[list[FlowRun], list[Ownership]]:
    """Return the flow runs whose records may be resumed, newest first; and the records that are taken already."""
    if named is not None:
        found = []
        for flow_run_id in named:
            with suppress(ObjectNotFound):
                found.append(await client.read_flow_run(flow_run_id))
        return [one for one in found if one.id != flow_run.id], []
    if caller is None:
        return (await earlier_calls(client, flow_run))[::-1], []
    return left_by_tasks(caller, await calls_by_tasks(client, flow_run, caller))


def left_by_tasks(caller: Caller, others: Iterable[FlowRun]) -> tuple[list[FlowRun], list[Ownership]]:
    """Return the flow runs that earlier attempts of a task or of its parents called, and this attempt's records.

    Args:
        caller: The task, in the current attempt.
        others: The flow runs that the task has called, and other subflows of the task's flow run.

    Returns:
        First, the flow runs whose records may be resumed: the newest attempt first, and the flow runs of one attempt in
        the order of the calls. Second, the records of this attempt: they are taken already.
    """
    attempts: dict[str, list[FlowRun]] = {}
    taken: list[Ownership] = []
    for one in sorted(others, key=_age):
        for ownership in read_ownerships(one):
            other = ownership.caller
            if other is None:
                continue
            if other.flow_run_id != caller.flow_run_id or caller.comes_after(other):
                attempts.setdefault(other.numbers(), []).append(one)
            else:
                taken.append(ownership)
    newest_first = sorted(attempts.values(), key=lambda calls: _age(calls[-1]), reverse=True)
    return [one for calls in newest_first for one in calls], taken


def _asks_for_same(one: FlowRun, schedule: BoltSchedule, request: TriggerRequest) -> bool:
    """Whether the new flow run makes the same request as all unreported records of an earlier call."""
    return all(
        old.asks_for(request) and old.is_in(schedule.credentials)
        for old in read_ownerships(one)
        if old.is_unreported
    )


async def _stop_if_alive(client: PrefectClient, one: FlowRun, new: FlowRun) -> FlowRun:
    """Take the lease of an earlier call if its process may live: both processes could trigger the same Bolt run."""
    is_over = one.state is None or one.state.is_final() or one.state.is_scheduled()
    if is_over or execution_of(one) is None:
        return one
    with suppress(Superseded):
        await supersede(client, one.id, new)
        await write_final_state(one.id, new)
    return await client.read_flow_run(one.id)


def _age(flow_run: FlowRun) -> str:
    return str(flow_run.created)


async def _claim(
    old: Ownership, flow_run: FlowRun, key: str, caller: Caller | None, credentials: ParadimeCredentials
) -> Ownership | None:
    """Take over a record, unless another intent of this process takes over the same record."""
    left = (old.flow_run_id, old.key)
    if not the_supervisor().take_over(left, flow_run.id, key):
        return None
    taken_over: Ownership | None = None
    try:
        taken_over = await take_over_run(old, flow_run, key, caller, credentials)
    finally:
        if taken_over is None:
            # Nothing was taken over, so the next intent may take over this record.
            the_supervisor().of(flow_run.id).taken_over.pop(left, None)
    return taken_over


async def cancel_leftover(
    old: Ownership, credentials: ParadimeCredentials, reason: str, new: FlowRun
) -> None:
    """Cancel a Bolt run of an earlier attempt of a pipeline's step, if nobody resumes that run: it may conflict.

    Args:
        old: The record of the step's old flow run.
        credentials: The credentials of the workspace.
        reason: Why the Bolt run is cancelled, as a sentence.
        new: The flow run that replaces the old one.
    """
    if not old.is_open:
        return
    try:
        await clean_up(old, credentials, reason)
    except BoltError as error:
        # The record stays open, so the sweeper cleans it up later.
        run_logger().error("%s", error)
    except Superseded as superseded:
        run_logger().info("%s", superseded)
    else:
        await write_final_state(old.flow_run_id, new)
