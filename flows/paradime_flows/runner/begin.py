"""Begins an execution of a flow run, and opens an intent of the flow run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from paradime_blocks import BoltSchedule
from paradime_blocks.trigger import TriggerRequest
from paradime_flows.ledger import (
    Record,
    Superseded,
    enter,
    execution_of,
    held_lease,
    read_records,
    take_lease,
    tasks_around,
)
from paradime_flows.prefect_api import (
    count_signals,
    current_execution_began_at,
    current_task_run_id,
    end_left_task_runs,
    is_rescheduled,
    lineage,
    prefect_client,
    schedule_tag,
)
from paradime_flows.runner.policies import RunPolicies
from paradime_flows.runner.resume import claim, take_over_earlier, with_reason
from paradime_flows.runner.takeover import complete_takeover, write_final_state
from paradime_flows.supervision import (
    clean_up_if_cancelled_before,
    clean_up_if_cancelled_meanwhile,
    keep_alive,
    remember_credentials,
)

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun


async def begin_execution(
    client: PrefectClient, flow_run_id: UUID, tags: Sequence[str] = ()
) -> tuple[FlowRun, Sequence[FlowRun]]:
    """Begin an execution of a flow run: take its lease, tag it, and send heartbeats.

    Returns:
        The flow run, as read after the lease was taken, and the flow runs that earlier attempts of its parents have
        made with the same call, newest first.

    Raises:
        StoppedByPrefect: The flow run was cancelled before this attempt began.
        Superseded: Another process runs this flow run now, or another flow run has replaced this flow run.
    """
    flow_run = await take_lease(client, flow_run_id)
    family = [one async for one in lineage(client, flow_run)]
    await clean_up_if_cancelled_before(client, family)
    others = await enter(client, family, tags)
    if others.replaced is not None:
        ours, newer = others.replaced
        # Prefect writes no final state for an execution that raises `Superseded`.
        for one in family[: family.index(ours) + 1]:
            await write_final_state(one.id, newer)
        raise Superseded(flow_run)
    await keep_alive(client, flow_run, clean_up_if_cancelled_meanwhile)
    return flow_run, others.earlier


async def open_intent(
    schedule: BoltSchedule,
    flow_run_id: UUID,
    policies: RunPolicies,
    request: TriggerRequest | None,
    key: str,
) -> tuple[Record, TriggerRequest]:
    """Return the record of an intent, and the request. The record is from this flow run, from an older one, or new.

    Raises:
        StoppedByPrefect, Superseded: The same errors as `begin_execution` raises.
        BoltError: This flow run replaces an old flow run. The old flow run was cancelled, but Bolt could not cancel its
            Bolt run.
    """
    count_signals()
    remember_credentials(flow_run_id, schedule.credentials)
    async with prefect_client() as client:
        flow_run, earlier = await begin_execution(client, flow_run_id, [schedule_tag(schedule.schedule_name)])
        if flow_run.run_count > 1:
            await end_left_task_runs(
                client,
                flow_run_id,
                "The process of an earlier attempt has ended.",
                begun_before=current_execution_began_at(),
            )
    request = with_reason(request or schedule.request(), flow_run)
    around = tasks_around(flow_run_id, but=current_task_run_id())
    record = claim(read_records(flow_run), key, request, execution_of(flow_run) or "", around)
    if record is not None:
        await complete_takeover(record, flow_run)
    else:
        record = await take_over_earlier(flow_run, key, schedule, request, earlier)
    record = record or Record(key=key, flow_run_id=flow_run_id, request=request)
    record.hold_with(held_lease(flow_run_id))
    record.asked, record.caller = request.fingerprint, around
    record.api_endpoint = schedule.credentials.api_endpoint
    record.workspace_uid = schedule.credentials.workspace_uid
    record.credentials_block = schedule.credentials._block_document_name  # noqa: SLF001 - no public name
    record.on_interrupt, record.on_crash = policies.on_interrupt, policies.on_crash
    record.on_timeout, record.is_rescheduled = policies.on_timeout, is_rescheduled()
    record.archive, record.left = policies.archive, policies.leave
    return record, request
