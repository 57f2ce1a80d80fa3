"""Begins an execution of a flow run, and finds the record that an intent resumes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from paradime_blocks import BoltRequestError, ParadimeCredentials
from paradime_flows.ledger import (
    Phase,
    Record,
    Superseded,
    are_of_two_attempts,
    enter,
    execution_of,
    read_records,
    supersede,
    take_lease,
    write_record,
)
from paradime_flows.prefect_api import (
    is_over,
    lineage,
    prefect_client,
    run_logger,
    set_final_state,
    the_supervisor,
)
from paradime_flows.supervision import (
    Action,
    Event,
    clean_up_if_cancelled_before,
    decide,
    is_cancelled,
    keep_alive,
    reconcile_run,
)


async def begin_execution(
    client: PrefectClient, flow_run_id: UUID, tags: Sequence[str] = ()
) -> tuple[FlowRun, Sequence[FlowRun]]:
    """Begin an execution of a flow run: take its lease, tag it, and send heartbeats.

    Return the flow run, as read after the lease was taken, and the flow runs that earlier attempts of its parents have
    made with the same call, newest first. If the flow run was cancelled before, raise `StoppedByPrefect`.
    """
    flow_run = await take_lease(client, flow_run_id)
    family = [one async for one in lineage(client, flow_run)]
    await clean_up_if_cancelled_before(client, family)
    earlier, replaced = await enter(client, family, tags)
    if replaced is not None:
        ours, newer = replaced
        # Prefect writes no final state for an execution that raises `Superseded`.
        for one in family[: family.index(ours) + 1]:
            await write_final_state(one, newer)
        raise Superseded(flow_run)
    keep_alive(flow_run)
    return flow_run, earlier


async def find_record(
    new: Record, flow_run: FlowRun, earlier: Sequence[FlowRun], credentials: ParadimeCredentials
) -> Record | None:
    """Return the record that a new intent resumes: of its flow run, or taken over from an older one; or else None."""
    record = claim(read_records(flow_run), new)
    for previous in earlier:
        record = await _take_over_from(previous, record, new, flow_run, credentials)
    return record


def claim(found: list[Record], new: Record) -> Record | None:
    """From the records `found` of a flow run, return the record that a new intent of the flow run resumes."""
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
    # Each execution of a flow run makes new task runs, and so does each attempt of a task that calls other tasks. So a
    # task run resumes an earlier record with an equal request.
    for record in found:
        same = record.asked == new.asked and record.is_of_task and new.is_of_task
        if same and are_of_two_attempts(new.called_in, record.called_in) and _reserve(record, new):
            return record
    return None


def _reserve(old: Record, new: Record) -> bool:
    """Let a new intent resume an old one, unless another intent of the same attempt in this process does."""
    claimed, ours = the_supervisor().of(old.flow_run_id).claimed, (new.key, new.called_in)
    theirs = claimed.setdefault(old.key, ours)
    if theirs != ours and not are_of_two_attempts(theirs[1], new.called_in):
        return False
    claimed[old.key] = ours
    return True


async def _take_over_from(
    previous: FlowRun, record: Record | None, new: Record, flow_run: FlowRun, credentials: ParadimeCredentials
) -> Record | None:
    """Take over a record of an old flow run, unless there is a `record` to resume. Mark each old record of its run."""
    found = read_records(previous)
    is_alive = execution_of(previous).epoch > 0 and not is_over(previous)
    # If both processes were alive, both could trigger a Bolt run for the same call.
    is_replaced = record is None and is_alive and not any(old.is_unreported for old in found)
    if not is_replaced and not any(_is_wanted(old, record, new) for old in found):
        return record
    async with prefect_client() as client:
        previous = await supersede(client, await client.read_flow_run(previous.id))
    cancelled = await write_final_state(previous, flow_run)
    # The old flow run, or a process that cleaned up for it, may have changed its records.
    for old in read_records(previous):
        if record is None and cancelled and old.is_open and _is_wanted(old, record, new):
            reason = (
                f"The earlier flow run was cancelled in Prefect, and flow run {flow_run.name!r} replaces it."
            )
            # This searches for an unknown Bolt run until it is certain whether there is one. If Bolt does not cancel
            # it, the record stays open for the sweeper, and the new flow run fails.
            await reconcile_run(old, credentials, Event.CANCELLED, reason)
        if not _is_wanted(old, record, new):
            continue
        if record is None:
            record = old.model_copy(
                update={"flow_run_id": new.flow_run_id, "key": new.key, "lease": new.lease}, deep=True
            )
            note = f"Taken over from flow run {old.flow_run_id}, an earlier attempt of the same call."
            record.decision_log().note(note)
            # The old record is marked after this, so that one of them always counts.
            await write_record(record)
        # Without a state, a success is not taken over a second time.
        old.phase, old.state = Phase.REPORTED, None
        old.decision_log().note(f"Taken over by flow run {flow_run.id}.")
        # If a newer flow run has taken the lease since then, that flow run replaces the current one, too.
        with suppress(Superseded):
            await write_record(old)
    return record


def _is_wanted(old: Record, record: Record | None, new: Record) -> bool:
    """Whether a new intent resumes an old record; or, if it resumes `record`, whether both are of the same Bolt run."""
    if decide(old, Event.BEGUN) is Action.SEND:
        return False
    if record is not None:
        same_run = old.run_id is not None and old.run_id == record.run_id
        return same_run or (old.intent is not None and old.intent == record.intent)
    # Equal calls resume different records. If they all took the lease, they would hinder each other.
    asked = (old.asked, old.workspace, old.is_of_task) == (new.asked, new.workspace, new.is_of_task)
    return asked and _reserve(old, new)


async def write_final_state(previous: FlowRun, new: FlowRun) -> bool:
    """Write the final state of an old flow run that `new` replaces. Return whether it, or a parent, was cancelled."""
    cancelled = False
    try:
        async with prefect_client() as client:
            # It may have ended since it was read.
            previous = await client.read_flow_run(previous.id)
            cancelled = is_cancelled([one async for one in lineage(client, previous)])
            message = f"Flow run {new.name!r} has replaced this one."
            cancelled = await set_final_state(client, previous, message) or cancelled
    except Exception as error:  # noqa: BLE001 - the new flow run must continue
        run_logger().warning("Could not write the final state of flow run %s: %s", previous.id, error)
    return cancelled
