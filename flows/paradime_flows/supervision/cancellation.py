"""Cleans up the Bolt runs of a flow run and its subflows: when it ends, or if its own code does not notice a cancel."""

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
    """Store the credentials of a flow run's Bolt runs, for hooks that run in this process."""
    workspace = (credentials.api_endpoint, credentials.workspace_uid)
    the_supervisor().of(flow_run_id).credentials[workspace] = credentials


async def credentials_of(ownership: Ownership) -> ParadimeCredentials:
    """Return the credentials of a record: given in this process, from its Prefect block, or from the environment.

    Raises:
        BoltRequestError: There are no credentials.
    """
    workspace = (ownership.api_endpoint, ownership.workspace_uid)
    # Credentials that were given in code are not stored in a Prefect block.
    given = the_supervisor().of(ownership.flow_run_id).credentials.get(workspace)
    if given is not None:
        return given
    found = await resolve_credentials(ownership.credentials_block)
    if ownership.workspace_uid and ownership.workspace_uid != found.workspace_uid:
        # The flow run used its Prefect block for another workspace. If the credentials cannot be used for several
        # workspaces, `clean_up` refuses them.
        with suppress(BoltRequestError):
            return found.for_workspace(ownership.workspace_uid)
    return found


async def clean_up_if_cancelled_before(client: PrefectClient, flow_run: FlowRun) -> str | None:
    """Clean up if a flow run, or one of its parents, was cancelled before its current execution began.

    If a flow run is cancelled during AwaitingRetry, no execution and no hook notices the cancel.

    Returns:
        A message about the cancel; None if nobody has cancelled them.
    """
    cancelled = await cancelled_before_execution(client, flow_run)
    if cancelled is None:
        return None
    reason = f"Flow run {cancelled.name!r} was cancelled while it waited for its retry."
    await clean_up_family(client, cancelled, lambda _: reason)
    return reason


async def clean_up_if_cancelled_meanwhile(client: PrefectClient, flow_run: FlowRun) -> bool:
    """Clean up if a flow run was cancelled and its own code does not notice the cancel.

    There are two cases. If the flow run awaits its retry, none of its code is running. If a task has triggered a Bolt
    run, the flow's code may do something else than wait for that run: the code has time to notice the cancel until the
    second check.

    Args:
        client: An open client.
        flow_run: The flow run, as just read.

    Returns:
        Whether the flow run must be checked often, because nothing else in its process may check for a cancel.
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
    """Whether tasks of a flow run have triggered Bolt runs that are still open.

    The flows of this package do not count: they notice a cancel themselves.
    """
    return any(ownership.is_open and ownership.key != FLOW_KEY for ownership in read_ownerships(flow_run))


async def clean_up_family(
    client: PrefectClient,
    flow_run: FlowRun,
    verdict: Callable[[Ownership], str | None],
    *,
    only_this_process: bool = False,
) -> None:
    """Clean up the Bolt runs of a flow run and of all its subflows, in parallel.

    Args:
        client: An open client.
        flow_run: The flow run.
        verdict: Called with each record. It returns why the Bolt run is cancelled; None if the run continues.
        only_this_process: Whether to leave out the subflows that run in other processes.
    """
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def one(ownership: Ownership, reason: str) -> None:
        async with limiter:
            try:
                await clean_up(ownership, await credentials_of(ownership), reason)
            except (Exception, Superseded) as error:  # noqa: BLE001 - the other runs must still be cleaned up
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
                # Subflows that have ended count, too: Prefect itself ends the children of a cancelled flow run.
                children = await subflows_of(client, [member.id for member in generation])
                generation = [one for one in children if not (only_this_process and has_its_own_process(one))]
            except Exception as error:  # noqa: BLE001 - the clean-ups that have started must continue
                run_logger().error("Could not read the subflows of flow run %s: %s", flow_run.id, error)
                return
