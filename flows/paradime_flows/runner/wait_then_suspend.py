"""Waits for a Bolt run without a worker: after a short wait in the process, the flow run is suspended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import anyio
from prefect.context import FlowRunContext
from prefect.states import Completed

from paradime_blocks import BoltError
from paradime_blocks.models import BoltUsualDuration
from paradime_flows.prefect_api import times
from paradime_flows.supervision import remaining_seconds, why_not_suspend

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from paradime_blocks import BoltRun
    from paradime_flows.prefect_api import ShownTaskRun
    from paradime_flows.runner.lifecycle import RunLifecycle


class Suspends(Exception):
    """The flow run is to be suspended. Before that, the task runs that show its work have to end.

    Args:
        lifecycle: The lifecycle of the Bolt run.
        remaining_seconds: The time until the time limit of the Bolt run, in seconds.
    """

    def __init__(self, lifecycle: RunLifecycle, remaining_seconds: float) -> None:
        self.lifecycle = lifecycle
        self.remaining_seconds = remaining_seconds
        super().__init__("The flow run is to be suspended.")


# How many of the schedule's newest runs are read for its usual duration.
_RUNS = 30


async def wait_suspended(lifecycle: RunLifecycle, run: BoltRun, shown: ShownTaskRun) -> None:
    """Wait until the Bolt run has ended. If that takes long, raise `Suspends`.

    If the Bolt run ends within the first minute, the flow run is not suspended. It is also not suspended if the runs of
    the schedule usually end about now. When the flow run is resumed, its code begins anew and resumes the Bolt run.
    """
    if (why := why_not_suspend(_flow_run())) is not None:
        lifecycle.decision_log.note(f"The flow run waits in its process, since {why}.")
        await lifecycle.wait(run)
        return
    usual = await _usual_seconds(lifecycle, run)
    is_long = False
    while not is_long:
        with anyio.move_on_after(times().held_seconds):
            await lifecycle.wait(run)
            return
        usual_end = (lifecycle.record.began_at or time.time()) + (usual or float("inf"))
        # A run that has taken a little longer than usual will probably end soon, too.
        is_long = abs(usual_end - time.time()) > times().worth_suspending_seconds
    limit = lifecycle.schedule.timeout_seconds
    remaining = await remaining_seconds(lifecycle.record, lifecycle.schedule.credentials, limit)
    shown.outcome = Completed(
        name="Suspended", message=f"The flow run is suspended during Bolt run {run.run_id}."
    )
    raise Suspends(lifecycle, remaining)


async def _usual_seconds(lifecycle: RunLifecycle, run: BoltRun) -> float | None:
    """Return how many seconds runs of the schedule usually take; None if this is unknown."""
    try:
        async with lifecycle.schedule.credentials.get_client() as client:
            page = await client.list_bolt_runs(lifecycle.record.schedule, limit=_RUNS)
    except BoltError:
        # An older backend cannot list runs.
        return None
    found = BoltUsualDuration.of(page.runs, run.run_id)
    return None if found is None else found.seconds


def _flow_run() -> FlowRun:
    context = FlowRunContext.get()
    return cast("FlowRun", context.flow_run if context is not None else None)
