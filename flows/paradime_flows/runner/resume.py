"""Finds the record to resume. It is from an earlier attempt, or from a flow run that the current flow run replaces."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from paradime_blocks import BoltError, BoltRequestError, BoltSchedule, ParadimeCredentials
from paradime_blocks.text import one_line
from paradime_flows.ledger import FLOW_KEY, Caller, Record, Superseded, execution_of, read_records
from paradime_flows.prefect_api import (
    flow_run_url,
    run_logger,
    the_supervisor,
)
from paradime_flows.runner.takeover import (
    can_be_continued,
    replace_flow_run,
    take_over_run,
    write_final_state,
)
from paradime_flows.supervision import Event, reconcile_run

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from paradime_blocks.trigger import TriggerRequest


def with_reason(request: TriggerRequest, flow_run: FlowRun) -> TriggerRequest:
    """Return the request with a reason, which Paradime's page shows. The default reason names the flow run."""
    if request.options.get("reason") is not None:
        return request
    url = flow_run_url(flow_run.id)
    name = one_line(flow_run.name, 100) or str(flow_run.id)
    return request.with_options(reason=f"Prefect flow run {name}" + (f" ({url})" if url else ""))


def claim(
    found: list[Record], key: str, request: TriggerRequest, execution: str, caller: Caller | None = None
) -> Record | None:
    """From the records `found` of a flow run, return the record that an intent resumes.

    Each execution of a flow run makes new task runs, and so does each attempt of a task that calls other tasks. So a
    task run resumes an earlier record with an equal request.

    Raises:
        BoltRequestError: The flow run tracks a Bolt run of another schedule.
    """
    for record in found:
        if record.key == key:
            _check_schedule(record, request)
            return record
    for record in found:
        claimed = the_supervisor().of(record.flow_run_id).claimed
        claimant, claimed_by = claimed.get((record.key, execution), (None, None))
        # A task may be retried before it has written anything. Then the task may claim the same record again.
        is_ours = claimant == key
        is_earlier = is_ours or record.holder != execution or _is_retried_since(caller, record.caller)
        is_free = is_ours or claimant is None or _is_retried_since(caller, claimed_by)
        same = record.asks_for(request) and FLOW_KEY not in {record.key, key}
        if same and is_earlier and is_free:
            claimed[record.key, execution] = (key, caller)
            return record
    return None


def _is_retried_since(caller: Caller | None, other: Caller | None) -> bool:
    return caller is not None and other is not None and caller.comes_after(other)


def _check_schedule(record: Record, request: TriggerRequest) -> None:
    """Raise if the record belongs to another schedule.

    When a parent is retried, Prefect reuses the parent's subflow runs, in the order of their numbers. If the parent
    calls other subflows in its next attempt, or calls them in another order, Prefect returns the flow run of another
    call.
    """
    if record.schedule != request.schedule_name:
        raise BoltRequestError(
            f"This flow run ran {record.schedule!r} in an earlier attempt and now asks for "
            f"{request.schedule_name!r}.",
            guidance="Nothing was sent. Call the same subflows in the same order in each attempt of a flow, "
            "or call tasks.",
            schedule_name=request.schedule_name,
        )


def can_be_resumed(record: Record) -> bool:
    """Whether a new flow run can resume the record: the end of its Bolt run, or of its trigger, was not reported."""
    return record.key == FLOW_KEY and record.is_unreported


async def take_over_earlier(
    flow_run: FlowRun, key: str, schedule: BoltSchedule, request: TriggerRequest, earlier: Sequence[FlowRun]
) -> Record | None:
    """Take over a record of an old flow run that the new flow run replaces: an unreported record, or a success.

    `earlier` are the flow runs that earlier attempts have made with the same call, newest first.
    """
    earlier = [await _stop_if_alive(one, flow_run, schedule, request) for one in earlier]
    # Two intents must not return the same Bolt run.
    taken = read_records(flow_run)
    for old in (old for previous in earlier for old in read_records(previous)):
        if old.is_of_task is not (key != FLOW_KEY):
            continue
        is_same = old.asks_for(request) and old.is_in(schedule.credentials)
        if is_same and can_be_continued(old, taken):
            new = await _claim(old, flow_run, key, schedule.credentials)
            if new is not None:
                return new
        taken.append(old)
    return None


async def _stop_if_alive(
    one: FlowRun, new: FlowRun, schedule: BoltSchedule, request: TriggerRequest
) -> FlowRun:
    """Take the lease of an earlier flow run if its process may still be alive.

    Otherwise both processes could trigger a Bolt run for the same call.
    """
    is_over = one.state is None or one.state.is_final() or one.state.is_scheduled()
    unreported = [old for old in read_records(one) if old.is_unreported]
    is_same = all(old.asks_for(request) and old.is_in(schedule.credentials) for old in unreported)
    if is_over or execution_of(one) is None or not is_same:
        return one
    with suppress(Superseded):
        _, one, _ = await replace_flow_run(one.id, new)
    return one


async def _claim(old: Record, flow_run: FlowRun, key: str, credentials: ParadimeCredentials) -> Record | None:
    """Take over a record, unless another intent of this process takes over the same record."""
    left = (old.flow_run_id, old.key)
    if not the_supervisor().take_over(left, flow_run.id, key):
        return None
    taken_over: Record | None = None
    try:
        taken_over = await take_over_run(old, flow_run, key, credentials)
    finally:
        if taken_over is None:
            # Nothing was taken over, so the next intent may take over this record.
            the_supervisor().of(flow_run.id).taken_over.pop(left, None)
    return taken_over


async def cancel_leftover(old: Record, credentials: ParadimeCredentials, reason: str, new: FlowRun) -> None:
    """Cancel a Bolt run that an earlier attempt of a pipeline's step has left behind, and that no step resumes.

    Otherwise this Bolt run could conflict with a new run of the schedule.
    """
    if not old.is_open:
        return
    try:
        await reconcile_run(old, credentials, Event.REPLACED, reason)
    except BoltError as error:
        # The record stays open, so the sweeper cleans it up later.
        run_logger().error("%s", error)
    except Superseded as superseded:
        run_logger().info("%s", superseded)
    else:
        await write_final_state(old.flow_run_id, new)
