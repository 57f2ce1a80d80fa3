"""The flow `sweep_orphans`: finds Bolt runs that no flow run waits for any more."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import anyio
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from pydantic import Field

from paradime_blocks.models import run_url
from paradime_flows.parameters import CredentialsParameter
from paradime_flows.prefect_api import (
    ArtifactWriter,
    async_form,
    bolt_flow,
    current_flow_run_id,
    resolve_credentials,
    run_logger,
    times,
)
from paradime_flows.supervision import Sweep, SweepAction, SweptRun, candidates, may_live

_AT_ONCE = 8


@bolt_flow(
    name="sweep-orphans",
    description="Finds Bolt runs whose flow run crashed, ended or lost its process, and cancels or resumes them.",
)
async def sweep_orphans(
    credentials: CredentialsParameter = None,
    *,
    action: SweepAction = "cancel",
    older_than_seconds: Annotated[float, Field(ge=0, le=30 * 86_400)] = 900,
    lookback_days: Annotated[float, Field(gt=0, le=365)] = 14,
) -> list[SweptRun]:
    """Find flow runs that have ended or gone silent, but still own a Bolt run, and clean up after them.

    You can run this flow at any time, and several times at once. The sweeper reads each flow run again right before
    it acts. If the process of a flow run is gone, the sweeper sets the flow run to Crashed, or to Cancelled if a
    cancel was requested. It does so even if there is no Bolt run to clean up.

    Args:
        credentials: A Paradime Credentials block or its name; only Bolt runs of its workspace are swept.
            Empty: the environment's credentials.
        action: cancel: cancel the Bolt run. attach: wait for the Bolt run as its flow run would have, with the same
            time limit and policies, and archive it to that flow run; if the flow run was cancelled, cancel the Bolt
            run. report: change nothing.
        older_than_seconds: The flow run must have ended or sent no heartbeat for this time, in seconds. So a retry
            has time to resume the Bolt run. If `on_crash` or `on_interrupt` left the Bolt run for a retry, the time is
            at least 15 minutes. If the flow run was cancelled, the time is zero.
        lookback_days: The maximum age of a flow run, in days.

    Returns:
        What was found and done: one entry for each Bolt run.

    Example:
        ```python
        from paradime_flows.sweep_orphans import sweep_orphans

        for found in sweep_orphans(action="report"):
            print(found.flow_run_name, found.run_id, found.state)
        ```
    """
    found = await resolve_credentials(credentials)
    sweep = Sweep(found, action, older_than_seconds)
    async with get_client() as client:
        flow_runs = await candidates(client, timedelta(days=lookback_days))
        orphans = [flow_run for flow_run in flow_runs if await sweep.is_orphan(client, flow_run)]
        run_logger().info("Checked %d flow runs; %d to sweep.", len(flow_runs), len(orphans))
        if any(may_live(flow_run) or sweep.is_young(flow_run) for flow_run in orphans):
            # The clocks of their processes may be behind ours. In this time, a process that is alive sends a heartbeat
            # or cleans up.
            await anyio.sleep(times().two_beats_seconds)
        limiter = anyio.CapacityLimiter(_AT_ONCE)

        async def one(flow_run: FlowRun) -> None:
            async with limiter:
                await sweep.sweep(client, flow_run)

        async with anyio.create_task_group() as group:
            for flow_run in orphans:
                group.start_soon(one, flow_run)
    swept = sorted(sweep.swept, key=lambda entry: (entry.schedule_name, str(entry.flow_run_id)))
    await ArtifactWriter(current_flow_run_id()).table(
        "paradime-orphans", _rows(swept), _described(swept, action)
    )
    return swept


asweep_orphans = async_form(sweep_orphans)


def _rows(swept: list[SweptRun]) -> list[dict[str, object]]:
    return [
        {
            "Schedule": entry.schedule_name,
            "Flow run": entry.flow_run_name,
            "State in Prefect": entry.flow_run_state,
            "Bolt run": entry.run_id or "",
            "State in Bolt": str(entry.state or ""),
            "Done": entry.done,
            "Page": run_url(entry.run_id) if entry.run_id else "",
        }
        for entry in swept
    ]


def _described(swept: list[SweptRun], action: SweepAction) -> str:
    return f"{len(swept)} Bolt runs that no flow run waits for; action: {action}."
