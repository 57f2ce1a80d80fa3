"""A pipeline on a process worker is cancelled, or killed and run again."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.flow_runs import suspend_flow_run
from prefect.states import Cancelling, Scheduled
from support.bench import Bench, flow_processes
from support.prefect_api import steps_with_a_run_to_resume
from support.processes import await_until, deploy, wait_for_flow_run

from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_flows.ledger.record import read_records
from paradime_flows.pipelines.earlier_attempts import read_outcomes
from paradime_flows.prefect_api.flow_runs import subflows_of
from paradime_flows.run_pipeline import run_pipeline

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("prefect_server")]

STEPS = [
    {"schedule_name": "extract"},
    {"schedule_name": "orders", "after": ["extract"]},
    {"schedule_name": "customers", "after": ["extract"]},
    {"schedule_name": "publish", "after": ["orders", "customers"]},
]
# Twelve steps: the same diamond with more steps before and after it, and a separate branch.
TWELVE = [
    *STEPS[:3],
    {"schedule_name": "returns", "after": ["extract"]},
    {"schedule_name": "joined", "after": ["orders", "customers"]},
    {"schedule_name": "marts", "after": ["joined", "returns"]},
    {"schedule_name": "tests", "after": ["marts"]},
    {"schedule_name": "publish", "after": ["tests"]},
    {"schedule_name": "events"},
    {"schedule_name": "sessions", "after": ["events"]},
    {"schedule_name": "funnel", "after": ["sessions"]},
    {"schedule_name": "report", "after": ["funnel", "publish"]},
]
LONG = {"orders", "customers", "events", "returns"}


@pytest.fixture
def workspace(bolt_simulator: BoltSimulator) -> BoltSimulator:
    bolt_simulator.clock.speed = 60
    for step in TWELVE:
        name = str(step["schedule_name"])
        command = SimulatedCommand("dbt run", duration_seconds=100_000 if name in LONG else 30)
        bolt_simulator.add_schedule(name, commands=[command])
    return bolt_simulator


async def started(workspace: BoltSimulator, pool: str, name: str, **parameters: Any) -> UUID:
    """Run the pipeline on the worker until its long steps are running in Bolt and recorded in Prefect."""
    env = {**workspace.environment(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    # In a thread: the call is sync, and Prefect would return a coroutine here.
    await asyncio.to_thread(deploy, run_pipeline, name, work_pool=pool, job_variables={"env": env})
    given = {"steps": STEPS, "poll_interval_seconds": 0.5, **parameters}
    long = LONG & {step["schedule_name"] for step in given["steps"]}
    flow_run = await run_deployment(f"run-pipeline/{name}", parameters=given, timeout=0)

    async def they_run() -> bool:
        return await steps_with_a_run_to_resume(flow_run.id) == long and len(workspace.active_runs()) == len(
            long
        )

    await await_until(they_run, "the long steps")
    return flow_run.id


async def test_a_cancelled_pipeline_leaves_nothing_running(workspace: BoltSimulator, bench: Bench) -> None:
    """It has twelve steps and is cancelled from the UI or the API: when the flow run ends, all Bolt runs have ended."""
    flow_run_id = await started(workspace, bench.shared_pool(), "cancelled", steps=TWELVE)
    async with get_client() as client:
        await client.set_flow_run_state(flow_run_id, Cancelling(), force=True)
    assert wait_for_flow_run(flow_run_id).state.is_cancelled()
    states = {run.schedule_name: run.state for run in workspace.runs()}
    assert states == {"extract": "SUCCESS", **dict.fromkeys(LONG, "CANCELED")}
    assert len(workspace.runs()) == 5


@pytest.mark.timeout(600)
@pytest.mark.exhaustive
@pytest.mark.parametrize("on_crash", ["leave", "cancel"])
async def test_a_killed_pipeline_continues_where_it_was(
    workspace: BoltSimulator, bench: Bench, on_crash: str
) -> None:
    """leave: the steps' runs are resumed; cancel: the hook cancels them, and they run again."""
    flow_run_id = await started(workspace, bench.shared_pool(), f"killed-{on_crash}", on_crash=on_crash)
    for pid in flow_processes(flow_run_id):
        os.kill(pid, signal.SIGKILL)
    assert wait_for_flow_run(flow_run_id).state.is_crashed()
    if on_crash == "cancel":
        # The hook runs in its own process, after Prefect has set the flow run to Crashed.
        await asyncio.to_thread(workspace.wait_for, lambda simulator: not simulator.active_runs(), 60)
    assert len(workspace.active_runs()) == (2 if on_crash == "leave" else 0)
    for name in ("orders", "customers"):
        workspace.add_schedule(name, commands=[SimulatedCommand("dbt run", duration_seconds=30)])
    for run in workspace.active_runs():
        workspace.finish(run.id)
    # After a SIGKILL, the schedules' slots are released when their leases expire: after one or two minutes.
    ended = await await_until(lambda: retried(flow_run_id), "the end of the rerun", within=400, every=2)
    assert ended.state.is_completed(), ended.state.message
    states = {name: [run.state for run in workspace.runs(name)] for name in ("extract", "orders", "publish")}
    arm = ["SUCCESS"] if on_crash == "leave" else ["CANCELED", "SUCCESS"]
    assert states == {"extract": ["SUCCESS"], "orders": arm, "publish": ["SUCCESS"]}


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    "A pipeline is suspended and resumed",
    prefect="Suspended, then as it ends",
    bolt="Each run keeps running, once",
    result="Its steps resume their runs; steps that had succeeded or failed stay so",
)
async def test_a_suspended_pipeline_leaves_its_runs_and_resumes_them(
    workspace: BoltSimulator, bench: Bench
) -> None:
    """Trap 12, with steps: no run is cancelled or doubled, and each is resumed by the step of its schedule.

    The failed step is not tried again, since that was not requested.
    """
    workspace.add_schedule("broken", commands=[SimulatedCommand("dbt run", return_code=1)])
    steps = [*STEPS, {"schedule_name": "broken"}]
    flow_run_id = await started(
        workspace, bench.shared_pool(), "suspended", steps=steps, on_failure="continue"
    )

    async def broken() -> bool:
        async with get_client() as client:
            outcomes = read_outcomes(await client.read_flow_run(flow_run_id))
        return str(outcomes["broken"].state) == "failed"

    await await_until(broken, "the failure of a step")
    async with get_client() as client:
        before = {child.id for child in await subflows_of(client, [flow_run_id])}
    await asyncio.to_thread(suspend_flow_run, flow_run_id=flow_run_id, timeout=600)

    async def gone() -> bool:
        return not flow_processes(flow_run_id)

    await await_until(gone, "the end of the process")
    assert {run.schedule_name for run in workspace.active_runs()} == {"orders", "customers"}
    async with get_client() as client:
        await client.resume_flow_run(flow_run_id)

    async def resumed() -> bool:
        async with get_client() as client:
            children = await subflows_of(client, [flow_run_id])
        heirs = [child for child in children if child.id not in before]
        return {child.name for child in heirs if read_records(child)} == {"orders", "customers"}

    await await_until(resumed, "the steps to be resumed")
    for run in workspace.active_runs():
        workspace.finish(run.id)
    ended = await asyncio.to_thread(wait_for_flow_run, flow_run_id)
    assert ended.state.is_failed(), ended.state.message
    ran = {run.schedule_name: run.state for run in workspace.runs()}
    assert ran == {**{str(step["schedule_name"]): "SUCCESS" for step in STEPS}, "broken": "FAILED"}
    assert len(workspace.runs()) == len(ran)
    async with get_client() as client:
        children = await subflows_of(client, [flow_run_id])
    assert all(child.state is not None and child.state.is_final() for child in children)


@pytest.mark.exhaustive
async def test_a_pipeline_started_twice_runs_no_schedule_twice(
    workspace: BoltSimulator, bench: Bench
) -> None:
    """The older process releases its steps' runs, and the newer one resumes them."""
    flow_run_id = await started(workspace, bench.shared_pool(), "twice")
    (older,) = flow_processes(flow_run_id)
    async with get_client() as client:
        await client.set_flow_run_state(flow_run_id, Scheduled(), force=True)

    async def handed_over() -> bool:
        return flow_processes(flow_run_id) not in ([older], []) and older not in flow_processes(flow_run_id)

    await await_until(handed_over, "the newer process alone")
    for run in workspace.active_runs():
        workspace.finish(run.id)
    ended = await asyncio.to_thread(wait_for_flow_run, flow_run_id)
    assert ended.state.is_completed(), ended.state.message
    states = {run.schedule_name: run.state for run in workspace.runs()}
    assert states == dict.fromkeys(("extract", "orders", "customers", "publish"), "SUCCESS")
    assert len(workspace.runs()) == 4


async def retried(flow_run_id: UUID) -> FlowRun | None:
    """Retry the flow run as soon as it has crashed: the worker writes a crash twice, the second time late.

    So it is retried twice, and for some time two processes run it.
    """
    async with get_client() as client:
        flow_run = await client.read_flow_run(flow_run_id)
        state = flow_run.state
        assert state is not None
        if state.is_crashed():
            await client.set_flow_run_state(flow_run_id, Scheduled(), force=True)
        return flow_run if state.is_completed() or state.is_failed() else None
