"""How a flow run takes over what an older one answers for, so that each run has one that answers for it.

Three writes, of which any can be the last of a process that is killed: the older flow run's body is told to let go
(`paradime_flows.ledger.store.supersede`), the heir writes down what it takes over and from whom, and the
older one is said to have left it to that heir. The last one decides: an heir that is begun again completes what was
broken off, or lets go if another has come before it. Who had cancelled the older flow run is heard by the heir.
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
from paradime_flows.prefect_api import end_in_its_place, lineage, run_logger, times
from paradime_flows.supervision import clean_up, is_cancelled

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


_TAKEOVERS_AT_MOST = 4


class _TakenMeanwhile(Exception):
    """Another heir has come to the same flow run, and one of the two has to look again."""


def can_be_continued(old: Ownership, taken: Iterable[Ownership]) -> bool:
    """Whether there is something to go on with, which nobody who came later has had.

    Args:
        old: What an older flow run answers for.
        taken: What those who came later do.
    """
    if old.state != BoltRunState.SUCCESS and not old.is_unreported:
        return False
    return not any(is_same_run(old, newer) for newer in taken)


def is_same_run(old: Ownership, newer: Ownership) -> bool:
    """Whether what an ownership answers for, or answered for, is another's by now."""
    if old.run_id is None:
        same_refusal = old.refused is not None and old.refused == newer.refused
        return same_refusal or (old.intent is not None and old.intent == newer.intent)
    return old.run_id in {newer.run_id, *(attempt.run_id for attempt in newer.attempts)}


async def take_over_run(
    old: Ownership, flow_run: FlowRun, key: str, caller: Caller | None, credentials: ParadimeCredentials
) -> Ownership | None:
    """Take over an ownership of another flow run; if somebody has cancelled that, its run is cancelled in its place.

    Args:
        old: That ownership.
        flow_run: The heir.
        key: The heir's intent.
        caller: The tasks that have called the heir, if any.
        credentials: The credentials of its workspace.

    Returns:
        The heir's ownership; None if there is nothing to take over any more.

    Raises:
        Superseded: The heir has an heir itself.
        BoltError: Somebody has cancelled the other flow run, and Bolt does not cancel its run; the heir answers for it.
    """
    for _ in range(_TAKEOVERS_AT_MOST):
        try:
            return await _take_over(old, flow_run, key, caller, credentials)
        except _TakenMeanwhile:
            # Of two heirs at once, each could take the other for the one who has it.
            await anyio.sleep(random.uniform(0, times().takeover_pause_seconds))  # noqa: S311 - nothing secret
    return None


async def _take_over(
    old: Ownership, flow_run: FlowRun, key: str, caller: Caller | None, credentials: ParadimeCredentials
) -> Ownership | None:
    async with get_client() as client:
        check_lease(await client.read_flow_run(flow_run.id))
        try:
            # Its process may live, and a hook or a sweeper may be about to settle it: they let go from here on.
            previous = await supersede(client, old.flow_run_id, flow_run)
        except Superseded:
            raise _TakenMeanwhile from None
    for now in read_ownerships(previous):
        if now.key == old.key and can_be_continued(now, ()):
            old = now
            break
    else:
        # It has told of its end meanwhile; but it may be about to begin again.
        await write_final_state(old.flow_run_id, flow_run)
        return None
    new = old.copied_to(flow_run, key)
    new.caller, new.taken_from = caller, old.flow_run_id
    if old.state == BoltRunState.SUCCESS:
        new.closed, new.reported = False, False
    new.decision_log().note(f"Taken over from flow run {old.flow_run_id}, an earlier attempt at the same.")
    # In this order: between the two, two flow runs answer for the run, and not none.
    await write_ownership(new)
    try:
        await release_to(new, old)
    except Superseded:
        await _let_go(new)
        raise _TakenMeanwhile from None
    return await _finish_takeover(new, old.flow_run_id, flow_run, credentials)


async def _finish_takeover(
    new: Ownership, taken_from: UUID, flow_run: FlowRun, credentials: ParadimeCredentials
) -> Ownership | None:
    """Write the end of a flow run that has let go; if somebody has cancelled it, cancel what was taken over.

    Until that end is written it can be cancelled, and nobody but the heir hears of it any more.

    Returns:
        The heir's ownership; None if there is nothing left of it.
    """
    if await write_final_state(taken_from, flow_run) and new.is_open:
        reason = f"Flow run {taken_from}, from which it was taken over, was cancelled in Prefect."
        # A run that is not known yet is looked for until it is certain. The heir's own cancel asks for nothing else.
        await clean_up(new, credentials, reason)
        if not can_be_continued(new, ()):
            return None
    new.taken_from = None
    return new


async def complete_takeover(
    new: Ownership, flow_run: FlowRun, credentials: ParadimeCredentials
) -> Ownership | None:
    """Complete what an earlier body of the heir may have begun, and not ended.

    Args:
        new: What the heir has written.
        flow_run: The heir.
        credentials: The credentials of its workspace.

    Returns:
        The heir's ownership; None if it has to look anew for what there is to take over.

    Raises:
        BoltError: Somebody has cancelled the other flow run, and Bolt does not cancel its run.
    """
    if new.taken_from is None:
        return new
    try:
        is_ours = await _complete(new, new.taken_from, flow_run)
    except Superseded:
        is_ours = False
    if not is_ours:
        await _let_go(new)
        return None
    return await _finish_takeover(new, new.taken_from, flow_run, credentials)


async def _complete(new: Ownership, taken_from: UUID, flow_run: FlowRun) -> bool:
    try:
        async with get_client() as client:
            found = _counterparts(await client.read_flow_run(taken_from), new)
            if any(each.is_unreported and each.taken_by is None for each in found):
                found = _counterparts(await supersede(client, taken_from, flow_run), new)
    except ObjectNotFound:
        # Who has been deleted answers for nothing.
        return True
    for old in found:
        # It may have been begun again itself, and have found its run, or have retried that.
        has_gone_on = not is_same_run(old, new)
        if has_gone_on or old.taken_by not in {None, new.flow_run_id}:
            return False
        await release_to(new, old)
    return True


def _counterparts(previous: FlowRun, new: Ownership) -> list[Ownership]:
    """Return what a flow run answers for, or answered for, of that which an heir has written."""
    return [
        each
        for each in read_ownerships(previous)
        if (is_same_run(each, new) or is_same_run(new, each))
        and (each.api_endpoint, each.workspace_uid) == (new.api_endpoint, new.workspace_uid)
    ]


async def release_to(new: Ownership, old: Ownership) -> None:
    """Write down that an older attempt answers no longer for what another flow run has taken over.

    Args:
        new: What that one has written.
        old: The older one's; a success that was told stays what it is.

    Raises:
        Superseded: Yet another flow run takes the older one's place.
    """
    if old.closed and old.reported:
        return
    old.closed, old.reported, old.taken_by = True, True, new.flow_run_id
    old.decision_log().note(f"Taken over by flow run {new.flow_run_id}.")
    await write_ownership(old)


async def _let_go(new: Ownership) -> None:
    """Write over what an heir has written in vain: nothing has been sent for its intent."""
    request = replace(new.request, retry_of=None)
    blank = Ownership(key=new.key, flow_run_id=new.flow_run_id, request=request, asked=new.asked)
    blank.notes = [*new.notes]
    blank.decision_log().note("Another flow run has come to take it over.")
    async with get_client() as client:
        blank.leased_to(await read_if_leased(client, new))
    await write_ownership(blank)


async def write_final_state(previous: UUID, new: FlowRun) -> bool:
    """Write the end of a flow run whose process is gone, or lets go, and that nobody else will begin again.

    Args:
        previous: The flow run.
        new: The one that takes its place.

    Returns:
        Whether somebody has cancelled it, or one above it.
    """
    cancelled = False
    try:
        async with get_client() as client:
            flow_run = await client.read_flow_run(previous)
            cancelled = await is_cancelled(client, flow_run)
            told = f"Flow run {new.name!r} takes its place."
            cancelled = await end_in_its_place(client, flow_run, told) or cancelled
    except Exception as error:  # noqa: BLE001 - the heir answers for the Bolt run already, and must go on
        run_logger().warning("The end of flow run %s could not be written: %s", previous, error)
    return cancelled


async def stop_if_replaced(client: PrefectClient, flow_run: FlowRun) -> None:
    """Let go if another flow run stands in our place by now, or in that of one above us.

    Args:
        client: An open client.
        flow_run: Our flow run, which a body has begun late.

    Raises:
        Superseded: One does. We have ended, and with us those above that were to be succeeded.
    """
    newer = await newer_call(client, flow_run)
    if newer is None:
        return
    succeeded, new = newer
    async for one in lineage(client, flow_run):
        # Prefect writes nothing of a body that lets go.
        await write_final_state(one.id, new)
        if one.id == succeeded.id:
            break
    raise Superseded(flow_run)
