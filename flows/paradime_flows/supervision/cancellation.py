"""Settling what a flow run and all below it answer for: at its end, or where a cancel reaches no body and no hook."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, StateType

from paradime_blocks import BoltRequestError, ParadimeCredentials
from paradime_flows.ledger import FLOW_KEY, Ownership, Superseded, lost_lease, read_ownerships
from paradime_flows.prefect_api import (
    has_its_own_process,
    resolve_credentials,
    run_logger,
    state_types,
    subflows_of,
    the_supervisor,
)
from paradime_flows.supervision.orphans import is_cancelled
from paradime_flows.supervision.reconcile import clean_up
from paradime_flows.supervision.watch import cancelled_before_execution

_AT_ONCE = 16

_CANCELLED_WHILE_SCHEDULED = [StateType.SCHEDULED, StateType.CANCELLED]


def remember_credentials(flow_run_id: UUID, credentials: ParadimeCredentials) -> None:
    """Keep the credentials of what a flow run answers for, for hooks that run in this process."""
    workspace = (credentials.api_endpoint, credentials.workspace_uid)
    the_supervisor().of(flow_run_id).credentials[workspace] = credentials


async def credentials_of(ownership: Ownership) -> ParadimeCredentials:
    """Return the credentials of an ownership: this process's, its block's, or the environment's.

    Raises:
        BoltRequestError: There are none.
    """
    workspace = (ownership.api_endpoint, ownership.workspace_uid)
    # Those that were given in code are in no block.
    given = the_supervisor().of(ownership.flow_run_id).credentials.get(workspace)
    if given is not None:
        return given
    found = await resolve_credentials(ownership.credentials_block)
    if ownership.workspace_uid and ownership.workspace_uid != found.workspace_uid:
        # The flow run used its block for another workspace; what opens one only is refused where it is used.
        with suppress(BoltRequestError):
            return found.for_workspace(ownership.workspace_uid)
    return found


async def clean_up_if_cancelled_before(client: PrefectClient, flow_run: FlowRun) -> str | None:
    """Settle what is left if a flow run, or one above it, was cancelled before its present body began.

    A cancel during AwaitingRetry reaches neither a body nor a hook.

    Returns:
        What to say of it; None if it was not.
    """
    cancelled = await cancelled_before_execution(client, flow_run)
    if cancelled is None:
        return None
    reason = f"Flow run {cancelled.name!r} was cancelled while it waited for its retry."
    await clean_up_family(client, cancelled, lambda _: reason)
    return reason


async def clean_up_if_cancelled_meanwhile(client: PrefectClient, flow_run: FlowRun) -> bool:
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
    if state is None or lost_lease(flow_run):
        return False
    why = None
    if state.is_cancelled() and (await state_types(client, flow_run.id))[-2:] == _CANCELLED_WHILE_SCHEDULED:
        why = "while it waited for its retry"
    elif not state.is_final() and _has_triggered(flow_run) and await is_cancelled(client, flow_run):
        known = the_supervisor().of(flow_run.id)
        why = "while it did something else" if known.cancel_seen else None
        known.cancel_seen = True
    if why is not None:
        reason = f"Flow run {flow_run.name!r} was cancelled {why}."
        await clean_up_family(client, flow_run, lambda _: reason)
    return state.is_scheduled() or _has_triggered(flow_run)


def _has_triggered(flow_run: FlowRun) -> bool:
    """Whether tasks of a flow run have triggered what it answers for still; a flow of ours hears of a cancel itself."""
    return any(ownership.is_open and ownership.key != FLOW_KEY for ownership in read_ownerships(flow_run))


async def clean_up_family(
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
                await clean_up(ownership, await credentials_of(ownership), reason)
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
