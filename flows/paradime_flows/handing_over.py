"""How a flow run takes over what an older one answers for, so that each run has one that answers for it.

Three writes, of which any can be the last of a process that is killed: the older flow run's body is told to let go
(`paradime_flows.holding.supersede`), the heir writes down what it takes over and from whom, and the older one is said
to have left it to that heir. The last one decides: an heir that is begun again completes what was broken off, or lets
go if another has come before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from paradime_blocks.models import BoltRunState
from paradime_flows.context import run_logger
from paradime_flows.family import has_its_own_process, lineage
from paradime_flows.holding import Superseded, supersede
from paradime_flows.ownership import Ownership, read_ownerships, see_hold, write_ownership

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from paradime_flows.earlier_calls import Caller


def has_something(old: Ownership, taken: Iterable[Ownership]) -> bool:
    """Whether there is something to go on with, which nobody who came later has had.

    Args:
        old: What an older flow run answers for.
        taken: What those who came later do.
    """
    if old.state != BoltRunState.SUCCESS and not old.is_untold:
        return False
    return not any(is_of(old, newer) for newer in taken)


def is_of(old: Ownership, newer: Ownership) -> bool:
    """Whether what an ownership answers for, or answered for, is another's by now."""
    if old.run_id is None:
        return old.intent is not None and old.intent == newer.intent
    return old.run_id in {newer.run_id, *(attempt.run_id for attempt in newer.attempts)}


async def hand_over(old: Ownership, flow_run: FlowRun, key: str, caller: Caller | None) -> Ownership | None:
    """Take over an ownership of another flow run.

    Args:
        old: That ownership.
        flow_run: The heir.
        key: The heir's intent.
        caller: The task that has called the heir, if one has.

    Returns:
        The heir's ownership; None if there is nothing to take over any more.
    """
    try:
        async with get_client() as client:
            # Its process may live, and a hook or a sweeper may be about to settle it: they let go from here on.
            predecessor = await supersede(client, old.flow_run_id, flow_run)
    except Superseded:
        # Another heir is at it, and has come later.
        return None
    for now in read_ownerships(predecessor):
        if now.key == old.key and has_something(now, ()):
            old = now
            break
    else:
        # It has told of its end meanwhile; but it may be about to begin again.
        await write_the_end(old.flow_run_id, flow_run)
        return None
    heir = old.left_to(flow_run, key)
    heir.caller, heir.taken_from = caller, old.flow_run_id
    if old.state == BoltRunState.SUCCESS:
        heir.closed, heir.reported = False, False
    heir.trail().note(f"Taken over from flow run {old.flow_run_id}, an earlier attempt at the same.")
    # In this order: between the two, two flow runs answer for the run, and not none.
    await write_ownership(heir)
    try:
        await leave_to(heir, old)
    except Superseded:
        await _let_go(heir)
        return None
    heir.taken_from = None
    await write_the_end(old.flow_run_id, flow_run)
    return heir


async def complete_hand_over(heir: Ownership, flow_run: FlowRun) -> Ownership | None:
    """Complete what an earlier body of the heir may have begun, and not ended.

    Args:
        heir: What the heir has written.
        flow_run: The heir.

    Returns:
        The heir's ownership; None if another flow run has it.
    """
    if heir.taken_from is None:
        return heir
    try:
        async with get_client() as client:
            predecessor = await client.read_flow_run(heir.taken_from)
            found = [each for each in read_ownerships(predecessor) if is_of(each, heir)]
            if any(each.is_untold and each.taken_by is None for each in found):
                predecessor = await supersede(client, heir.taken_from, flow_run)
                found = [each for each in read_ownerships(predecessor) if is_of(each, heir)]
        for old in found:
            if old.taken_by not in {None, heir.flow_run_id}:
                await _let_go(heir)
                return None
            await leave_to(heir, old)
    except ObjectNotFound:
        # Who has been deleted answers for nothing.
        pass
    except Superseded:
        await _let_go(heir)
        return None
    heir.taken_from = None
    return heir


async def leave_to(heir: Ownership, old: Ownership) -> None:
    """Write down that an older attempt answers no longer for what another flow run has taken over.

    Args:
        heir: What that one has written.
        old: The older one's; a success that was told stays what it is.

    Raises:
        Superseded: Yet another flow run takes the older one's place.
    """
    if old.closed and old.reported:
        return
    old.closed, old.reported, old.taken_by = True, True, heir.flow_run_id
    old.trail().note(f"Taken over by flow run {heir.flow_run_id}.")
    await write_ownership(old)


async def _let_go(heir: Ownership) -> None:
    """Write over what an heir has written in vain: nothing has been sent for its intent."""
    blank = Ownership(key=heir.key, flow_run_id=heir.flow_run_id, request=heir.asked or heir.request)
    blank.notes = [*heir.notes]
    blank.trail().note("Another flow run has come to take it over.")
    async with get_client() as client:
        blank.held_by(await see_hold(client, heir))
    await write_ownership(blank)


async def write_the_end(predecessor: UUID, heir: FlowRun) -> None:
    """Write the end of a flow run whose process is gone, or lets go, and that nobody else will begin again.

    With it end those of its process that have called it: what they go on to do, the flow runs above the heir do.

    Args:
        predecessor: The flow run.
        heir: The one that takes its place.
    """
    try:
        async with get_client() as client:
            kept = {one.id async for one in lineage(client, heir)}
            async for one in lineage(client, await client.read_flow_run(predecessor)):
                if one.id in kept:
                    return
                if one.state is None or not one.state.is_final():
                    message = f"Its process has ended; flow run {heir.name!r} takes its place."
                    await client.set_flow_run_state(one.id, Crashed(message=message), force=True)
                if has_its_own_process(one):
                    return
    except Exception as error:  # noqa: BLE001 - the heir answers for the Bolt run already, and must go on
        run_logger().warning("The end of flow run %s could not be written: %s", predecessor, error)
