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

from typing import TYPE_CHECKING, Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from paradime_blocks.signals import signals_held_off
from paradime_blocks.text import one_line
from paradime_flows.prefect_api import end_left_task_runs, prefect_client, run_logger

if TYPE_CHECKING:
    from paradime_flows.supervision import Event


def _reason_of(event: Event, state: State[Any]) -> str:
    message = one_line(state.message or "", 200)
    return {
        "CANCELLED": "The flow run was cancelled in Prefect.",
        "CRASHED": f"The flow run crashed: {message}",
        "PREFECT_TIMED_OUT": "The flow run reached Prefect's own time limit.",
    }.get(event.name, f"The flow run failed: {message}")


async def cancel_owned_runs(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Cancel the Bolt runs that a flow run and its subflow runs still track.

    - If the flow run was cancelled, the hook cancels each Bolt run.
    - If the flow run crashed, the option `on_crash` of each Bolt run decides.
    - If Prefect's own time limit was reached, the option `on_interrupt` of each Bolt run decides.
    - If the flow run failed, the hook cancels the Bolt runs that tasks triggered. It does not cancel a Bolt run if the
      wait for that run ended because Bolt was unreachable.

    A Bolt run that another client triggered is never cancelled.

    The rules are in `paradime_flows.supervision.decide`.

    Args:
        flow: The flow of the flow run. This hook does not use the flow.
        flow_run: The flow run, as Prefect read it when the flow run began.
        state: The new state of the flow run.
    """
    del flow
    # A flow imports this module, but most flow runs end without a clean-up.
    from paradime_flows.supervision import clean_up_family, event_of  # noqa: PLC0415

    event = event_of(state)
    async with prefect_client() as client:
        # The flow run that Prefect passes to a hook lacks the labels that were set while the flow was running.
        fresh = await client.read_flow_run(flow_run.id)
        if _runs_elsewhere(fresh, state):
            run_logger().info("The flow run is still running in another process; no Bolt run is cancelled.")
            return
        # A failed flow run has already ended its task runs. Their final states may still be on the way to Prefect.
        if not state.is_failed():
            await end_left_task_runs(client, flow_run.id, "The process of the flow run has ended.")
        if event is None:
            return
        with signals_held_off():
            await clean_up_family(
                client,
                fresh,
                event,
                _reason_of(event, state),
                # A crash ends only this process. A subflow that a deployment started runs in another process.
                only_this_process=state.is_crashed(),
            )


def _runs_elsewhere(flow_run: FlowRun, state: State[Any]) -> bool:
    """Whether a flow run is still running in another process, although one of its processes has ended.

    A worker can set the state `Crashed` late or a second time. By then, somebody may have retried the flow run.
    After a cancel, the answer is False without a check: the cancel is also meant for a process that runs elsewhere.
    """
    if state.is_cancelling() or state.is_cancelled():
        return False
    from paradime_flows.ledger import lost_lease  # noqa: PLC0415 - as above

    begun_again = flow_run.state is not None and not flow_run.state.is_final()
    return begun_again or lost_lease(flow_run)
