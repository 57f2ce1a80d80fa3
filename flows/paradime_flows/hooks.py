"""State-change hooks: they clean up the Bolt runs of a flow run if the flow's own code could not.

If your own flows use the tasks of this package, set the hooks on those flows, too:

```python
from prefect import flow
from paradime_flows.hooks import cancel_owned_runs

@flow(on_cancellation=[cancel_owned_runs], on_crashed=[cancel_owned_runs], on_failure=[cancel_owned_runs])
async def nightly(): ...
```
"""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from paradime_blocks.signals import signals_held_off
from paradime_blocks.text import one_line
from paradime_flows.ledger import FLOW_KEY, Ownership, lost_lease
from paradime_flows.prefect_api import run_logger
from paradime_flows.supervision import clean_up_family, lives_in_other_process


def verdict_on(state: State[Any], ownership: Ownership) -> str | None:
    """Return why the Bolt run is cancelled, too, when a flow run is in this state; None if the Bolt run continues.

    When the flow run is cancelled, the Bolt run is always cancelled. When Prefect's own time limit is reached, or the
    flow run crashes, the Bolt run is cancelled, unless the policy is `leave`. When the flow run fails, a Bolt run that
    was triggered by a task is cancelled, too. But if the flow run failed because Bolt was unreachable, the Bolt run is
    not cancelled: it may be healthy.
    """
    if state.is_cancelling() or state.is_cancelled():
        return "The flow run was cancelled in Prefect."
    if state.is_crashed() and ownership.on_crash == "cancel":
        return f"The flow run crashed: {one_line(state.message or '', 200)}"
    if state.name == "TimedOut":
        limit = "The flow run reached Prefect's own time limit."
        return limit if ownership.on_interrupt == "cancel" else None
    if state.is_failed() and ownership.key != FLOW_KEY and not ownership.unreachable:
        return f"The flow run failed: {one_line(state.message or '', 200)}"
    return None


async def cancel_owned_runs(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Cancel the Bolt runs that a flow run or its subflows still track.

    Args:
        flow: The flow.
        flow_run: The flow run, as it was when it began.
        state: The new state of the flow run.
    """
    del flow
    async with get_client() as client:
        # Prefect gives a hook the flow run without the labels that were set while the flow ran.
        fresh = await client.read_flow_run(flow_run.id)
        if _runs_elsewhere(fresh, state):
            run_logger().info("The flow run is still running in another process; nothing is cancelled.")
            return
        with signals_held_off():
            await clean_up_family(
                client,
                fresh,
                lambda ownership: verdict_on(state, ownership),
                # A subflow that a deployment started has its own process, which continues if this process crashes.
                only_this_process=state.is_crashed(),
            )


def _runs_elsewhere(flow_run: FlowRun, state: State[Any]) -> bool:
    """Whether a flow run is still running in another process, although one of its processes has ended.

    A worker can write `Crashed` late or a second time, when somebody has already retried the flow run. A cancel applies
    to all processes of the flow run.
    """
    if state.is_cancelling() or state.is_cancelled():
        return False
    begun_again = flow_run.state is not None and not flow_run.state.is_final()
    return begun_again or lost_lease(flow_run) or lives_in_other_process(flow_run)
