"""Begins an execution of a flow run, and opens an intent of the flow run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from paradime_blocks import BoltSchedule
from paradime_blocks.trigger import TriggerRequest
from paradime_flows.ledger import Record, Superseded, attempts_around, enter, held_lease, take_lease
from paradime_flows.prefect_api import (
    count_signals,
    current_execution_began_at,
    end_left_task_runs,
    is_rescheduled,
    lineage,
    prefect_client,
    schedule_tag,
)
from paradime_flows.runner.policies import RunPolicies
from paradime_flows.runner.resume import resume_record, with_reason, write_final_state
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

    Return the flow run, as read after the lease was taken, and the flow runs that earlier attempts of its parents have
    made with the same call, newest first.

    Raises:
        StoppedByPrefect: The flow run was cancelled before this attempt began.
        Superseded: Another process runs this flow run now, or another flow run has replaced this flow run.
    """
    flow_run = await take_lease(client, flow_run_id)
    family = [one async for one in lineage(client, flow_run)]
    await clean_up_if_cancelled_before(client, family)
    earlier, replaced = await enter(client, family, tags)
    if replaced is not None:
        ours, newer = replaced
        # Prefect writes no final state for an execution that raises `Superseded`.
        for one in family[: family.index(ours) + 1]:
            await write_final_state(one.id, newer)
        raise Superseded(flow_run)
    await keep_alive(client, flow_run, clean_up_if_cancelled_meanwhile)
    return flow_run, earlier


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
    facts: dict[str, Any] = {
        "asked": request.fingerprint,
        "called_in": attempts_around(flow_run_id),
        "api_endpoint": schedule.credentials.api_endpoint,
        "workspace_uid": schedule.credentials.workspace_uid,
        "credentials_block": schedule.credentials._block_document_name,  # noqa: SLF001 - no public name
        "on_interrupt": policies.on_interrupt,
        "is_rescheduled": is_rescheduled(),
        "on_crash": policies.on_crash,
        "on_timeout": policies.on_timeout,
        "archive": policies.archive,
        "left": policies.leave,
    }
    new = Record(key=key, flow_run_id=flow_run_id, request=request, **facts)
    record = await resume_record(new, flow_run, schedule.credentials, earlier) or new
    return record.model_copy(update=facts).hold_with(held_lease(flow_run_id)), request
