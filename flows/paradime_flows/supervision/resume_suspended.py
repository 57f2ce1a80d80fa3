"""Resumes a flow run that was suspended while its Bolt run was running (`paradime_flows.runner.suspend`)."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Final

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import SetStateStatus

from paradime_blocks import BoltError, ParadimeCredentials
from paradime_flows.ledger import FLOW_KEY, Record, read_records
from paradime_flows.prefect_api import FLOW_RUN_TAG, every_flow_run, run_logger

# The key of each suspension by this package begins with this text. A flow run that a person has suspended has another
# key, and is not resumed here.
PAUSE_KEY: Final = "paradime-bolt-run-"


async def resume_suspended(
    client: PrefectClient, credentials: ParadimeCredentials, ended: Collection[int] = ()
) -> list[FlowRun]:
    """Resume the flow runs that were suspended for a Bolt run that has ended, or has reached its time limit.

    Several processes may call this function at once: Prefect resumes a flow run once. Return the flow runs that were
    resumed. Bolt is asked only for Bolt runs that are not known to have `ended`. Raise a BoltError if Bolt refuses.
    """
    suspended = filters.FlowRunFilterStateName(any_=["Suspended"])
    these = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[FLOW_RUN_TAG]), state=filters.FlowRunFilterState(name=suspended)
    )
    waiting = [
        (flow_run, record)
        async for flow_run in every_flow_run(client, these)
        if flow_run.state is not None and (flow_run.state.state_details.pause_key or "").startswith(PAUSE_KEY)
        for record in read_records(flow_run)
        if record.key == FLOW_KEY and record.is_in(credentials)
    ]
    over = {*ended}
    if asked := {record.run_id for _, record in waiting if record.run_id} - over:
        # A run that Bolt does not return counts as running. If Bolt does not answer, the next call asks again.
        with suppress(BoltError):
            async with credentials.get_client() as bolt:
                found = await bolt.get_bolt_runs(list(asked), errors={})
            over |= {run_id for run_id, status in found.items() if status.state.is_terminal}
    return [
        flow_run
        for flow_run, record in waiting
        if (record.run_id in over or record.time_is_up) and await _resume(client, flow_run, record)
    ]


async def _resume(client: PrefectClient, flow_run: FlowRun, record: Record) -> bool:
    run_logger().info("Resuming flow run %r for Bolt run %s.", flow_run.name, record.run_id)
    try:
        answer = await client.resume_flow_run(flow_run.id)
    except Exception as error:  # noqa: BLE001 - the other flow runs must still be resumed
        run_logger().warning("Could not resume flow run %r: %s", flow_run.name, error)
        return False
    if answer.status is SetStateStatus.REJECT:
        reason = getattr(answer.details, "reason", None)
        run_logger().warning("Prefect does not resume flow run %r: %s", flow_run.name, reason)
    return answer.status is SetStateStatus.ACCEPT
