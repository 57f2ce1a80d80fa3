"""A pipeline whose schedules Bolt starts by itself, one after the other: no run is started twice."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow_async
from prefect.states import AwaitingRetry
from support.prefect_api import latest_flow_run

from paradime_blocks import BoltPipelineFailed
from paradime_flows.run_pipeline import run_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from paradime_blocks.testing import BoltSimulator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]
STEPS: list[dict[str, Any]] = [
    {"schedule_name": "quick"},
    {"schedule_name": "once", "after": ["quick"], "attach_seconds": 30},
]


@pytest.fixture
def bolt_starts(workspace: BoltSimulator) -> Any:
    """Let Bolt start `once` when a run of `quick` has succeeded, as `run_after` says."""
    workspace.update_schedule("once", final_state="SUCCESS")
    threads: list[threading.Thread] = []

    def follow(then: Callable[[int], None] = lambda _: None) -> None:
        def act() -> None:
            workspace.wait_for(
                lambda bolt: [run for run in bolt.runs("quick") if run.state == "SUCCESS"], timeout=120
            )
            then(workspace.start_run("once", actor="Scheduler"))

        threads.append(threading.Thread(target=act))
        threads[-1].start()

    yield follow
    for thread in threads:
        thread.join()


async def test_a_step_waits_for_the_run_that_bolt_has_started(
    workspace: BoltSimulator, bolt_starts: Any, credentials: Any
) -> None:
    """One run of each schedule, and the step has the result of Bolt's own run."""
    workspace.start_run("once", actor="Scheduler")  # an older one, which is not this one
    workspace.finish(workspace.runs("once")[0].id)
    bolt_starts()
    result = await run_pipeline(STEPS, credentials)
    own = workspace.runs("once")[1:]
    assert [run.actor for run in own] == ["Scheduler"]
    assert result.steps[1].run_id == own[0].id
    assert result.steps[1].bolt_state == "SUCCESS"


@pytest.mark.parametrize("state", ["SUCCESS", "FAILED"])
async def test_a_run_that_has_ended_already_is_the_outcome_of_the_step(
    workspace: BoltSimulator, bolt_starts: Any, credentials: Any, state: str
) -> None:
    """A short run may be over before the step sees it."""
    bolt_starts(lambda run_id: workspace.finish(run_id, state))
    if state == "SUCCESS":
        result = await run_pipeline(STEPS, credentials)
        assert result.steps[1].bolt_state == "SUCCESS"
    else:
        with pytest.raises(BoltPipelineFailed, match="Bolt started this run by itself"):
            await run_pipeline(STEPS, credentials)
    assert len(workspace.runs("once")) == 1


async def test_a_step_starts_the_schedule_if_bolt_does_not(
    workspace: BoltSimulator, credentials: Any
) -> None:
    """The trigger in Bolt may be switched off."""
    workspace.update_schedule("once", final_state="SUCCESS")
    steps = [STEPS[0], {**STEPS[1], "attach_seconds": 1}]
    result = await run_pipeline(steps, credentials)
    assert [run.id for run in workspace.runs("once")] == [result.steps[1].run_id]


async def test_a_retry_runs_a_step_again_whose_own_run_has_failed(
    workspace: BoltSimulator, bolt_starts: Any, credentials: Any
) -> None:
    """The failed run is the outcome of the earlier attempt. Bolt does not start the schedule a second time."""
    bolt_starts(lambda run_id: workspace.finish(run_id, "FAILED"))
    with pytest.raises(BoltPipelineFailed, match="Bolt started this run by itself"):
        await run_pipeline(STEPS, credentials)
    flow_run = await latest_flow_run("run-pipeline")
    async with get_client() as client:
        await client.set_flow_run_state(flow_run.id, AwaitingRetry(), force=True)
        again = await client.read_flow_run(flow_run.id)
    parameters = run_pipeline.validate_parameters({"steps": STEPS, "credentials": credentials})
    state: Any = await run_flow_async(
        run_pipeline, flow_run=again, parameters=parameters, return_type="state"
    )
    assert state.is_completed(), state.message
    assert [run.state for run in workspace.runs("quick")] == ["SUCCESS"]
    assert [run.state for run in workspace.runs("once")] == ["FAILED", "SUCCESS"]
