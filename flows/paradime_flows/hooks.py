"""The state-change hook that cancels the Bolt runs of a flow run if the flow's own code could not cancel them.

The flows of this package have the hook already. If your own flow uses the tasks of this package, set the hook on your
flow for three kinds of states:

```python
from prefect import flow
from paradime_flows.hooks import cancel_owned_runs

@flow(on_cancellation=[cancel_owned_runs], on_crashed=[cancel_owned_runs], on_failure=[cancel_owned_runs])
async def nightly(): ...
```
"""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from paradime_blocks.signals import signals_held_off
from paradime_blocks.text import one_line
from paradime_flows.prefect_api import end_left_task_runs, is_over, prefect_client, run_logger


async def cancel_owned_runs(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Cancel the Bolt runs that a flow run and its subflow runs still track.

    - If the flow run was cancelled, the hook cancels each Bolt run.
    - If the flow run crashed, the option `on_crash` of each Bolt run decides.
    - If Prefect's own time limit was reached, the option `on_interrupt` of each Bolt run decides.
    - If the flow run failed, the hook cancels the Bolt runs that tasks triggered. It does not cancel a Bolt run if the
      wait for that run ended because Bolt was unreachable.

    A Bolt run that another client triggered is never cancelled.

    Args:
        flow: The flow of the flow run. This hook does not use the flow.
        flow_run: The flow run, as Prefect read it when the flow run began.
        state: The new state of the flow run.
    """
    del flow
    # A flow imports this module, but most flow runs end without a clean-up.
    from paradime_flows.ledger import lost_lease  # noqa: PLC0415
    from paradime_flows.supervision import Event, clean_up_family, event_of  # noqa: PLC0415

    event = event_of(state)
    async with prefect_client() as client:
        # The flow run that Prefect passes to a hook lacks the labels that were set while the flow was running.
        fresh = await client.read_flow_run(flow_run.id)
        # A worker can set the state `Crashed` late or a second time. By then, somebody may have retried the flow run.
        # But a cancel is also meant for a process that runs elsewhere.
        if event is not Event.CANCELLED and (not is_over(fresh) or lost_lease(fresh)):
            run_logger().info("The flow run is still running in another process; no Bolt run is cancelled.")
            return
        # A failed flow run has already ended its task runs. Their final states may still be on the way to Prefect.
        if not state.is_failed():
            await end_left_task_runs(client, flow_run.id, "The process of the flow run has ended.")
        if event is None:
            return
        message = one_line(state.message or "", 200)
        reason = {
            Event.CANCELLED: "The flow run was cancelled in Prefect.",
            Event.CRASHED: f"The flow run crashed: {message}",
            Event.PREFECT_TIMED_OUT: "The flow run reached Prefect's own time limit.",
        }.get(event, f"The flow run failed: {message}")
        with signals_held_off():
            await clean_up_family(client, fresh, event, reason)
