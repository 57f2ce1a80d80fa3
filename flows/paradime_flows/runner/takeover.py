"""Takes over the record of an older flow run, so that exactly one flow run tracks each Bolt run.

A takeover is three writes. First, the new flow run takes the lease of the old flow run
(`paradime_flows.ledger.store.supersede`). Second, the new flow run writes its own record with the old flow run's id.
Third, it marks the old record as taken over. The third write decides. The process can be killed after each write: if
the new flow run starts again, it completes the takeover; if another flow run was faster, it empties its own record.
If somebody cancelled the old flow run, the new flow run cancels the Bolt run.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from paradime_blocks import BoltRunState, ParadimeCredentials
from paradime_flows.ledger import (
    Caller,
    Ownership,
    Superseded,
    check_lease,
    newer_call,
    read_if_leased,
    read_ownerships,
    supersede,
    write_ownership,
)
from paradime_flows.prefect_api import lineage, run_logger, set_final_state, times
from paradime_flows.supervision import clean_up, is_cancelled

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


_TAKEOVERS_AT_MOST = 4


class _TakenMeanwhile(Exception):
    """Another flow run takes over the same record, so we have to read the record again."""


def can_be_continued(old: Ownership, taken: Iterable[Ownership]) -> bool:
    """Whether a record can be resumed, or its success be returned, and no newer flow run has taken over the record.

    Args:
        old: The record of an older flow run.
        taken: The records of newer flow runs.
    """
    if old.state != BoltRunState.SUCCESS and not old.is_unreported:
        return False
    return not any(is_same_run(old, newer) for newer in taken)


def is_same_run(old: Ownership, newer: Ownership) -> bool:
    """Whether a newer record has the same Bolt run or trigger as an old record."""
    if old.run_id is None:
        same_refusal = old.refused is not None and old.refused == newer.refused
        return same_refusal or (old.intent is not None and old.intent == newer.intent)
    return old.run_id in {newer.run_id, *(attempt.run_id for attempt in newer.attempts)}


async def take_over_run(
    old: Ownership, flow_run: FlowRun, key: str, caller: Caller | None, credentials: ParadimeCredentials
) -> Ownership | None:
    """Take over the record of an old flow run. If the old flow run was cancelled, cancel its Bolt run.

    Args:
        old: The record to take over.
        flow_run: The new flow run.
        key: The key of the new flow run's intent.
        caller: The tasks that have called the new flow run, if any.
        credentials: The credentials of the workspace.

    Returns:
        The new flow run's record; None if nothing is left to take over.

    Raises:
        Superseded: Another process or flow run has replaced the new flow run.
        BoltError: The old flow run was cancelled, but Bolt could not cancel its run. The new flow run continues to
            track that run.
    """
    for _ in range(_TAKEOVERS_AT_MOST):
        try:
            return await _take_over(old, flow_run, key, caller, credentials)
        except _TakenMeanwhile:
            # Two flow runs may take over the same record at once, and each may find that the other was faster. So each
            # waits for a random time before the next try.
            await anyio.sleep(random.uniform(0, times().takeover_pause_seconds))  # noqa: S311 - nothing secret
    return None


async def _take_over(
    old: Ownership, flow_run: FlowRun, key: str, caller: Caller | None, credentials: ParadimeCredentials
) -> Ownership | None:
    async with get_client() as client:
        check_lease(await client.read_flow_run(flow_run.id))
        try:
            # The old flow run's process may live, and a hook or the sweeper may be cleaning up: now they stop.
            previous = await supersede(client, old.flow_run_id, flow_run)
        except Superseded:
            raise _TakenMeanwhile from None
    for now in read_ownerships(previous):
        if now.key == old.key and can_be_continued(now, ()):
            old = now
            break
    else:
        # The old flow run has reported its end meanwhile. Its final state is written, so that it does not start again.
        await write_final_state(old.flow_run_id, flow_run)
        return None
    new = old.copied_to(flow_run, key)
    new.caller, new.taken_from = caller, old.flow_run_id
    if old.state == BoltRunState.SUCCESS:
        new.closed, new.reported = False, False
    new.decision_log().note(
        f"Taken over from flow run {old.flow_run_id}, an earlier attempt of the same call."
    )
    # The order matters: between the two writes, two flow runs track the Bolt run. In the other order, none would.
    await write_ownership(new)
    try:
        await release_to(new, old)
    except Superseded:
        await _release(new)
        raise _TakenMeanwhile from None
    return await _finish_takeover(new, old.flow_run_id, flow_run, credentials)


async def _finish_takeover(
    new: Ownership, taken_from: UUID, flow_run: FlowRun, credentials: ParadimeCredentials
) -> Ownership | None:
    """Write the final state of the old flow run. If somebody has cancelled the old flow run, cancel the Bolt run.

    Somebody can cancel the old flow run until its final state is written. Only the new flow run can notice that cancel.

    Returns:
        The new flow run's record; None if the record has nothing to continue.
    """
    if await write_final_state(taken_from, flow_run) and new.is_open:
        reason = f"Flow run {taken_from}, from which it was taken over, was cancelled in Prefect."
        # If the Bolt run is unknown, the clean-up searches until it is certain whether the trigger has started a run.
        await clean_up(new, credentials, reason)
        if not can_be_continued(new, ()):
            return None
    new.taken_from = None
    return new


async def complete_takeover(
    new: Ownership, flow_run: FlowRun, credentials: ParadimeCredentials
) -> Ownership | None:
    """Complete a takeover that an earlier execution of the new flow run may have started.

    Args:
        new: The record of the new flow run.
        flow_run: The new flow run.
        credentials: The credentials of the workspace.

    Returns:
        The new flow run's record; None if the new flow run has to search again for a record to take over.

    Raises:
        BoltError: The old flow run was cancelled, but Bolt could not cancel its run. The new flow run continues to
            track that run.
    """
    if new.taken_from is None:
        return new
    try:
        is_ours = await _complete(new, new.taken_from, flow_run)
    except Superseded:
        is_ours = False
    if not is_ours:
        await _release(new)
        return None
    return await _finish_takeover(new, new.taken_from, flow_run, credentials)


async def _complete(new: Ownership, taken_from: UUID, flow_run: FlowRun) -> bool:
    try:
        async with get_client() as client:
            found = _counterparts(await client.read_flow_run(taken_from), new)
            if any(each.is_unreported and each.taken_by is None for each in found):
                found = _counterparts(await supersede(client, taken_from, flow_run), new)
    except ObjectNotFound:
        # A deleted flow run tracks nothing.
        return True
    for old in found:
        # The old flow run may have started again. It may have found its Bolt run, or retried it.
        has_changed = not is_same_run(old, new)
        if has_changed or old.taken_by not in {None, new.flow_run_id}:
            return False
        await release_to(new, old)
    return True


def _counterparts(previous: FlowRun, new: Ownership) -> list[Ownership]:
    """From the records of the old flow run, return those with the same Bolt run or trigger as the new record."""
    return [
        each
        for each in read_ownerships(previous)
        if (is_same_run(each, new) or is_same_run(new, each))
        and (each.api_endpoint, each.workspace_uid) == (new.api_endpoint, new.workspace_uid)
    ]


async def release_to(new: Ownership, old: Ownership) -> None:
    """Mark an old record as taken over by a new flow run.

    Args:
        new: The record of the new flow run.
        old: The old record. If it is a reported success, it is not changed.

    Raises:
        Superseded: A third flow run has taken the lease of the old flow run.
    """
    if old.closed and old.reported:
        return
    old.closed, old.reported, old.taken_by = True, True, new.flow_run_id
    old.decision_log().note(f"Taken over by flow run {new.flow_run_id}.")
    await write_ownership(old)


async def _release(new: Ownership) -> None:
    """Replace the new record by an empty record, after a failed takeover: the new flow run has triggered nothing."""
    request = replace(new.request, retry_of=None)
    blank = Ownership(key=new.key, flow_run_id=new.flow_run_id, request=request, asked=new.asked)
    blank.notes = [*new.notes]
    blank.decision_log().note("Another flow run has taken over the record.")
    async with get_client() as client:
        blank.leased_to(await read_if_leased(client, new))
    await write_ownership(blank)


async def write_final_state(previous: UUID, new: FlowRun) -> bool:
    """Write the final state of an old flow run: its process is gone or has stopped, and nobody will start it again.

    Args:
        previous: The id of the old flow run.
        new: The flow run that replaces it.

    Returns:
        Whether somebody has cancelled the old flow run, or one of its parents.
    """
    cancelled = False
    try:
        async with get_client() as client:
            flow_run = await client.read_flow_run(previous)
            cancelled = await is_cancelled(client, flow_run)
            message = f"Flow run {new.name!r} has replaced this one."
            cancelled = await set_final_state(client, flow_run, message) or cancelled
    except Exception as error:  # noqa: BLE001 - the new flow run already tracks the Bolt run, and must continue
        run_logger().warning("Could not write the final state of flow run %s: %s", previous, error)
    return cancelled


async def stop_if_replaced(client: PrefectClient, flow_run: FlowRun) -> None:
    """Stop if another flow run has replaced our flow run, or one of its parents.

    Args:
        client: An open client.
        flow_run: Our flow run. Its execution may have begun late.

    Raises:
        Superseded: Our flow run was replaced, or one of its parents. The final states of our flow run, and of its
            parents up to the replaced one, have been written.
    """
    newer = await newer_call(client, flow_run)
    if newer is None:
        return
    replaced, new = newer
    async for one in lineage(client, flow_run):
        # If an execution raises Superseded, Prefect does not write a final state, so we write it here.
        await write_final_state(one.id, new)
        if one.id == replaced.id:
            break
    raise Superseded(flow_run)
