"""Finds the run that Bolt itself has started for a step, because the step's schedule runs after another schedule."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from paradime_blocks import BoltError
from paradime_blocks.models import BoltRunRecord, BoltRunState
from paradime_flows.pipelines.plan import StepOutcome, StepState
from paradime_flows.prefect_api import run_logger, times

if TYPE_CHECKING:
    from paradime_flows.pipeline import Step
    from paradime_flows.pipelines.earlier_attempts import EarlierAttempts
    from paradime_flows.supervision import StopRequest

_RUNS_READ = 10


@dataclass(frozen=True)
class OwnStart:
    """How a step continues after the search for a run that Bolt has started.

    Attributes:
        outcome: The outcome of the step, if that run has already ended. Then the step starts no flow run. In all
            other cases, the outcome is empty.
        options: Options for the flow run of the step.
    """

    outcome: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


async def own_start(
    step: Step, outcomes: Mapping[str, StepOutcome], before: EarlierAttempts, stop: StopRequest
) -> OwnStart:
    """Wait for the run that Bolt starts by itself after the runs of earlier steps, if the step asks for that.

    Args:
        step: The step that is about to start.
        outcomes: The outcome of each step. The key is the step's name.
        before: What earlier attempts left behind. A step that has begun in an earlier attempt does not wait.
        stop: The request that asks the steps to stop.
    """
    if not step.attach_seconds or step.key in before.under_way:
        return OwnStart()
    # All runs of a workspace get their ids from one counter. So the run that Bolt starts after the earlier steps has a
    # greater id than their runs.
    newest = max((outcomes[name].run_id or 0 for name in step.after), default=0)
    run = await _find(step, newest, before, stop)
    if run is None:
        return OwnStart()
    run_logger().info("Bolt has started schedule %r by itself, as Bolt run %d.", step.schedule_name, run.id)
    if not run.state.is_terminal:
        return OwnStart(options={"on_already_running": "attach"})
    succeeded = run.state == BoltRunState.SUCCESS
    outcome = {
        "state": StepState.SUCCEEDED if succeeded else StepState.FAILED,
        "run_id": run.id,
        "bolt_state": run.state,
        "message": "" if succeeded else f"Bolt started this run by itself. The run ended as {run.state}.",
    }
    return OwnStart(outcome=outcome)


async def _find(
    step: Step, newer_than: int, before: EarlierAttempts, stop: StopRequest
) -> BoltRunRecord | None:
    deadline = time.monotonic() + step.attach_seconds
    try:
        async with before.credentials.get_client() as client:
            while stop.reason is None:
                runs = await client.latest_bolt_runs(step.schedule_name, limit=_RUNS_READ)
                newer = [run for run in runs if run.id > newer_than]
                if newer:
                    # If a person has started another run since then, the run that Bolt started is the older one.
                    return min(newer, key=lambda run: run.id)
                if time.monotonic() >= deadline:
                    break
                await anyio.sleep(times().conflict_poll_seconds)
    except BoltError as error:
        run_logger().warning(
            "Could not ask Bolt whether it has started schedule %r: %s", step.schedule_name, error.message
        )
    return None
