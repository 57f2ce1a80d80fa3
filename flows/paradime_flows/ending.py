"""Writing the end of a flow run in place of a process that cannot, or lets go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.states import Cancelled, Crashed

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State


async def end_in_its_place(client: PrefectClient, flow_run: FlowRun, message: str) -> None:
    """Write the end of a flow run that nobody drives any longer: crashed, or cancelled if somebody asked for that.

    One that has ended keeps its end.

    Args:
        client: An open client.
        flow_run: The flow run, as just read.
        message: What to say of it.
    """
    seen = flow_run.state
    if seen is not None and seen.is_final():
        return
    cancelling = seen is not None and seen.is_cancelling()
    state: State[None] = Cancelled(message=message) if cancelling else Crashed(message=message)
    await client.set_flow_run_state(flow_run.id, state, force=True)
