"""Finds the record to resume: from an earlier attempt, or from the flow run that this one replaces."""

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

# The flow runs that a caller has named to resume from; None if it has named none, and the call path decides.
_named: ContextVar[list[UUID] | None] = ContextVar("named", default=None)


def with_reason(request: TriggerRequest, flow_run: FlowRun) -> TriggerRequest:
    """Return the request with a reason, by default the flow run: Paradime's page shows it."""
    if request.options.get("reason") is not None:
        return request
    url = flow_run_url(flow_run.id)
    name = one_line(flow_run.name, 100) or str(flow_run.id)
    return request.with_options(reason=f"Prefect flow run {name}" + (f" ({url})" if url else ""))


def claim(
    found: list[Ownership], key: str, request: TriggerRequest, execution: str, caller: Caller | None = None
) -> Ownership | None:
    """Return the record that an intent resumes, of those on its flow run.

    Each execution of a flow run, and each attempt of a task that calls a task, makes a new task run. So a task run
    resumes an earlier record with an equal request.

    Args:
        found: The flow run's records.
        key: The intent's key.
        request: What is to be triggered.
        execution: The current execution of the flow run (`paradime_flows.ledger.store`).
        caller: The tasks that the intent is called in, if any.

    Raises:
        BoltRequestError: The flow run tracks a run of another schedule.
    """
    for ownership in found:
        if ownership.key == key:
            _check_schedule(ownership, request)
            return ownership
    for ownership in found:
        claimed = the_supervisor().of(ownership.flow_run_id).claimed
        claimant, claimed_by = claimed.get((ownership.key, execution), (None, None))
        # A task that is retried before it has written anything may claim the same record again.
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

    Prefect reuses a flow's subflow runs by their number: a parent that calls other subflows in its next attempt, or
    calls them in another order, gets the flow run of another call.
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
    """Let a subflow that is called within take over the record of one flow run only.

    Args:
        flow_run_id: That flow run: the same step in an earlier attempt of the parent. None: take over nothing.
    """
    token = _named.set([] if flow_run_id is None else [flow_run_id])
    try:
        yield
    finally:
        _named.reset(token)


def can_be_resumed(ownership: Ownership) -> bool:
    """Whether a new flow run can resume the record: it has a run whose end was not reported, or a trigger."""
    return ownership.key == FLOW_KEY and ownership.is_unreported


async def take_over_earlier(
    flow_run: FlowRun,
    key: str,
    schedule: BoltSchedule,
    request: TriggerRequest,
    caller: Caller | None = None,
) -> Ownership | None:
    """Take over the record of a flow run that this one replaces: an open record, or a success.

    Args:
        flow_run: The new flow run.
        key: The intent's key.
        schedule: The schedule that it runs.
        request: What it is to trigger.
        caller: The tasks that have called it, if any.
    """
    named = _named.get() if key == FLOW_KEY else None
    async with get_client() as client:
        earlier, taken = await _earlier_flow_runs(client, flow_run, named, caller)
        if named is None and caller is None:
            earlier = [
                await _stop_if_alive(client, one, flow_run) if _asks_for_same(one, schedule, request) else one
                for one in earlier
            ]
    # No two intents may return the same run.
    taken += read_ownerships(flow_run)
    new: Ownership | None = None
    for previous in earlier:
        found = [old for old in read_ownerships(previous) if (old.key == FLOW_KEY) == (key == FLOW_KEY)]
        for old in found:
            if new is not None:
                # An earlier process may have taken it over and died before it wrote that.
                if old.is_unreported and is_same_run(old, new):
                    # Another flow run may be taking it over: then that one releases it.
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
    """Return the flow runs whose records may be resumed, newest first, and the records already taken over."""
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
    """Return the flow runs of earlier attempts of a task or of its parents, and the records of this attempt.

    Args:
        caller: The task, in the current attempt.
        others: The flow runs that it has called, and others of its flow run.

    Returns:
        The flow runs whose records may be resumed, the newest attempt first, and within one in the order of the
        calls; and the records already taken over.
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
    """Whether the new flow run asks for the same as all unreported records of an earlier call."""
    return all(
        old.asks_for(request) and old.is_in(schedule.credentials)
        for old in read_ownerships(one)
        if old.is_unreported
    )


async def _stop_if_alive(client: PrefectClient, one: FlowRun, new: FlowRun) -> FlowRun:
    """Take the lease of an earlier call whose process may live: it could trigger what the new one triggers."""
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
    """Take over a record, unless another intent of this process does so."""
    left = (old.flow_run_id, old.key)
    if not the_supervisor().take_over(left, flow_run.id, key):
        return None
    taken_over: Ownership | None = None
    try:
        taken_over = await take_over_run(old, flow_run, key, caller, credentials)
    finally:
        if taken_over is None:
            # Nothing was taken over: the next intent must not find it taken.
            the_supervisor().of(flow_run.id).taken_over.pop(left, None)
    return taken_over


async def cancel_leftover(
    old: Ownership, credentials: ParadimeCredentials, reason: str, new: FlowRun
) -> None:
    """Cancel a run of an earlier attempt of a pipeline's step that nobody resumes: it may conflict.

    Args:
        old: The record of the step's flow run.
        credentials: The credentials of the workspace.
        reason: Why, as a sentence.
        new: The flow run that replaces it.
    """
    if not old.is_open:
        return
    try:
        await clean_up(old, credentials, reason)
    except BoltError as error:
        # The record stays open, for the sweeper.
        run_logger().error("%s", error)
    except Superseded as superseded:
        run_logger().info("%s", superseded)
    else:
        await write_final_state(old.flow_run_id, new)
