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

from collections.abc import Callable
from typing import Any
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.flows import Flow

from paradime_blocks.credentials import ParadimeCredentials
from paradime_blocks.signals import signals_held_off
from paradime_blocks.text.rendering import one_line
from paradime_flows.ledger.entry import FLOW_KEY, Ownership, read_ownerships
from paradime_flows.ledger.store import Superseded, lost_hold
from paradime_flows.prefect_api.context import resolve_credentials, run_logger
from paradime_flows.prefect_api.flow_runs import has_its_own_process, subflows_of
from paradime_flows.supervision.heartbeat import lives_beside
from paradime_flows.supervision.orphans import is_cancelled
from paradime_flows.supervision.reconcile import settle
from paradime_flows.supervision.watch import cancelled_before_body, state_types

_AT_ONCE = 16

_CANCELLED_WHILE_SCHEDULED = [StateType.SCHEDULED, StateType.CANCELLED]
# Flow runs of this process whose cancel has been seen once, while they had something under way.
_heard_of: set[UUID] = set()
# Credentials that were given in code and are in no block: known to this process only.
_in_this_process: dict[tuple[UUID, str, str | None], ParadimeCredentials] = {}


def remember_credentials(flow_run_id: UUID, credentials: ParadimeCredentials) -> None:
    """Keep the credentials of what a flow run answers for, for hooks that run in this process."""
    workspace = (flow_run_id, credentials.api_endpoint, credentials.workspace_uid)
    _in_this_process[workspace] = credentials


async def credentials_of(ownership: Ownership) -> ParadimeCredentials:
    """Return the credentials of an ownership: this process's, its block's, or the environment's.

    Raises:
        BoltRequestError: There are none.
    """
    workspace = (ownership.flow_run_id, ownership.api_endpoint, ownership.workspace_uid)
    kept = _in_this_process.get(workspace)
    return kept or await resolve_credentials(ownership.credentials_block)


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
    if state.is_failed() and ownership.key != FLOW_KEY and not ownership.unseen:
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
            await settle_family(
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
    return begun_again or lost_hold(flow_run) or lives_beside(flow_run)


async def settle_if_cancelled_before(client: PrefectClient, flow_run: FlowRun) -> str | None:
    """Settle what is left if a flow run, or one above it, was cancelled before its present body began.

    A cancel during AwaitingRetry reaches neither a body nor a hook.

    Returns:
        What to say of it; None if it was not.
    """
    cancelled = await cancelled_before_body(client, flow_run)
    if cancelled is None:
        return None
    reason = f"Flow run {cancelled.name!r} was cancelled while it waited for its retry."
    await settle_family(client, cancelled, lambda _: reason)
    return reason


async def settle_if_cancelled_meanwhile(client: PrefectClient, flow_run: FlowRun) -> bool:
    """Settle what is left if a flow run was cancelled, and nobody in it hears of that.

    It awaits its retry: no body hears of anything until then. Or its body is busy with something else than a Bolt run
    that it has triggered: it had until the second look to hear of it.

    Args:
        client: An open client.
        flow_run: The flow run, as just looked at.

    Returns:
        Whether nobody else in its process looks whether it is cancelled, or may not.
    """
    state = flow_run.state
    if state is None or lost_hold(flow_run):
        return False
    why = None
    if state.is_cancelled() and (await state_types(client, flow_run.id))[-2:] == _CANCELLED_WHILE_SCHEDULED:
        why = "while it waited for its retry"
    elif not state.is_final() and _has_triggered(flow_run) and await is_cancelled(client, flow_run):
        why = "while it did something else" if flow_run.id in _heard_of else None
        _heard_of.add(flow_run.id)
    if why is not None:
        reason = f"Flow run {flow_run.name!r} was cancelled {why}."
        await settle_family(client, flow_run, lambda _: reason)
    return state.is_scheduled() or _has_triggered(flow_run)


def _has_triggered(flow_run: FlowRun) -> bool:
    """Whether tasks of a flow run have triggered what it answers for still; a flow of ours hears of a cancel itself."""
    return any(ownership.is_open and ownership.key != FLOW_KEY for ownership in read_ownerships(flow_run))


async def settle_family(
    client: PrefectClient,
    flow_run: FlowRun,
    verdict: Callable[[Ownership], str | None],
    *,
    only_this_process: bool = False,
) -> None:
    """Settle what a flow run and all below it answer for, at once: none of the runs waits for another's end.

    Args:
        client: An open client.
        flow_run: The flow run.
        verdict: Says why a run is to end; None if it is not.
        only_this_process: Whether to leave out what runs in processes of its own.
    """
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def one(ownership: Ownership, reason: str) -> None:
        async with limiter:
            try:
                await settle(ownership, await credentials_of(ownership), reason)
            except (Exception, Superseded) as error:  # noqa: BLE001 - the others must be settled all the same
                run_logger().error("%s", error)

    generation = [flow_run]
    async with anyio.create_task_group() as group:
        while generation:
            for member in generation:
                for ownership in read_ownerships(member):
                    reason = verdict(ownership)
                    if ownership.is_open and reason is not None:
                        group.start_soon(one, ownership, reason)
            try:
                # Not only the unfinished: Prefect closes the children of a cancelled flow run by itself.
                children = await subflows_of(client, [member.id for member in generation])
                generation = [one for one in children if not (only_this_process and has_its_own_process(one))]
            except Exception as error:  # noqa: BLE001 - what is being settled must not end with it
                run_logger().error("The subflows of flow run %s cannot be told: %s", flow_run.id, error)
                return
