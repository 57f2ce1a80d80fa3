"""The part of Prefect's engine that a flow run needs, in memory: its context, and its final state."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from faults.prefect_in_memory import Killed
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.utilities.callables import get_call_parameters

if TYPE_CHECKING:
    from uuid import UUID

    from faults.prefect_in_memory import PrefectInMemory
    from prefect import Flow
    from prefect.states import State


def flow_run_context(prefect: PrefectInMemory, flow_run_id: UUID, flow: Flow[..., Any]) -> FlowRunContext:
    """Return the context of a flow's function: its flow run, its flow, and its start time."""
    return FlowRunContext.model_construct(
        flow=flow,
        flow_run=prefect.flow_runs[flow_run_id].model_copy(deep=True),
        start_time=datetime.now(timezone.utc),
        parameters={},
    )


async def call_flow(flow: Flow[..., Any], *arguments: Any, **parameters: Any) -> Any:
    """Call a flow's function as Prefect does: each parameter that is not given has its default."""
    return await flow.fn(**get_call_parameters(flow.fn, arguments, parameters))


async def in_flow_run(
    prefect: PrefectInMemory, flow_run_id: UUID, flow: Flow[..., Any], *arguments: Any, **parameters: Any
) -> tuple[State[Any], Any, BaseException | None]:
    """Run a flow's function as a flow run.

    Returns:
        The flow run's state, what the flow returned, and what it raised.
    """
    prefect.set_state(flow_run_id, StateType.RUNNING)
    result, error = None, None
    try:
        with flow_run_context(prefect, flow_run_id, flow):
            result = await call_flow(flow, *arguments, **parameters)
    except (Exception, asyncio.CancelledError, Killed) as raised:  # noqa: BLE001 - whatever it is, the test judges it
        error = raised
    if error is not None:
        kind = StateType.FAILED if isinstance(error, Exception) else StateType.CRASHED
        return prefect.set_state(flow_run_id, kind), None, error
    if hasattr(result, "is_final"):
        state = prefect.set_state(flow_run_id, result.type, result.name)
        returned = await result.aresult(raise_on_failure=False)
        return (state, None, returned) if isinstance(returned, Exception) else (state, returned, None)
    return prefect.set_state(flow_run_id, StateType.COMPLETED), result, None
