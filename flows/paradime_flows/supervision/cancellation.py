"""Cleans up the Bolt runs of flow runs that have ended or do not notice their cancel, and writes heartbeats."""

from __future__ import annotations

import time
from contextlib import suppress

import anyio
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, StateType

from paradime_blocks import BoltRequestError, ParadimeCredentials
from paradime_flows.ledger import Record, Superseded, give_sign_of_life, lost_lease, read_records
from paradime_flows.prefect_api import (
    Observed,
    has_its_own_process,
    is_over,
    resolve_credentials,
    run_logger,
    state_types,
    subflows_of,
    the_observer,
    the_supervisor,
    times,
)
from paradime_flows.supervision.decide import Action, Event, decide
from paradime_flows.supervision.reconcile import reconcile_run
from paradime_flows.supervision.watch import StoppedByPrefect, is_cancelled

# The last two states of a flow run that was cancelled in the state AwaitingRetry, before and after its retry has begun.
# In this state, none of its code is running, and Prefect calls no hook. Its process starts the retry anyway, and
# overwrites the cancelled state.
_CANCELLED_BEFORE_RETRY = (
    [StateType.SCHEDULED, StateType.CANCELLED],
    [StateType.CANCELLING, StateType.RUNNING],
    [StateType.CANCELLED, StateType.RUNNING],
)


async def credentials_of(record: Record) -> ParadimeCredentials:
    """Return the credentials that this process has used for a record's workspace, or else those that it can load."""
    # Credentials that a flow has made in its code are in no Prefect block. Only this process has them.
    given = the_supervisor().of(record.flow_run_id).credentials.get(record.workspace)
    if given is not None:
        return given
    found = await resolve_credentials(record.credentials_block)
    if record.workspace_uid and record.workspace_uid != found.workspace_uid:
        # The flow run used the block's credentials for a workspace that the block does not name. If the credentials
        # cannot be used for that workspace, they are returned unchanged, and `reconcile_run` refuses them.
        with suppress(BoltRequestError):
            return found.for_workspace(record.workspace_uid)
    return found


async def clean_up_if_cancelled_before(client: PrefectClient, family: list[FlowRun]) -> None:
    """Clean up and raise StoppedByPrefect if a flow run, or a parent, was cancelled in the state AwaitingRetry."""
    for one in family:
        # Before its second attempt, a flow run that is not cancelled has awaited no retry.
        may_have_waited = one.run_count > 1 or is_cancelled([one])
        if may_have_waited and (await state_types(client, one.id))[-2:] in _CANCELLED_BEFORE_RETRY:
            reason = f"Flow run {one.name!r} was cancelled while it waited for its retry."
            await clean_up_family(client, one, Event.CANCELLED, reason)
            raise StoppedByPrefect(reason)


def keep_alive(flow_run: FlowRun) -> None:
    """Write heartbeats of this process until a flow run is over or another process runs it. The lease was the first.

    The observer's thread writes them, whatever the flow's own code does. Prefect's own heartbeats are events: they can
    be switched off, and are not read together with the flow run. The thread also cleans up after a cancel that the
    flow's code does not notice: the code awaits its retry, or does something else than wait for a task's Bolt run.
    """
    known = the_supervisor().of(flow_run.id)
    # Another task of the flow run may have started the heartbeats.
    if known.is_alive:
        return
    known.is_alive = True
    interval = min(times().watch_interval_seconds, times().beat_seconds)
    next_beat = time.monotonic() + times().beat_seconds
    cancel_seen = False

    async def on_read(client: PrefectClient, family: list[FlowRun]) -> None:
        nonlocal next_beat, cancel_seen
        is_lost = not family or lost_lease(family[0])
        if is_lost or is_over(family[0]):
            if not is_lost and is_cancelled(family[:1]):
                with suppress(StoppedByPrefect):
                    await clean_up_if_cancelled_before(client, family[:1])
            the_observer().remove(observed)
            known.is_alive = False
            return
        # A flow of this package notices a cancel itself.
        if is_cancelled(family) and any(one.is_open and one.is_of_task for one in read_records(family[0])):
            # The flow's code gets time to notice the cancel. The next read cleans up.
            if cancel_seen:
                reason = f"Flow run {flow_run.name!r} was cancelled while it did something else."
                await clean_up_family(client, family[0], Event.CANCELLED, reason)
            cancel_seen = True
        # A flow run is read at intervals, so the heartbeat is written a little too early, not too late.
        if time.monotonic() + interval >= next_beat:
            await give_sign_of_life(client, flow_run.id)
            next_beat = time.monotonic() + times().beat_seconds

    observed = Observed(flow_run.id, interval, min(times().rarely_seconds, times().beat_seconds), on_read)
    the_observer().add(observed)


async def clean_up_family(client: PrefectClient, flow_run: FlowRun, event: Event, reason: str) -> None:
    """Clean up the Bolt runs of a flow run and of all its subflows that the event affects, in parallel."""

    async def one(record: Record) -> None:
        try:
            await reconcile_run(record, await credentials_of(record), event, reason)
        except (Exception, Superseded) as error:  # noqa: BLE001 - the other runs must still be cleaned up
            run_logger().error("%s", error)

    generation = [flow_run]
    async with anyio.create_task_group() as group:
        while generation:
            for record in (record for member in generation for record in read_records(member)):
                if decide(record, event) not in {Action.NOTHING, Action.LEAVE}:
                    group.start_soon(one, record)
            try:
                # Subflows that have ended are cleaned up, too: if a flow run is cancelled, Prefect itself ends its
                # subflows, but not their Bolt runs.
                children = await subflows_of(client, [member.id for member in generation])
            except Exception as error:  # noqa: BLE001 - the clean-ups that have started must continue
                run_logger().error("Could not read the subflows of flow run %s: %s", flow_run.id, error)
                return
            # A crash ends only this process. A subflow that a deployment started runs in another process.
            generation = [
                one for one in children if event is not Event.CRASHED or not has_its_own_process(one)
            ]
