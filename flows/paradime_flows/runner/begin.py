"""Begins an intent of a flow run: takes the lease, then finds the record to resume or makes a new one."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import get_client

from paradime_blocks import BoltSchedule
from paradime_blocks.trigger import TriggerRequest
from paradime_flows.ledger import (
    FLOW_KEY,
    Ownership,
    caller_of,
    check_lease,
    execution_of,
    read_ownerships,
    tag_flow_run,
    take_lease,
    tasks_around,
    write_callers,
)
from paradime_flows.prefect_api import count_signals, current_task_run_id
from paradime_flows.runner.policies import RunPolicies
from paradime_flows.runner.resume import claim, take_over_earlier, with_reason
from paradime_flows.runner.takeover import complete_takeover, stop_if_replaced
from paradime_flows.supervision import (
    StoppedByPrefect,
    clean_up_if_cancelled_before,
    clean_up_if_cancelled_meanwhile,
    keep_alive,
    remember_credentials,
)


async def open_intent(
    schedule: BoltSchedule,
    flow_run_id: UUID,
    policies: RunPolicies,
    request: TriggerRequest | None,
    key: str,
) -> tuple[Ownership, TriggerRequest]:
    """Return the record of an intent, from the flow run's labels or new, and what to trigger.

    Args:
        schedule: What to run.
        flow_run_id: The flow run.
        policies: What to do when something goes wrong.
        request: What to trigger; the schedule as it is by default.
        key: The intent's key.

    Raises:
        StoppedByPrefect: The flow run was cancelled before this attempt began.
        Superseded: Another flow run has replaced this one.
        BoltError: The flow run that this one replaces was cancelled, and Bolt does not cancel its run.
    """
    count_signals()
    async with get_client() as client:
        # The lease is taken before any record is read that may be resumed.
        await take_lease(client, flow_run_id)
        flow_run = await client.read_flow_run(flow_run_id)
        check_lease(flow_run)
        remember_credentials(flow_run_id, schedule.credentials)
        reason = await clean_up_if_cancelled_before(client, flow_run)
        if reason is not None:
            raise StoppedByPrefect(reason)
        await stop_if_replaced(client, flow_run)
        await keep_alive(client, flow_run, clean_up_if_cancelled_meanwhile)
        flow_run = await write_callers(client, flow_run)
        called_by = await caller_of(client, flow_run) if key == FLOW_KEY else None
        around = called_by or tasks_around(flow_run_id, but=current_task_run_id())
    # The tag comes before the record: the sweeper finds flow runs by it.
    await tag_flow_run(flow_run_id)
    request = with_reason(request or schedule.request(), flow_run)
    claimed = claim(read_ownerships(flow_run), key, request, execution_of(flow_run) or "", around)
    if claimed is not None and not await complete_takeover(claimed, flow_run, schedule.credentials):
        claimed = None
        # The record was replaced by an empty one, which is read here.
        async with get_client() as client:
            flow_run = await client.read_flow_run(flow_run_id)
        check_lease(flow_run)
    ownership = (
        claimed
        or await take_over_earlier(flow_run, key, schedule, request, called_by)
        or Ownership(key=key, flow_run_id=flow_run_id, request=request)
    )
    ownership.leased_to(flow_run)
    if ownership.reported:
        ownership.refused = None
    ownership.asked, ownership.caller = request.fingerprint, around
    ownership.api_endpoint = schedule.credentials.api_endpoint
    ownership.workspace_uid = schedule.credentials.workspace_uid
    ownership.credentials_block = schedule.credentials._block_document_name  # noqa: SLF001 - no public name
    ownership.on_interrupt, ownership.on_crash = policies.on_interrupt, policies.on_crash
    ownership.on_timeout = policies.on_timeout
    ownership.archive, ownership.left = policies.archive, policies.leave
    return ownership, request
