"""State-change hooks: they settle what a flow run answers for when its own code could not.

Put them on your own flows, too, when those use the tasks of this package:

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
    """Return why a flow run's end ends the Bolt run, too; None if it does not.

    A person's cancel always does. So does Prefect's own time limit, and a crash, unless the flow run was told to
    leave the run. A failure ends what was triggered by a task and is waited for no longer; but the outage that ended
    a wait, and so failed the flow, is no reason to stop a healthy run.
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
    """Cancel in Bolt what a flow run, or a subflow of it, still answers for.

    Args:
        flow: The flow.
        flow_run: Its run, as it was when it began.
        state: The state that it went into.
    """
    del flow
    async with get_client() as client:
        # What a hook is handed lacks the labels that were set during the run.
        fresh = await client.read_flow_run(flow_run.id)
        if _goes_on(fresh, state):
            run_logger().info("The flow run goes on in another process; nothing is cancelled.")
            return
        with signals_held_off():
            await clean_up_family(
                client,
                fresh,
                lambda ownership: verdict_on(state, ownership),
                # What was started by a deployment has a process of its own, which outlives a crash of this one.
                only_this_process=state.is_crashed(),
            )


def _goes_on(flow_run: FlowRun, state: State[Any]) -> bool:
    """Whether a flow run goes on in another process, whatever state a process of it was found to have ended in.

    A worker can write a crash late, and twice: when somebody has retried the flow run already. A cancel is meant
    for all processes.
    """
    if state.is_cancelling() or state.is_cancelled():
        return False
    begun_again = flow_run.state is not None and not flow_run.state.is_final()
    return begun_again or lost_lease(flow_run) or lives_in_other_process(flow_run)
