"""Suspends a flow run while its Bolt run is running, and resumes it when the Bolt run has ended.

A suspended flow run has no process, so its wait costs nothing. Another process has to notice the end of the Bolt run:
the flow `watch_runs`, or the receiver of Bolt's webhooks. When the flow run is resumed, its next execution tracks the
Bolt run again, as after a crash.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterTags,
)
from prefect.client.schemas.responses import SetStateStatus
from prefect.flow_runs import asuspend_flow_run

from paradime_blocks import BoltError, ParadimeCredentials
from paradime_blocks.text import shorten
from paradime_flows.ledger import FLOW_KEY, read_records
from paradime_flows.prefect_api import FLOW_RUN_TAG, every_flow_run, has_its_own_process, run_logger, times

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

    from paradime_flows.ledger import Record

# If this package suspends a flow run, the key of the suspension begins with this text. A flow run that a person has
# suspended has another key, and is not resumed here.
_PAUSE_KEY: Final = "paradime-bolt-run-"


def why_not_suspend(flow_run: FlowRun) -> str | None:
    """Return why a flow run cannot be suspended, as the end of a sentence; None if it can be suspended."""
    if not has_its_own_process(flow_run):
        return "only a flow run of a deployment can be suspended"
    if flow_run.parent_task_run_id is not None:
        return "a sub-flow run cannot be suspended alone"
    return None


async def suspend_during(run_id: int | None, remaining_seconds: float) -> None:
    """Suspend the current flow run until its Bolt run has ended or has reached its time limit.

    If the flow run is not resumed within a day after the time limit, Prefect fails it. Then the sweeper cleans up.

    Raises:
        Pause: Always, if Prefect has suspended the flow run.
        RuntimeError: Prefect did not suspend the flow run, for example because somebody cancels it.
    """
    run_logger().info(
        "The flow run is suspended while Bolt run %s is running. When the Bolt run has ended, watch_runs or a webhook "
        "resumes the flow run. The time limit of the Bolt run ends in %s.",
        run_id,
        shorten(max(0.0, remaining_seconds)),
    )
    # Prefect does not suspend a flow run twice with the same key. So each suspension has a new key.
    await asuspend_flow_run(
        timeout=int(max(0.0, remaining_seconds) + times().suspension_margin_seconds),
        key=f"{_PAUSE_KEY}{run_id}-{uuid4().hex[:8]}",
    )


async def resume_suspended(
    client: PrefectClient, credentials: ParadimeCredentials, ended: Collection[int] = ()
) -> list[FlowRun]:
    """Resume the flow runs that were suspended for a Bolt run that has ended, or has reached its time limit.

    This function can be called at any time and by several observers at once: Prefect resumes a flow run once.

    Args:
        client: An open Prefect client.
        credentials: The credentials of the workspace. Flow runs of other workspaces are not resumed.
        ended: Bolt runs that are known to have ended. Bolt is asked for the state of all others.

    Returns:
        The flow runs that were resumed.
    """
    waiting = [each for each in await _suspended(client) if each[1].is_in(credentials)]
    unknown = {record.run_id for _, record in waiting if not record.time_is_up} - {None, *ended}
    over = {*ended, *await _ended_runs(credentials, [each for each in unknown if each is not None])}
    resumed = []
    for flow_run, record in waiting:
        if record.run_id in over or record.time_is_up:
            run_logger().info("Resuming flow run %r for Bolt run %s.", flow_run.name, record.run_id)
            if await _resume(client, flow_run):
                resumed.append(flow_run)
    return resumed


async def _resume(client: PrefectClient, flow_run: FlowRun) -> bool:
    """Resume a flow run, and return whether Prefect has accepted this.

    An error is only logged, because the other flow runs must still be resumed.
    """
    try:
        answer = await client.resume_flow_run(flow_run.id)
    except Exception as error:  # noqa: BLE001 - see above
        run_logger().warning("Could not resume flow run %r: %s", flow_run.name, error)
        return False
    if answer.status is SetStateStatus.REJECT:
        why = getattr(answer.details, "reason", None)
        run_logger().warning("Prefect does not resume flow run %r: %s", flow_run.name, why)
    return answer.status is SetStateStatus.ACCEPT


async def _suspended(client: PrefectClient) -> list[tuple[FlowRun, Record]]:
    """Return the flow runs that this package has suspended, and the record of each."""
    these = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[FLOW_RUN_TAG]),
        state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Suspended"])),
    )
    return [
        (flow_run, record)
        async for flow_run in every_flow_run(client, these)
        if flow_run.state is not None
        and (flow_run.state.state_details.pause_key or "").startswith(_PAUSE_KEY)
        for record in read_records(flow_run)
        if record.key == FLOW_KEY
    ]


async def _ended_runs(credentials: ParadimeCredentials, run_ids: list[int]) -> set[int]:
    """Return the Bolt runs that have ended. Runs that Bolt does not return count as running."""
    if not run_ids:
        return set()
    try:
        async with credentials.get_client() as client:
            found = await client.get_bolt_runs(run_ids, errors={})
    except BoltError as error:
        run_logger().warning("Could not ask Bolt for the runs of suspended flow runs: %s", error)
        return set()
    return {run_id for run_id, status in found.items() if status.state.is_terminal}
