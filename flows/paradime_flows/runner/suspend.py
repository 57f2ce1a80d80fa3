"""Waits for a Bolt run without a process: after a short wait in the process, the flow run is suspended.

A suspended flow run has no process, so its wait costs nothing. When the Bolt run has ended, another process resumes the
flow run (`paradime_flows.supervision.resume_suspended`). Then the code of the flow begins anew and resumes the Bolt
run, as after a crash.
"""

from __future__ import annotations

import time
from contextlib import suppress
from math import inf
from uuid import uuid4

import anyio
from prefect.flow_runs import asuspend_flow_run

from paradime_blocks import BoltError, BoltRun
from paradime_blocks.models import BoltUsualDuration
from paradime_blocks.text import shorten
from paradime_flows.prefect_api import flow_run_at_begin, has_its_own_process, run_logger, times
from paradime_flows.runner.lifecycle import RunLifecycle
from paradime_flows.supervision import PAUSE_KEY, remaining_seconds


async def has_ended_soon(lifecycle: RunLifecycle, run: BoltRun) -> bool:
    """Wait until the Bolt run has ended. If that takes long, return False: the flow run is to be suspended.

    The flow run waits at least a minute, and longer if runs of the schedule usually end about now.
    """
    flow_run, why = flow_run_at_begin(lifecycle.record.flow_run_id), None
    if flow_run is None or not has_its_own_process(flow_run):
        why = "only a flow run of a deployment can be suspended"
    elif flow_run.parent_task_run_id is not None:
        why = "a sub-flow run cannot be suspended alone"
    if why is not None:
        lifecycle.decision_log.note(f"The flow run waits in its process, since {why}.")
        await lifecycle.wait(run)
        return True
    usual = None
    # An older backend cannot list runs.
    with suppress(BoltError):
        async with lifecycle.schedule.credentials.get_client() as client:
            page = await client.list_bolt_runs(lifecycle.record.schedule, limit=30)
        usual = BoltUsualDuration.of(page.runs, run.run_id)
    while True:
        with anyio.move_on_after(times().held_seconds):
            await lifecycle.wait(run)
            return True
        usual_end = (lifecycle.record.began_at or time.time()) + (usual.seconds if usual is not None else inf)
        # A run that has taken a little longer than usual will probably end soon, too.
        if abs(usual_end - time.time()) > times().worth_suspending_seconds:
            return False


async def suspend(lifecycle: RunLifecycle) -> None:
    """Suspend the current flow run, and raise Prefect's `Pause`. Return if Prefect refuses, for example after a cancel.

    If the flow run is not resumed within a day after the time limit, Prefect fails it. Then the sweeper cleans up.
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
