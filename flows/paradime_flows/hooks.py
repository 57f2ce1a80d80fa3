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

import anyio
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from paradime_blocks.credentials import ParadimeCredentials
from paradime_blocks.errors import BoltError
from paradime_flows.context import resolve_credentials, run_logger
from paradime_flows.family import subflows_of
from paradime_flows.holding import lost_hold
from paradime_flows.liveness import lives_beside
from paradime_flows.ownership import Ownership, read_ownerships
from paradime_flows.settle import settle

_AT_ONCE = 16

# Credentials that were given in code and are in no block: known to this process only.
_in_this_process: dict[str, ParadimeCredentials] = {}


def remember_credentials(ownership: Ownership, credentials: ParadimeCredentials) -> None:
    """Keep the credentials of an ownership for hooks that run in this process."""
    _in_this_process[str(ownership.flow_run_id)] = credentials


def forget_credentials(ownership: Ownership) -> None:
    """Drop what `remember_credentials` kept."""
    _in_this_process.pop(str(ownership.flow_run_id), None)


async def credentials_of(ownership: Ownership) -> ParadimeCredentials:
    """Return the credentials of an ownership: this process's, its block's, or the environment's.

    Raises:
        BoltRequestError: There are none.
    """
    kept = _in_this_process.get(str(ownership.flow_run_id))
    return kept or await resolve_credentials(ownership.credentials_block)


def verdict_on(state: State[Any], ownership: Ownership) -> str | None:
    """Return why a flow run's end ends the Bolt run, too; None if it does not.

    A person's cancel always does. So does Prefect's own time limit, and a crash, unless the flow run was told to
    leave the run. A failure does not: the outage that failed the flow is no reason to stop a healthy run.
    """
    if state.is_cancelling() or state.is_cancelled():
        return "The flow run was cancelled in Prefect."
    if state.is_crashed() and ownership.on_crash == "cancel":
        return f"The flow run crashed: {state.message}"
    if state.name == "TimedOut" and ownership.on_interrupt == "cancel":
        return "The flow run reached Prefect's own time limit."
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
        await _settle_tree(client, fresh, state)


def _goes_on(flow_run: FlowRun, state: State[Any]) -> bool:
    """Whether a flow run goes on in another process, whatever state a process of it was found to have ended in.

    A worker can write a crash late, and twice: when somebody has retried the flow run already. A cancel is meant
    for all processes.
    """
    if state.is_cancelling() or state.is_cancelled():
        return False
    begun_again = flow_run.state is not None and not flow_run.state.is_final()
    return begun_again or lost_hold(flow_run) or lives_beside(flow_run)


async def _settle_tree(client: PrefectClient, flow_run: FlowRun, state: State[Any]) -> None:
    """Settle what a flow run and all below it answer for, at once: none of the runs waits for another's end."""
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def one(ownership: Ownership, reason: str) -> None:
        async with limiter:
            try:
                await settle(ownership, await credentials_of(ownership), reason)
            except BoltError as error:
                run_logger().error("%s", error)

    generation = [flow_run]
    async with anyio.create_task_group() as group:
        while generation:
            for member in generation:
                for ownership in read_ownerships(member):
                    reason = verdict_on(state, ownership)
                    if ownership.is_open and reason is not None:
                        group.start_soon(one, ownership, reason)
            # Not only those that are unfinished: Prefect closes the children of a cancelled flow run by itself.
            generation = await subflows_of(client, [member.id for member in generation])
