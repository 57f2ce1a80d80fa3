"""Waits for a Bolt run without a process: after a short wait in the process, the flow run is suspended.

A suspended flow run has no process, so its wait costs nothing. When the Bolt run has ended, another process resumes the
flow run (`paradime_flows.supervision.resume_suspended`). Then the code of the flow begins anew and resumes the Bolt
run, as after a crash.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio
from prefect.context import FlowRunContext
from prefect.flow_runs import asuspend_flow_run

from paradime_blocks import BoltError
from paradime_blocks.models import BoltUsualDuration
from paradime_blocks.text import shorten
from paradime_flows.prefect_api import has_its_own_process, run_logger, times
from paradime_flows.supervision import PAUSE_KEY, remaining_seconds

if TYPE_CHECKING:
    from paradime_blocks import BoltRun
    from paradime_flows.runner.lifecycle import RunLifecycle

# How many of the schedule's newest runs are read for its usual duration.
_RUNS = 30


async def has_ended_soon(lifecycle: RunLifecycle, run: BoltRun) -> bool:
    """Wait until the Bolt run has ended. If that takes long, return False: the flow run is to be suspended.

    The flow run waits at least a minute, and longer if runs of the schedule usually end about now.
    """
    if (why := _why_not_suspend()) is not None:
        lifecycle.decision_log.note(f"The flow run waits in its process, since {why}.")
        await lifecycle.wait(run)
        return True
    usual = await _usual_seconds(lifecycle, run)
    while True:
        with anyio.move_on_after(times().held_seconds):
            await lifecycle.wait(run)
            return True
        usual_end = (lifecycle.record.began_at or time.time()) + usual
        # A run that has taken a little longer than usual will probably end soon, too.
        if abs(usual_end - time.time()) > times().worth_suspending_seconds:
            return False


def _why_not_suspend() -> str | None:
    """Return why the current flow run cannot be suspended, as the end of a sentence; None if it can be suspended."""
    context = FlowRunContext.get()
    flow_run = context.flow_run if context is not None else None
    if flow_run is None or not has_its_own_process(flow_run):
        return "only a flow run of a deployment can be suspended"
    if flow_run.parent_task_run_id is not None:
        return "a sub-flow run cannot be suspended alone"
    return None


async def _usual_seconds(lifecycle: RunLifecycle, run: BoltRun) -> float:
    """Return how many seconds runs of the schedule usually take; infinite if this is unknown."""
    usual = None
    # An older backend cannot list runs.
    with suppress(BoltError):
        async with lifecycle.schedule.credentials.get_client() as client:
            page = await client.list_bolt_runs(lifecycle.record.schedule, limit=_RUNS)
        usual = BoltUsualDuration.of(page.runs, run.run_id)
    return usual.seconds if usual is not None and usual.seconds > 0 else float("inf")


async def suspend(lifecycle: RunLifecycle) -> None:
    """Suspend the current flow run. If Prefect does not do so, for example because of a cancel, this function returns.

    If the flow run is not resumed within a day after the time limit, Prefect fails it. Then the sweeper cleans up.

    Raises:
        Pause: Prefect has suspended the flow run.
    """
    record, limit = lifecycle.record, lifecycle.schedule.timeout_seconds
    remaining = await remaining_seconds(record, lifecycle.schedule.credentials, limit)
    run_logger().info(
        "The flow run is suspended while Bolt run %s is running. When the Bolt run has ended, watch_runs or a webhook "
        "resumes the flow run. The time limit of the Bolt run ends in %s.",
        record.run_id,
        shorten(remaining),
    )
    try:
        # Prefect does not suspend a flow run twice with the same key. So each suspension has a new key.
        await asuspend_flow_run(
            timeout=int(remaining + times().suspension_margin_seconds),
            key=f"{PAUSE_KEY}{record.run_id}-{uuid4().hex[:8]}",
        )
    except Exception as error:  # noqa: BLE001 - an outage of Prefect must not end the wait
        lifecycle.decision_log.note(f"Prefect did not suspend the flow run: {error}")
