"""The flow `sweep_orphans`: finds Bolt runs that no flow run waits for any longer."""

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
    description="Finds Bolt runs whose flow run has crashed, ended or vanished, and cancels or takes them up.",
)
async def sweep_orphans(
    credentials: CredentialsParameter = None,
    *,
    action: SweepAction = "cancel",
    older_than_seconds: Annotated[float, Field(ge=0, le=30 * 86_400)] = 900,
    lookback_days: Annotated[float, Field(gt=0, le=365)] = 14,
) -> list[SweptRun]:
    """Find flow runs that are over, or silent, while they still answer for a Bolt run, and act on those.

    Safe to repeat, and for several at once. Each flow run is read again right before anything is done. One whose
    process has vanished is written as Crashed, or as Cancelled if that was asked for, also where nothing is left of it
    in Bolt.

    Args:
        credentials: A Paradime Credentials block or the name of one; only Bolt runs of its workspace are swept.
            Empty: the environment's.
        action: cancel: cancel the Bolt run; attach: wait for its end, or for that of its flow run's time limit, which
            cancels or leaves it as it would have, and archive it to its flow run, unless that was cancelled: then its
            Bolt run is, too; report: only tell.
        older_than_seconds: How long the flow run must have been over or silent, in seconds: the wait gives a
            retry the time to take the run up again. A run that `on_crash` or `on_interrupt` leaves for one is given
            a quarter of an hour at least; one whose flow run was cancelled is given none.
        lookback_days: How old a flow run may be at most, in days.

    Returns:
        What was found and done, one entry for each Bolt run.

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
        run_logger().info("%d flow runs looked at, %d to be swept.", len(flow_runs), len(orphans))
        if any(may_live(flow_run) or sweep.is_young(flow_run) for flow_run in orphans):
            # Their clocks may be behind ours. Whoever lives writes another sign, or settles a cancel, within this time.
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
    return f"{len(swept)} Bolt runs without a flow run to wait for them; action: {action}."
