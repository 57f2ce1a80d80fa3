"""Finds the record to resume. It is from an earlier attempt, or from a flow run that the current flow run replaces.

The record of an older flow run is taken over, so that exactly one flow run tracks each Bolt run. First, the new flow
run takes the lease of the old flow run. From then on, the old flow run changes nothing, and neither does a process that
cleans up for the old flow run. Second, the new flow run writes the final state of the old flow run. If somebody
cancelled the old flow run, the new flow run also cancels the Bolt run. Third, the new flow run writes its own record.
Fourth, the new flow run marks the old record as reported.

The process can be killed after each step. Before the third step, the old record counts. After the third step, the next
attempt repeats the fourth step.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.exceptions import ObjectNotFound

from paradime_blocks import BoltError, BoltRequestError, BoltRunState, ParadimeCredentials
from paradime_blocks.text import one_line
from paradime_flows.ledger import (
    FLOW_KEY,
    Phase,
    Record,
    Superseded,
    are_of_two_attempts,
    execution_of,
    held_lease,
    read_records,
    supersede,
    write_record,
)
from paradime_flows.prefect_api import (
    flow_run_url,
    prefect_client,
    run_logger,
    set_final_state,
    the_supervisor,
)
from paradime_flows.supervision import Event, is_cancelled, reconcile_run

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from paradime_blocks.trigger import TriggerRequest
    from paradime_flows.ledger import Lease


def with_reason(request: TriggerRequest, flow_run: FlowRun) -> TriggerRequest:
    """Return the request with a reason, which Paradime's page shows. The default reason names the flow run."""
    if request.options.get("reason") is not None:
        return request
    url = flow_run_url(flow_run.id)
    name = one_line(flow_run.name, 100) or str(flow_run.id)
    return request.with_options(reason=f"Prefect flow run {name}" + (f" ({url})" if url else ""))


async def resume_record(
    new: Record, flow_run: FlowRun, credentials: ParadimeCredentials, earlier: Sequence[FlowRun]
) -> Record | None:
    """Return the record that a new intent resumes: of its flow run, or taken over from a flow run that it replaces.

    `new` is the record of the new intent, which was not written yet. `earlier` are the flow runs that earlier attempts
    have made with the same call, newest first.

    Raises:
        BoltRequestError: The flow run tracks a Bolt run of another schedule.
        BoltError: An old flow run was cancelled, but Bolt could not cancel its Bolt run. The record of the old flow run
            stays open, so that the sweeper cleans it up.
    """
    record = claim(read_records(flow_run), new)
    for previous in earlier:
        if record is None:
            record = await _take_over_from(previous, new, flow_run, credentials)
    if record is not None:
        for previous in earlier:
            await _mark_taken_over(previous, record, flow_run)
    return record


def claim(found: list[Record], new: Record) -> Record | None:
    """From the records `found` of a flow run, return the record that a new intent of the flow run resumes.

    Each execution of a flow run makes new task runs, and so does each attempt of a task that calls other tasks. So a
    task run resumes an earlier record with an equal request.

    Raises:
        BoltRequestError: The flow run tracks a Bolt run of another schedule.
    """
    for record in found:
        if record.key != new.key:
            continue
        if record.schedule == new.schedule:
            return record
        # When a parent is retried, Prefect can reuse its subflow runs, in the order of their numbers. If the parent
        # calls other subflows in its next attempt, Prefect returns the flow run of another call.
        raise BoltRequestError(
            f"This flow run ran {record.schedule!r} in an earlier attempt and now asks for {new.schedule!r}.",
            guidance="Nothing was sent. Call the same subflows in the same order in each attempt of a flow, "
            "or call tasks.",
            schedule_name=new.schedule,
        )
    for record in found:
        same = record.asked == new.asked and FLOW_KEY not in {record.key, new.key}
        if same and are_of_two_attempts(new.called_in, record.called_in) and _reserve(record, new):
            return record
    return None


def _reserve(old: Record, new: Record) -> bool:
    """Let a new intent resume an old one, unless another intent of the same attempt in this process does."""
    claimant = (new.flow_run_id, new.key), new.called_in
    claimed = the_supervisor().of(old.flow_run_id).claimed
    by, called_in = claimed.setdefault(old.key, claimant)
    is_free = by == claimant[0] or are_of_two_attempts(new.called_in, called_in)
    if is_free:
        claimed[old.key] = claimant
    return is_free


def can_be_resumed(record: Record) -> bool:
    """Whether a new flow run can resume the record: the end of its Bolt run, or of its trigger, was not reported."""
    return record.key == FLOW_KEY and record.is_unreported


async def _take_over_from(
    previous: FlowRun, new: Record, flow_run: FlowRun, credentials: ParadimeCredentials
) -> Record | None:
    """Take over a record of an old flow run that the new flow run replaces: an unreported record, or a success.

    If the old flow run was cancelled, cancel its Bolt run.
    """

    def is_wanted(old: Record) -> bool:
        return _is_same_request(old, new) and old.is_of_task is new.is_of_task and _can_be_continued(old)

    found = read_records(previous)
    is_over = previous.state is None or previous.state.is_final() or previous.state.is_scheduled()
    is_alive = not is_over and execution_of(previous) is not None
    # If both processes were alive, both could trigger a Bolt run for the same call.
    is_replaced = is_alive and all(_is_same_request(old, new) for old in found if old.is_unreported)
    if not is_replaced and not any(is_wanted(old) for old in found):
        return None
    lease, previous, cancelled = await replace_flow_run(previous.id, flow_run)
    # The old flow run, or a process that cleaned up for it, may have changed its records.
    for old in read_records(previous):
        if not is_wanted(old) or not _reserve(old, new):
            continue
        if cancelled and old.is_open:
            reason = (
                f"The earlier flow run was cancelled in Prefect, and flow run {flow_run.name!r} replaces it."
            )
            # If the Bolt run is unknown, the clean-up searches until it is certain whether the trigger has started one.
            await reconcile_run(old.hold_with(lease), credentials, Event.CANCELLED, reason)
        if _can_be_continued(old):
            return await _take_over(old, new)
    return None


def _is_same_request(old: Record, new: Record) -> bool:
    return (old.asked, old.workspace) == (new.asked, new.workspace)


def _can_be_continued(old: Record) -> bool:
    return old.is_unreported or old.state == BoltRunState.SUCCESS


async def _take_over(old: Record, new: Record) -> Record:
    """Write the record of the new flow run. The old record is marked later.

    Between the two writes, two records have the Bolt run. In the other order, no record would have it between them.
    """
    record = old.model_copy(update={"flow_run_id": new.flow_run_id, "key": new.key}, deep=True)
    if record.state == BoltRunState.SUCCESS:
        record.phase = Phase.RUNNING
    record.decision_log().note(
        f"Taken over from flow run {old.flow_run_id}, an earlier attempt of the same call."
    )
    await write_record(record.hold_with(held_lease(new.flow_run_id)))
    return record


async def _mark_taken_over(previous: FlowRun, record: Record, flow_run: FlowRun) -> None:
    """Mark the record of an old flow run as reported if `record` of the new flow run has its Bolt run now."""

    def is_taken(old: Record) -> bool:
        runs = {record.run_id, *(attempt.run_id for attempt in record.attempts)} - {None}
        same = old.run_id in runs or (old.intent is not None and old.intent == record.intent)
        return same and _can_be_continued(old)

    if not any(is_taken(old) for old in read_records(previous)):
        return
    # If the old flow run was deleted, there is no record to mark. If a newer flow run has taken its lease since then,
    # that flow run replaces the current one, too.
    with suppress(ObjectNotFound, Superseded):
        async with prefect_client() as client:
            lease, previous = await supersede(client, previous.id, flow_run)
        for old in read_records(previous):
            if is_taken(old):
                # Without a state, a success is not taken over a second time.
                old.phase, old.state = Phase.REPORTED, None
                old.decision_log().note(f"Taken over by flow run {flow_run.id}.")
                await write_record(old.hold_with(lease))


async def replace_flow_run(previous: UUID, new: FlowRun) -> tuple[Lease, FlowRun, bool]:
    """Take the lease on an old flow run for the flow run `new`, and write the final state of the old one.

    Return the lease, the old flow run as read after the lease was taken, and whether somebody has cancelled it.
    """
    async with prefect_client() as client:
        lease, flow_run = await supersede(client, previous, new)
    return lease, flow_run, await write_final_state(previous, new)


async def write_final_state(previous: UUID, new: FlowRun) -> bool:
    """Write the final state of an old flow run that `new` replaces, and whose process is gone or has stopped.

    Return whether somebody has cancelled the old flow run, or one of its parents.
    """
    cancelled = False
    try:
        async with prefect_client() as client:
            flow_run = await client.read_flow_run(previous)
            cancelled = await is_cancelled(client, flow_run)
            message = f"Flow run {new.name!r} has replaced this one."
            cancelled = await set_final_state(client, flow_run, message) or cancelled
    except Exception as error:  # noqa: BLE001 - the new flow run must continue
        run_logger().warning("Could not write the final state of flow run %s: %s", previous, error)
    return cancelled


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
