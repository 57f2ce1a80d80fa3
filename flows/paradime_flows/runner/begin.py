"""Begins an intent of a flow run: takes the lease, then finds the record to resume, or makes a new record."""

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
    """Return the record of an intent, and what to trigger. The record is read from the flow run's labels, or is new.

    Args:
        schedule: The schedule to run.
        flow_run_id: The flow run.
        policies: What to do when something goes wrong.
        request: What to trigger. By default, the schedule is triggered without changes.
        key: The intent's key.

    Raises:
        StoppedByPrefect: The flow run was cancelled before this attempt began.
        Superseded: Another flow run has replaced this flow run.
        BoltError: This flow run replaces an old flow run. The old flow run was cancelled, but Bolt could not cancel its
            Bolt run.
    """
    count_signals()
    async with get_client() as client:
        # The lease is taken first. The records that may be resumed are read after it.
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
    # The tag is written before the record, because the sweeper finds flow runs by the tag.
    await tag_flow_run(flow_run_id)
    request = with_reason(request or schedule.request(), flow_run)
    claimed = claim(read_ownerships(flow_run), key, request, execution_of(flow_run) or "", around)
    if claimed is not None and not await complete_takeover(claimed, flow_run, schedule.credentials):
        claimed = None
        # `complete_takeover` has replaced the record by an empty record. The flow run is read again, with that record.
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
