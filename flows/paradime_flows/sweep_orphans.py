"""The flow `sweep_orphans`: finds Bolt runs that no flow run waits for any more."""

from __future__ import annotations

from typing import Annotated

import anyio
from pydantic import Field

from paradime_blocks.models import run_url
from paradime_flows.parameters import CredentialsParameter
from paradime_flows.prefect_api import (
    ArtifactWriter,
    async_form,
    bolt_flow,
    current_flow_run_id,
    prefect_client,
    resolve_credentials,
    run_logger,
    times,
)
from paradime_flows.supervision import Sweep, SweepAction, SweptRun, candidates, idle_seconds


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
    """Find Bolt runs whose flow run has ended or has stopped sending heartbeats, and cancel or resume these Bolt runs.

    You can run this flow, the sweeper, at any time, and several times at once. The sweeper reads each flow run again
    right before the sweeper changes anything. If the process of a flow run is gone, the sweeper sets the flow run's
    state to Crashed, or to Cancelled if a cancel was requested. The sweeper sets this state even if there is no Bolt
    run to clean up.

    Args:
        credentials: A saved Paradime Credentials block, or the name of the block. The flow cleans up only Bolt runs of
            the workspace that these credentials belong to. If empty, the flow uses the environment variables
            PARADIME_*.
        action: What the flow does with each Bolt run that it finds. cancel: cancel the Bolt run. attach: wait for the
            Bolt run with the time limit and the policies of its flow run, and archive the Bolt run for its flow run;
            if the flow run was cancelled, cancel the Bolt run. report: change nothing.
        older_than_seconds: The flow cleans up the Bolt run only if the Bolt run's flow run ended, or sent its last
            heartbeat, at least this many seconds ago. So a retry has time to resume the Bolt run. If `on_crash` or
            `on_interrupt` left the Bolt run running for a retry, the time is at least 15 minutes. If the flow run was
            cancelled, the time is zero.
        lookback_days: The maximum age of the flow runs that the flow checks, in days.

    Returns:
        One entry for each Bolt run that the flow found. The entry says what the flow did with the Bolt run.

    Example:
        ```python
        from paradime_flows.sweep_orphans import sweep_orphans

        for found in sweep_orphans(action="report"):
            print(found.flow_run_name, found.run_id, found.state)
        ```
    """
    found = await resolve_credentials(credentials)
    async with prefect_client() as client:
        sweep = Sweep(client, found, action, older_than_seconds)
        flow_runs = await candidates(client, found, lookback_days)
        idle = [flow_run for flow_run in flow_runs if idle_seconds(flow_run) >= 0]
        line = "Checked %d flow runs; %d of them have ended or are silent (older_than_seconds is %g)."
        run_logger().info(line, len(flow_runs), len(idle), older_than_seconds)
        if any(flow_run.state is None or not flow_run.state.is_final() for flow_run in idle):
            # The clocks of the flow runs' machines may be behind our clock. During this sleep, a process that is still
            # alive sends a heartbeat.
            await anyio.sleep(times().next_beat_seconds)
        async with anyio.create_task_group() as group:
            for flow_run in idle:
                group.start_soon(sweep.sweep, flow_run)
    swept = sorted(sweep.swept, key=lambda entry: (entry.schedule_name, str(entry.flow_run_id)))
    rows: list[dict[str, object]] = [
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
    description = f"Found {len(swept)} Bolt runs that no flow run waits for; action: {action}."
    await ArtifactWriter(current_flow_run_id()).table("paradime-orphans", rows, description)
    return swept


asweep_orphans = async_form(sweep_orphans)
