"""Writing the end of a flow run in place of a process that cannot, or lets go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.client.schemas.objects import StateType
from prefect.states import Cancelled, Crashed

from paradime_flows.supervision.watch import state_types

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

_CANCELS = {StateType.CANCELLING, StateType.CANCELLED}


async def end_in_its_place(client: PrefectClient, flow_run: FlowRun, message: str) -> bool:
    """Write the end of a flow run that nobody drives any longer: crashed, or cancelled if somebody asked for that.

    One that has ended keeps its end, but for a crash that hides a cancel.

    Args:
        client: An open client.
        flow_run: The flow run, as just read.
        message: What to say of it.

    Returns:
        Whether somebody has cancelled it, be it since it was read.
    """
    seen = flow_run.state
    if seen is not None and seen.is_final() and not seen.is_crashed():
        return seen.is_cancelled()
    if seen is None or not seen.is_cancelling():
        if seen is None or not seen.is_crashed():
            await client.set_flow_run_state(flow_run.id, Crashed(message=message), force=True)
        # A crash can have been written over a cancel: just now, or by one who was killed before it saw that.
        if not _CANCELS.intersection((await state_types(client, flow_run.id))[-2:]):
            return False
    await client.set_flow_run_state(flow_run.id, Cancelled(message=message), force=True)
    return True
