"""Which intent a flow run goes on with: its own of an earlier attempt, or one that another left to it."""

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

# What a caller has named; None where nobody has, and the call itself tells.
_named: ContextVar[list[UUID] | None] = ContextVar("predecessors", default=None)


def with_reason(request: TriggerRequest, flow_run: FlowRun) -> TriggerRequest:
    """Return the request with a reason, the flow run unless another is given: Paradime's page shows it."""
    if request.options.get("reason") is not None:
        return request
    url = flow_run_url(flow_run.id)
    name = one_line(flow_run.name, 100) or str(flow_run.id)
    return request.with_options(reason=f"Prefect flow run {name}" + (f" ({url})" if url else ""))


def claim(
    found: list[Ownership], key: str, request: TriggerRequest, execution: str, caller: Caller | None = None
) -> Ownership | None:
    """Return the ownership that an intent goes on with, of those that stand on its flow run.

    A task run is another one in each body of its flow run, and in each attempt of a task that calls it, so it takes up
    what an earlier one asked for in the same words.

    Args:
        found: The flow run's ownerships.
        key: The intent's key.
        request: What is to be triggered.
        execution: The present execution of the flow run (`paradime_flows.ledger.store`).
        caller: The tasks that the intent is one of, if any.

    Raises:
        BoltRequestError: The flow run answers for a run of another schedule.
    """
    for ownership in found:
        if ownership.key == key:
            _check_schedule(ownership, request)
            return ownership
    for ownership in found:
        claimed = the_supervisor().of(ownership.flow_run_id).claimed
        claimant, claimed_by = claimed.get((ownership.key, execution), (None, None))
        # A task that is retried before it has written anything comes back for what it had taken up.
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
    """Refuse what would make another schedule's run out of this one's.

    Prefect goes on with a flow's subflows by their number: a parent that calls others in its next attempt, or in
    another order, is given the flow run of another call.
    """
    if ownership.schedule != request.schedule_name:
        raise BoltRequestError(
            f"This flow run has run {ownership.schedule!r} before and is to run {request.schedule_name!r} now.",
            guidance="Nothing was sent. Call the same sub-flows in the same order in each attempt of a flow, or tasks.",
            schedule_name=request.schedule_name,
        )


@contextmanager
def resuming(flow_run_id: UUID | None) -> Iterator[None]:
    """Let a subflow that is called within take over what another flow run has left, and no other.

    Args:
        flow_run_id: That flow run: the same step in an earlier attempt of the parent. None for none.
    """
    token = _named.set([] if flow_run_id is None else [flow_run_id])
    try:
        yield
    finally:
        _named.reset(token)


def can_be_resumed(ownership: Ownership) -> bool:
    """Whether a flow run has left something to be gone on with: a run whose end it has not told, or a trigger."""
    return ownership.key == FLOW_KEY and ownership.is_unreported


async def take_over_earlier(
    flow_run: FlowRun,
    key: str,
    schedule: BoltSchedule,
    request: TriggerRequest,
    caller: Caller | None = None,
) -> Ownership | None:
    """Take over what a flow run that this one succeeds has left: an open ownership, or a success.

    Args:
        flow_run: The heir.
        key: The intent's key.
        schedule: What it runs.
        request: What it is to trigger.
        caller: The tasks that have called it, if any.
    """
    named = _named.get() if key == FLOW_KEY else None
    async with get_client() as client:
        earlier, taken = await _earlier_flow_runs(client, flow_run, named, caller)
        if named is None and caller is None:
            earlier = [
                await _let_go(client, one, flow_run) if _asks_for_same(one, schedule, request) else one
                for one in earlier
            ]
    # One run is not to be the answer to two intents.
    taken += read_ownerships(flow_run)
    new: Ownership | None = None
    for previous in earlier:
        found = [old for old in read_ownerships(previous) if (old.key == FLOW_KEY) == (key == FLOW_KEY)]
        for old in found:
            if new is not None:
                # It may have been taken over before, by a process that died before it wrote that down.
                if old.is_unreported and is_same_run(old, new):
                    # Somebody else may be about to take that one's place: then it is theirs to see.
                    with suppress(Superseded):
                        await release_to(new, old)
            elif can_be_continued(old, taken) and old.is_in(schedule.credentials):
                if old.asks_for(request):
                    new = await _claim(old, flow_run, key, caller, schedule.credentials)
                elif named is not None:
                    reason = f"Flow run {flow_run.name!r} does something else for this step."
                    await cancel_leftover(old, schedule.credentials, reason, flow_run)
        taken += found
    return new


async def _earlier_flow_runs(
    client: PrefectClient, flow_run: FlowRun, named: list[UUID] | None, caller: Caller | None
) -> tuple[list[FlowRun], list[Ownership]]:
    """Return the flow runs that may have left something, newest first, and what is other flow runs' already."""
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
    """Return the flow runs of earlier attempts of a task, or of the flows above it, and what this attempt's have.

    Args:
        caller: The task, in the present attempt.
        others: What it has called, and others of its flow run.

    Returns:
        Those that may have left something, of the newest attempt first, and in it as they were called; and what is
        taken already.
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
    """Whether all that an earlier call answers for, if anything, is what its heir takes over."""
    return all(
        old.asks_for(request) and old.is_in(schedule.credentials)
        for old in read_ownerships(one)
        if old.is_unreported
    )


async def _let_go(client: PrefectClient, one: FlowRun, new: FlowRun) -> FlowRun:
    """Have an earlier call let go, if its process lives: it may be about to trigger what its heir triggers."""
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
    """Take over an ownership, unless another intent of this process does so."""
    left = (old.flow_run_id, old.key)
    if not the_supervisor().take_over(left, flow_run.id, key):
        return None
    taken_over: Ownership | None = None
    try:
        taken_over = await take_over_run(old, flow_run, key, caller, credentials)
    finally:
        if taken_over is None:
            # Nobody has it: whoever comes next must not find it taken.
            the_supervisor().of(flow_run.id).taken_over.pop(left, None)
    return taken_over


async def cancel_leftover(
    old: Ownership, credentials: ParadimeCredentials, reason: str, new: FlowRun
) -> None:
    """Cancel what a step of a pipeline did before, and that nobody comes back for: it may be in the way.

    Args:
        old: What the step's flow run answers for.
        credentials: The credentials of the workspace.
        reason: Why, as a sentence.
        new: The flow run that comes after it.
    """
    if not old.is_open:
        return
    try:
        await clean_up(old, credentials, reason)
    except BoltError as error:
        # It stays open, for the sweeper.
        run_logger().error("%s", error)
    except Superseded as superseded:
        run_logger().info("%s", superseded)
    else:
        await write_final_state(old.flow_run_id, new)
