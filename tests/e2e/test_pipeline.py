"""`run_pipeline` with a real Prefect server and the simulator: order, failures, reruns, cancels, its page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow_async
from prefect.states import AwaitingRetry, Cancelling, Running
from support.prefect_api import artifacts_of, latest_flow_run, steps_with_a_run_to_resume
from support.processes import await_until

from paradime_blocks import BoltPipelineFailed, BoltRequestError, ParadimeCredentials
from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_flows.pipelines.earlier_attempts import read_outcomes
from paradime_flows.pipelines.plan import StepState
from paradime_flows.prefect_api import STEP_LABEL_PREFIX, ArtifactWriter
from paradime_flows.prefect_api.flow_runs import subflows_of
from paradime_flows.run_pipeline import arun_pipeline, run_pipeline
from paradime_flows.run_schedule import run_schedule

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

# A diamond (load → orders, customers → joined), a side branch, and a last step that needs both.
AFTER: dict[str, list[str]] = {
    "extract": [],
    "load": ["extract"],
    "orders": ["load"],
    "customers": ["load"],
    "joined": ["orders", "customers"],
    "events": [],
    "sessions": ["events"],
    "report": ["sessions", "joined"],
}
STEPS: list[dict[str, Any]] = [{"schedule_name": name, "after": after} for name, after in AFTER.items()]
# The same without the side branch and the steps in between.
FEWER: list[dict[str, Any]] = [
    {"schedule_name": "extract"},
    {"schedule_name": "load", "after": ["extract"]},
    {"schedule_name": "orders", "after": ["load"]},
    {"schedule_name": "events"},
    {"schedule_name": "sessions", "after": ["events"]},
    {"schedule_name": "report", "after": ["orders", "sessions"]},
]
QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5, "live_logs": "off"}


def seconds(duration: float) -> list[SimulatedCommand]:
    return [SimulatedCommand("dbt build", duration_seconds=duration, resources={})]


@pytest.fixture
def workspace(bolt_simulator: BoltSimulator) -> BoltSimulator:
    """Schedules with runs of a minute; the simulator takes half a second for it."""
    bolt_simulator.clock.speed = 120
    for name in AFTER:
        bolt_simulator.add_schedule(name, commands=seconds(60), setup_commands=False)
    return bolt_simulator


def ran(simulator: BoltSimulator) -> dict[str, list[str]]:
    """The states of each schedule's runs."""
    return {name: [run.state for run in simulator.runs(name)] for name in AFTER if simulator.runs(name)}


async def states_of(flow_run: FlowRun) -> dict[str, str]:
    async with get_client() as client:
        fresh = await client.read_flow_run(flow_run.id)
    return {name: str(outcome.state) for name, outcome in read_outcomes(fresh).items()}


async def run_again(flow_run: FlowRun, credentials: ParadimeCredentials, **options: Any) -> Any:
    """Run a flow run again, as a worker does after `prefect flow-run retry`."""
    async with get_client() as client:
        await client.set_flow_run_state(flow_run.id, AwaitingRetry(), force=True)
        fresh = await client.read_flow_run(flow_run.id)
    parameters = {"steps": STEPS, "credentials": credentials, **QUICK, **options}
    parameters = run_pipeline.validate_parameters(parameters)
    return await run_flow_async(run_pipeline, flow_run=fresh, parameters=parameters, return_type="state")


async def test_steps_run_in_order_of_dependencies_and_the_page_shows_it(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Each step starts after all that it needs has ended; independent steps run at the same time.

    The pipeline has one markdown artifact with its graph and a row for each step.
    """
    result = await arun_pipeline(STEPS, credentials, name="nightly", **QUICK)
    assert [step.name for step in result.steps] == list(AFTER)
    assert {str(step.state) for step in result.steps} == {"succeeded"}
    assert ran(workspace) == {name: ["SUCCESS"] for name in AFTER}
    run = {name: workspace.runs(name)[0] for name in AFTER}
    for name, earlier in AFTER.items():
        for before in earlier:
            assert run[before].ended_at <= run[name].started_at
    steps = {step.name: step for step in result.steps}
    assert steps["customers"].started_at < steps["orders"].ended_at
    flow_run = await latest_flow_run("run-pipeline")
    page = str((await artifacts_of(flow_run.id))["paradime-pipeline-nightly"].data)
    assert page.startswith("# ✅ Pipeline nightly")
    assert f"/bolt/run_id/{run['load'].id}" in page
    assert "| extract | succeeded |" in page
    assert "s0 --> s1" in page


def fail(simulator: BoltSimulator, name: str) -> None:
    simulator.add_schedule(
        name,
        commands=[SimulatedCommand("dbt build", duration_seconds=60, return_code=(1, 0), resources={})],
        setup_commands=False,
    )


@pytest.mark.parametrize(
    "on_failure, events, sessions",
    [
        pytest.param("stop", "canceled", "not run", id="stop cancels what runs", marks=pytest.mark.full),
        pytest.param(
            "finish", "succeeded", "not run", id="finish starts nothing new", marks=pytest.mark.exhaustive
        ),
        pytest.param("continue", "succeeded", "succeeded", id="continue leaves out what depends on it"),
    ],
)
async def test_a_failure_in_the_middle_and_a_rerun(
    workspace: BoltSimulator,
    credentials: ParadimeCredentials,
    on_failure: str,
    events: str,
    sessions: str,
) -> None:
    """`load` fails while `events` runs; the rest follows `on_failure`, and nothing is left running.

    The rerun starts there: succeeded steps are not run again, all others are, in their order.
    """
    fail(workspace, "load")
    workspace.add_schedule("events", commands=seconds(1e9), setup_commands=False)
    running = asyncio.create_task(arun_pipeline(FEWER, credentials, on_failure=on_failure, **QUICK))
    if on_failure != "stop":

        async def failed() -> bool:
            return (
                bool(workspace.runs())
                and "failed" in (await states_of(await latest_flow_run("run-pipeline"))).values()
            )

        await await_until(failed, "the pipeline's notice of the failure", every=0.4)
        workspace.finish(workspace.runs("events")[0].id)
    with pytest.raises(BoltPipelineFailed, match="load: failed") as caught:
        await running
    flow_run = await latest_flow_run("run-pipeline")
    # If the flow raised its error, the message would begin with Prefect's words, and the log would have a traceback.
    assert flow_run.state is not None
    assert str(flow_run.state.message).startswith("Step 'load' failed: ")
    states = await states_of(flow_run)
    assert (states["extract"], states["load"]) == ("succeeded", "failed")
    assert (states["events"], states.get("sessions")) == (events, sessions)
    assert states["orders"] == states["report"] == "not run"
    assert workspace.active_runs() == []
    succeeded = {name for name, state in states.items() if state == "succeeded"}
    assert len(caught.value.steps) == len(FEWER) - len(succeeded)
    first = {"load": ["FAILED"], **({"events": ["CANCELED"]} if on_failure == "stop" else {})}
    assert ran(workspace) == {**{name: ["SUCCESS"] for name in succeeded}, **first}

    workspace.add_schedule("events", commands=seconds(60), setup_commands=False)
    state = await run_again(flow_run, credentials, steps=FEWER, on_failure=on_failure)
    assert state.is_completed(), state.message
    assert ran(workspace) == {
        name: [*first.get(name, []), "SUCCESS"] for name in (step["schedule_name"] for step in FEWER)
    }
    result = await state.aresult()
    assert {step.name for step in result.steps if step.reused} == succeeded
    for step in FEWER:
        for before in step.get("after", []):
            assert workspace.runs(before)[-1].ended_at <= workspace.runs(step["schedule_name"])[-1].started_at
    assert workspace.active_runs() == []


async def test_a_rerun_resumes_a_running_step(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """When the process dies, the rerun's subflow resumes the Bolt run of the one before: one run only."""
    workspace.add_schedule("load", commands=seconds(600), setup_commands=False)
    steps = STEPS[:2]
    dying = asyncio.create_task(arun_pipeline(steps, credentials, on_interrupt="leave", **QUICK))
    await await_until(lambda: _is_true(len(workspace.runs("load")) == 1), "the second step's run")
    flow_run = await latest_flow_run("run-pipeline")
    await await_until(
        lambda: steps_with_a_run_to_resume(flow_run.id), "the subflow's record of its run", every=0.4
    )
    dying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dying
    assert [run.state for run in workspace.runs("load")] == ["RUNNING"]
    state = await run_again(flow_run, credentials, steps=steps)
    assert state.is_completed(), state.message
    assert ran(workspace) == {"extract": ["SUCCESS"], "load": ["SUCCESS"]}
    assert await steps_with_a_run_to_resume(flow_run.id) == set()


async def _is_true(value: bool) -> bool:
    return value


async def left_under_way(
    workspace: BoltSimulator, credentials: ParadimeCredentials, steps: list[dict[str, Any]], going: set[str]
) -> FlowRun:
    """A pipeline whose process has died and left the runs of some steps."""
    for name in going:
        workspace.add_schedule(name, commands=seconds(100_000), setup_commands=False)
    dying = asyncio.create_task(arun_pipeline(steps, credentials, on_interrupt="leave", **QUICK))

    async def all_are_known() -> bool:
        # A step is known by its intent too; the run's id comes later.
        if {run.schedule_name for run in workspace.active_runs()} != going:
            return False
        found = await latest_flow_run("run-pipeline")
        return await steps_with_a_run_to_resume(found.id) == going

    await await_until(all_are_known, "the steps' record of their runs", every=0.4)
    flow_run = await latest_flow_run("run-pipeline")
    dying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dying
    assert {run.schedule_name for run in workspace.active_runs()} == going
    return flow_run


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    'The process of a pipeline dies (`on_crash="leave"`), and the pipeline is run again with other steps',
    prefect="As it ends",
    bolt="A run that no step resumes is CANCELED at once",
    result="The other runs are resumed",
)
@pytest.mark.full
async def test_a_rerun_cancels_runs_that_no_step_resumes(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """One step was removed, another follows a changed step; a third, which had no run yet, is over."""
    steps: list[dict[str, Any]] = [
        {"schedule_name": "extract"},
        {"schedule_name": "load", "after": ["extract"]},
        {"schedule_name": "events"},
    ]
    flow_run = await left_under_way(workspace, credentials, steps, {"load", "events"})
    async with get_client() as client:
        (child, *_) = await subflows_of(client, [flow_run.id])
        lost = await client.create_flow_run(
            run_schedule, name="load", parent_task_run_id=child.parent_task_run_id, state=Running()
        )
    workspace.add_schedule("load", commands=seconds(60), setup_commands=False)
    steps[0]["commands"] = ["dbt build --full-refresh"]
    state = await run_again(flow_run, credentials, steps=steps[:2])
    assert state.is_completed(), state.message
    states = ran(workspace)
    assert states == {
        "extract": ["SUCCESS", "SUCCESS"],
        "load": ["CANCELED", "SUCCESS"],
        "events": ["CANCELED"],
    }
    cancelled, extracted = workspace.runs("load")[0], workspace.runs("extract")[1]
    assert cancelled.ended_at <= extracted.ended_at
    async with get_client() as client:
        assert (await client.read_flow_run(lost.id)).state.is_crashed()


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    'The process of a pipeline dies (`on_crash="leave"`), and the pipeline is run again with other steps',
)
@pytest.mark.full
async def test_a_rerun_that_ends_early_leaves_no_older_run(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The second step must wait until the first has ended, and the first fails."""
    steps = [{"schedule_name": "events"}, {"schedule_name": "extract"}]
    flow_run = await left_under_way(workspace, credentials, steps, {"events", "extract"})
    workspace.finish(workspace.runs("events")[0].id, "FAILED")
    state = await run_again(flow_run, credentials, steps=steps, max_parallel=1)
    assert state.is_failed()
    assert ran(workspace) == {"extract": ["CANCELED"], "events": ["FAILED"]}


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    "A flow or task of your own is retried, and Prefect runs its sub-flow again",
)
async def test_a_retried_parent_restarts_its_pipeline_from_the_failed_step(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Prefect creates a new flow run of the pipeline. This happens twice, so the second one must pass results on."""
    fails = SimulatedCommand("dbt build", return_code=(1, 1, 0))
    workspace.add_schedule("load", commands=[fails], setup_commands=False)

    @flow(retries=2)
    async def nightly() -> Any:
        return await arun_pipeline(STEPS[:3], credentials, **QUICK)

    result = await nightly()
    assert [str(step.state) for step in result.steps] == ["succeeded"] * 3
    assert ran(workspace) == {
        "extract": ["SUCCESS"],
        "load": ["FAILED", "FAILED", "SUCCESS"],
        "orders": ["SUCCESS"],
    }


@pytest.mark.full
async def test_a_success_that_must_be_repeated_no_longer_counts(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """An earlier step is changed, and the process dies before it reaches this one: the next attempt repeats it too."""
    workspace.add_schedule("events", commands=[SimulatedCommand("dbt run", return_code=1)])
    steps: list[dict[str, Any]] = [
        {"schedule_name": "extract"},
        {"schedule_name": "load", "after": ["extract"]},
        {"schedule_name": "events", "after": ["load"]},
    ]
    with pytest.raises(BoltPipelineFailed):
        await arun_pipeline(steps, credentials, **QUICK)
    flow_run = await latest_flow_run("run-pipeline")
    assert (await states_of(flow_run))["load"] == "succeeded"
    workspace.add_schedule("extract", commands=seconds(100_000), setup_commands=False)
    steps[0]["branch"] = "changed"
    dying = asyncio.create_task(run_again(flow_run, credentials, steps=steps))
    await await_until(lambda: _is_true(len(workspace.runs("extract")) == 2), "the changed step's run")
    dying.cancel()
    await asyncio.wait([dying])
    workspace.add_schedule("extract", commands=seconds(60), setup_commands=False)
    await run_again(flow_run, credentials, steps=steps)
    assert ran(workspace)["extract"] == ["SUCCESS", "CANCELED", "SUCCESS"]
    assert ran(workspace)["load"] == ["SUCCESS", "SUCCESS"]


async def test_cancelling_the_pipeline_leaves_nothing_running(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A cancel in Prefect cancels every active Bolt run; no step starts after it."""
    for name in ("load", "events"):
        workspace.add_schedule(name, commands=seconds(100_000), setup_commands=False)
    running = asyncio.create_task(run_pipeline(STEPS, credentials, return_state=True, **QUICK))
    await await_until(
        lambda: _is_true({run.schedule_name for run in workspace.active_runs()} == {"load", "events"}),
        "both runs",
    )
    flow_run = await latest_flow_run("run-pipeline")
    async with get_client() as client:
        await client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
    state = await running
    assert state.is_cancelled(), state
    assert workspace.active_runs() == []
    assert ran(workspace) == {"extract": ["SUCCESS"], "load": ["CANCELED"], "events": ["CANCELED"]}


async def test_an_interrupt_of_the_pipeline_cancels_its_runs(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """SIGTERM and Ctrl-C cancel the pipeline's coroutine: the steps cancel their Bolt runs first."""
    workspace.add_schedule("extract", commands=seconds(100_000), setup_commands=False)
    running = asyncio.create_task(arun_pipeline(STEPS[:2], credentials, **QUICK))
    await await_until(lambda: _is_true(bool(workspace.active_runs())), "a run")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ran(workspace) == {"extract": ["CANCELED"]}


async def test_prefects_own_time_limit_cancels_its_runs(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """`timeout_seconds` of the flow cancels every await in it, and the steps still cancel their Bolt runs."""
    workspace.add_schedule("extract", commands=seconds(100_000), setup_commands=False)
    limited = run_pipeline.with_options(timeout_seconds=6)
    state = await limited(STEPS[:2], credentials, return_state=True, **QUICK)
    assert state.name == "TimedOut"
    assert ran(workspace) == {"extract": ["CANCELED"]}


@pytest.mark.parametrize(
    "steps, message",
    [
        pytest.param(
            [{"schedule_name": "a", "after": ["b"]}, {"schedule_name": "b", "after": ["a"]}],
            "cycle",
            id="cycle",
        ),
        pytest.param([{"schedule_name": "a", "after": ["b"]}], "no step", id="unknown name"),
        pytest.param([{"schedule_name": "a"}, {"schedule_name": "a"}], "Two steps", id="double step"),
    ],
)
async def test_invalid_steps_are_refused_before_anything_starts(
    workspace: BoltSimulator, credentials: ParadimeCredentials, steps: list[dict[str, Any]], message: str
) -> None:
    """Nothing is sent to Bolt."""
    with pytest.raises(BoltRequestError, match=message):
        await arun_pipeline(steps, credentials, **QUICK)
    assert workspace.requests == []


@pytest.mark.full
async def test_no_more_steps_run_at_once_than_allowed(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """`max_parallel` limits the number of running steps."""
    steps = [{"schedule_name": name} for name in ("extract", "load", "events")]
    await arun_pipeline(steps, credentials, max_parallel=1, **QUICK)
    runs = sorted((workspace.runs(name)[0] for name in ("extract", "load", "events")), key=lambda run: run.id)
    assert runs[0].ended_at <= runs[1].started_at
    assert runs[1].ended_at <= runs[2].started_at


async def test_a_changed_step_resumes_nothing(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The step ran another schedule before: that run is not resumed, and is cancelled; its flow run is over."""
    flow_run = await left_under_way(workspace, credentials, [{"schedule_name": "orders"}], {"orders"})
    async with get_client() as client:
        (before,) = await subflows_of(client, [flow_run.id])
    state = await run_again(flow_run, credentials, steps=[{"schedule_name": "customers", "name": "orders"}])
    assert state.is_completed(), state.message
    assert ran(workspace) == {"orders": ["CANCELED"], "customers": ["SUCCESS"]}
    async with get_client() as client:
        after = await client.read_flow_run(before.id)
    assert after.state is not None
    assert after.state.is_final()


async def test_a_success_that_was_not_noted_is_not_run_again(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The process died between the end of the step and the note of its outcome."""
    await arun_pipeline(STEPS[:2], credentials, **QUICK)
    flow_run = await latest_flow_run("run-pipeline")
    async with get_client() as client:
        outcome = read_outcomes(await client.read_flow_run(flow_run.id))["load"]
        unnoted = outcome.model_copy(update={"state": StepState.RUNNING, "run_id": None})
        label = {f"{STEP_LABEL_PREFIX}load": unnoted.model_dump_json(exclude_defaults=True)}
        await client.update_flow_run_labels(flow_run.id, label)
    state = await run_again(flow_run, credentials, steps=STEPS[:2])
    assert state.is_completed(), state.message
    assert ran(workspace) == {"extract": ["SUCCESS"], "load": ["SUCCESS"]}


async def test_a_step_that_never_began_is_not_shown_as_running(
    workspace: BoltSimulator, credentials: ParadimeCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt comes while the page is written, just before the step's task would start."""
    write = ArtifactWriter.markdown

    async def interrupted(writer: ArtifactWriter, *given: Any) -> Any:
        monkeypatch.undo()
        running.cancel()
        return await write(writer, *given)

    monkeypatch.setattr(ArtifactWriter, "markdown", interrupted)
    running = asyncio.create_task(arun_pipeline(STEPS[:2], credentials, name="nightly", **QUICK))
    with pytest.raises(asyncio.CancelledError):
        await running
    flow_run = await latest_flow_run("run-pipeline")
    assert await states_of(flow_run) == {"extract": "not run", "load": "not run"}
    page = str((await artifacts_of(flow_run.id))["paradime-pipeline-nightly"].data)
    assert "| extract | not run |" in page
    assert workspace.runs() == []
