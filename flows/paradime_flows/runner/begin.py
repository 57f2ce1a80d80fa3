"""Begins an execution of a flow run, and opens an intent: it makes a record, or finds the record to resume.

The record to resume is from an earlier attempt of the flow run, or from an older flow run that the flow run replaces.
An older flow run's record is taken over, so that exactly one flow run tracks each Bolt run:

1. The new flow run takes the lease of the old one. From then on, neither the old flow run nor a process that cleans up
   for it changes anything.
2. It writes the final state of the old one. If somebody cancelled the old one, it also cancels the Bolt run.
3. It writes its own record.
4. It marks the old record as reported. If the process is killed before that, the next attempt does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from paradime_blocks import BoltRequestError, BoltRunState, BoltSchedule, ParadimeCredentials
from paradime_blocks.text import one_line
from paradime_blocks.trigger import TriggerRequest
from paradime_flows.ledger import (
    Phase,
    Record,
    Superseded,
    are_of_two_attempts,
    attempts_around,
    enter,
    execution_of,
    held_lease,
    read_records,
    supersede,
    take_lease,
    write_record,
)
from paradime_flows.prefect_api import (
    count_signals,
    current_execution_began_at,
    end_left_task_runs,
    flow_run_url,
    is_rescheduled,
    lineage,
    prefect_client,
    run_logger,
    schedule_tag,
    set_final_state,
    the_supervisor,
)
from paradime_flows.runner.policies import RunPolicies
from paradime_flows.supervision import (
    Event,
    clean_up_if_cancelled_before,
    is_cancelled,
    keep_alive,
    reconcile_run,
    remember_credentials,
)


async def begin_execution(
    client: PrefectClient, flow_run_id: UUID, tags: Sequence[str] = ()
) -> tuple[FlowRun, Sequence[FlowRun]]:
    """Begin an execution of a flow run: take its lease, tag it, and send heartbeats.

    Return the flow run, as read after the lease was taken, and the flow runs that earlier attempts of its parents have
    made with the same call, newest first.

    Raises:
        StoppedByPrefect: The flow run was cancelled before this attempt began.
        Superseded: Another process runs this flow run now, or another flow run has replaced this flow run.
    """
    flow_run = await take_lease(client, flow_run_id)
    family = [one async for one in lineage(client, flow_run)]
    await clean_up_if_cancelled_before(client, family)
    earlier, replaced = await enter(client, family, tags)
    if replaced is not None:
        ours, newer = replaced
        # Prefect writes no final state for an execution that raises `Superseded`.
        for one in family[: family.index(ours) + 1]:
            await write_final_state(one.id, newer)
        raise Superseded(flow_run)
    keep_alive(flow_run)
    return flow_run, earlier


async def open_intent(
    schedule: BoltSchedule,
    flow_run_id: UUID,
    policies: RunPolicies,
    request: TriggerRequest | None,
    key: str,
) -> tuple[Record, TriggerRequest]:
    """Return the record of an intent, and the request. The record is from this flow run, from an older one, or new.

    Raises:
        BoltError: The flow run tracks a Bolt run of another schedule; or an old flow run was cancelled, but Bolt could
            not cancel its Bolt run. Then the old record stays open, so that the sweeper cleans it up.
    """
    count_signals()
    credentials = schedule.credentials
    remember_credentials(flow_run_id, credentials)
    async with prefect_client() as client:
        flow_run, earlier = await begin_execution(client, flow_run_id, [schedule_tag(schedule.schedule_name)])
        if flow_run.run_count > 1:
            await end_left_task_runs(
                client,
                flow_run_id,
                "The process of an earlier attempt has ended.",
                begun_before=current_execution_began_at(),
            )
    request = _with_reason(request or schedule.request(), flow_run)
    facts: dict[str, Any] = {
        "asked": request.fingerprint,
        "called_in": attempts_around(flow_run_id),
        "api_endpoint": credentials.api_endpoint,
        "workspace_uid": credentials.workspace_uid,
        "credentials_block": credentials._block_document_name,  # noqa: SLF001 - no public name
        "on_interrupt": policies.on_interrupt,
        "is_rescheduled": is_rescheduled(),
        "on_crash": policies.on_crash,
        "on_timeout": policies.on_timeout,
        "archive": policies.archive,
        "left": policies.leave,
    }
    new = Record(key=key, flow_run_id=flow_run_id, request=request, **facts)
    record = claim(read_records(flow_run), new)
    for previous in earlier:
        if record is None:
            record = await _take_over_from(previous, new, flow_run, credentials)
    if record is not None:
        for previous in earlier:
            await _mark_taken_over(previous, record, flow_run)
    return (record or new).model_copy(update=facts).hold_with(held_lease(flow_run_id)), request


def _with_reason(request: TriggerRequest, flow_run: FlowRun) -> TriggerRequest:
    """Return the request with a reason, which Paradime's page shows. The default reason names the flow run."""
    if request.options.get("reason") is not None:
        return request
    url = flow_run_url(flow_run.id)
    name = one_line(flow_run.name, 100) or str(flow_run.id)
    return request.with_options(reason=f"Prefect flow run {name}" + (f" ({url})" if url else ""))


def claim(found: list[Record], new: Record) -> Record | None:
    """From the records `found` of a flow run, return the record that a new intent of the flow run resumes.

    Each execution of a flow run makes new task runs, and so does each attempt of a task that calls other tasks. So a
    task run resumes an earlier record with an equal request.
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
        same = record.asked == new.asked and record.is_of_task and new.is_of_task
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


async def _take_over_from(
    previous: FlowRun, new: Record, flow_run: FlowRun, credentials: ParadimeCredentials
) -> Record | None:
    """Take over a record of an old flow run that the new flow run replaces: an unreported record, or a success."""

    def is_wanted(old: Record) -> bool:
        return _is_same_request(old, new) and old.is_of_task is new.is_of_task and _can_be_continued(old)

    found = read_records(previous)
    is_over = previous.state is None or previous.state.is_final() or previous.state.is_scheduled()
    is_alive = not is_over and execution_of(previous) is not None
    # If both processes were alive, both could trigger a Bolt run for the same call.
    is_replaced = is_alive and all(_is_same_request(old, new) for old in found if old.is_unreported)
    wanted = [old for old in found if is_wanted(old)]
    # Equal calls resume different records. If they all took the lease, they would hinder each other.
    if not any(_reserve(old, new) for old in wanted) and (wanted or not is_replaced):
        return None
    lease, previous = await supersede(previous.id, flow_run)
    cancelled = await write_final_state(previous.id, flow_run)
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
    """Write the record of the new flow run. The old record is marked later, so that one of them always counts."""
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
        lease, previous = await supersede(previous.id, flow_run)
        for old in read_records(previous):
            if is_taken(old):
                # Without a state, a success is not taken over a second time.
                old.phase, old.state = Phase.REPORTED, None
                old.decision_log().note(f"Taken over by flow run {flow_run.id}.")
                await write_record(old.hold_with(lease))


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
