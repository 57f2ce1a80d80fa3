"""Takes over the record of an older flow run, so that exactly one flow run tracks each Bolt run.

A takeover has four steps. First, the new flow run takes the lease of the old flow run. From then on, the old flow run
changes nothing, and neither does a process that cleans up for the old flow run. Second, the new flow run writes the
final state of the old flow run. If somebody cancelled the old flow run, the new flow run also cancels the Bolt run.
Third, the new flow run writes its own record. Fourth, the new flow run marks the old record as reported.

The process can be killed after each step. Before the third step, the old record counts. After the third step, the next
execution of the new flow run repeats the fourth step.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.exceptions import ObjectNotFound

from paradime_blocks import BoltRunState, ParadimeCredentials
from paradime_flows.ledger import (
    Phase,
    Record,
    Superseded,
    check_lease,
    held_lease,
    read_records,
    supersede,
    write_record,
)
from paradime_flows.prefect_api import prefect_client, run_logger, set_final_state
from paradime_flows.supervision import Event, is_cancelled, reconcile_run

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from paradime_flows.ledger import Lease


def can_be_continued(old: Record, taken: Iterable[Record]) -> bool:
    """Whether an old record is unreported or a success, and none of the newer records `taken` has its Bolt run."""
    if old.state != BoltRunState.SUCCESS and not old.is_unreported:
        return False
    return not any(is_same_run(old, newer) for newer in taken)


def is_same_run(old: Record, newer: Record) -> bool:
    """Whether a newer record has the same Bolt run or trigger as an old record."""
    if old.run_id is None:
        return old.intent is not None and old.intent == newer.intent
    return old.run_id in {newer.run_id, *(attempt.run_id for attempt in newer.attempts)}


async def take_over_run(
    old: Record, flow_run: FlowRun, key: str, credentials: ParadimeCredentials
) -> Record | None:
    """Take over a record for an intent of a new flow run. If the old flow run was cancelled, cancel its Bolt run.

    Returns:
        The new flow run's record; None if nothing is left to take over.

    Raises:
        Superseded: Another process or flow run has replaced the new flow run.
        BoltError: The old flow run was cancelled, but Bolt could not cancel its run. The record of the old flow run
            stays open, so that the sweeper cleans it up.
    """
    async with prefect_client() as client:
        check_lease(await client.read_flow_run(flow_run.id))
    lease, previous, cancelled = await replace_flow_run(old.flow_run_id, flow_run)
    # The old flow run, or a process that cleaned up for it, may have changed the record after it was read.
    same = (now for now in read_records(previous) if now.key == old.key and can_be_continued(now, ()))
    if (now := next(same, None)) is None:
        return None
    now.hold_with(lease)
    if cancelled and now.is_open:
        reason = f"The earlier flow run was cancelled in Prefect, and flow run {flow_run.name!r} replaces it."
        # If the Bolt run is unknown, the clean-up searches until it is certain whether the trigger has started a run.
        await reconcile_run(now, credentials, Event.CANCELLED, reason)
        if not can_be_continued(now, ()):
            return None
    await complete_takeover(now, flow_run)
    return await _copy(now, flow_run, key)


async def _copy(old: Record, flow_run: FlowRun, key: str) -> Record | None:
    """Write a record of the new flow run, and mark the old record as reported."""
    new = old.model_copy(update={"flow_run_id": flow_run.id, "key": key}, deep=True)
    new.hold_with(held_lease(flow_run.id))
    new.taken_from = old.flow_run_id
    if old.state == BoltRunState.SUCCESS:
        new.phase = Phase.RUNNING
    new.decision_log().note(
        f"Taken over from flow run {old.flow_run_id}, an earlier attempt of the same call."
    )
    # The order matters. Between the two writes, two records have the Bolt run. In the other order, no record would have
    # the Bolt run between the writes.
    await write_record(new)
    try:
        await _mark(old, new)
    except Superseded:
        # Another flow run has taken the lease of the old flow run after us, and takes over the record.
        await _release(new)
        return None
    new.taken_from = None
    return new


async def complete_takeover(record: Record, flow_run: FlowRun) -> None:
    """Complete the takeover of a record: mark the old record, if the process was killed before it could do this."""
    if record.taken_from is None:
        return
    # If the old flow run was deleted, there is no old record to mark.
    with suppress(ObjectNotFound, Superseded):
        lease, previous, _ = await replace_flow_run(record.taken_from, flow_run)
        for old in read_records(previous):
            if is_same_run(old, record) or is_same_run(record, old):
                await _mark(old.hold_with(lease), record)
    record.taken_from = None


async def _mark(old: Record, new: Record) -> None:
    """Mark an old record as reported, because a new record has the Bolt run now."""
    if old.phase is not Phase.REPORTED:
        old.phase = Phase.REPORTED
        old.decision_log().note(f"Taken over by flow run {new.flow_run_id}.")
        await write_record(old)


async def _release(new: Record) -> None:
    """Replace the new record by an empty record, after a failed takeover: the new flow run has triggered nothing."""
    request = replace(new.request, retry_of=None)
    blank = Record(key=new.key, flow_run_id=new.flow_run_id, request=request, asked=new.asked)
    blank.notes = [*new.notes]
    blank.decision_log().note("Another flow run has taken over the record.")
    await write_record(blank.hold_with(held_lease(new.flow_run_id)))


async def replace_flow_run(previous: UUID, new: FlowRun) -> tuple[Lease, FlowRun, bool]:
    """Take the lease on an old flow run for the flow run `new`, and write the final state of the old one.

    Returns:
        The lease, the old flow run as read after the lease was taken, and whether somebody has cancelled it.
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
