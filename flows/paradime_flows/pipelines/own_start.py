"""Finds the run that Bolt itself has started for a step, because the step's schedule runs after another schedule."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import anyio

from paradime_blocks import BoltError, ParadimeCredentials
from paradime_blocks.models import BoltRunRecord
from paradime_flows.pipelines.plan import StepOutcome
from paradime_flows.prefect_api import run_logger, times
from paradime_flows.supervision import StoppedByPrefect

if TYPE_CHECKING:
    from paradime_flows.pipeline import Step
    from paradime_flows.supervision import StopRequest

_RUNS_READ = 10


async def find_own_start(
    step: Step,
    outcomes: Mapping[str, StepOutcome],
    credentials: ParadimeCredentials,
    stop: StopRequest,
    *,
    before: int,
) -> BoltRunRecord | None:
    """Wait for the run that Bolt starts by itself after the runs of earlier steps; None if there is no such run.

    `before` is the newest Bolt run of the step in earlier attempts of the pipeline; 0 if there was none.
    """
    # All runs of a workspace get their ids from one counter. So the run that Bolt starts after the earlier steps has a
    # greater id than their runs.
    newest = max((outcomes[name].run_id or 0 for name in step.after), default=0)
    if before > newest:
        # Bolt has started its run already, or has started none. Now the step is run again.
        return None
    deadline = time.monotonic() + step.attach_seconds
    try:
        async with credentials.get_client() as client:
            while not isinstance(stop.why, StoppedByPrefect):
                runs = await client.latest_bolt_runs(step.schedule_name, limit=_RUNS_READ)
                # If a person has started another run since then, the run that Bolt started is the older one.
                run = min((run for run in runs if run.id > newest), key=lambda run: run.id, default=None)
                if run is not None:
                    text = "Bolt has started schedule %r by itself, as Bolt run %d."
                    run_logger().info(text, step.schedule_name, run.id)
                    return run
                if time.monotonic() >= deadline:
                    break
                await anyio.sleep(times().conflict_poll_seconds)
    except BoltError as error:
        run_logger().warning(
            "Could not ask Bolt whether it has started schedule %r: %s", step.schedule_name, error.message
        )
    return None
