"""Writing the end of a flow run in place of a process that cannot, or lets go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.client.schemas.objects import StateType
from prefect.states import Cancelled, Crashed

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

_CANCELS = {StateType.CANCELLING, StateType.CANCELLED}


async def end_in_its_place(client: PrefectClient, flow_run: FlowRun, message: str) -> bool:
    """Write the end of a flow run that nobody drives any longer: crashed, or cancelled if somebody asked for that.

    One that has ended keeps its end.

    Args:
        client: An open client.
        flow_run: The flow run, as just read.
        message: What to say of it.

    Returns:
        Whether somebody has cancelled it, be it since it was read.
    """
    seen = flow_run.state
    if seen is not None and seen.is_final():
        return seen.is_cancelled()
    if seen is None or not seen.is_cancelling():
        await client.set_flow_run_state(flow_run.id, Crashed(message=message), force=True)
        if not await _cancelled_since(client, flow_run):
            return False
        # That has just been written over.
    await client.set_flow_run_state(flow_run.id, Cancelled(message=message), force=True)
    return True


async def _cancelled_since(client: PrefectClient, read: FlowRun) -> bool:
    """Whether somebody has cancelled a flow run since it was read, whatever has been written over that."""
    return any(
        state.type in _CANCELS and (read.state is None or state.timestamp > read.state.timestamp)
        for state in await client.read_flow_run_states(read.id)
    )
