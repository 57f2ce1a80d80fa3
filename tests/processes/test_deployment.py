"""deployments/prefect.yaml as a user deploys it, and its sweeper after the loss of a machine."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.flow_runs import suspend_flow_run
from prefect.states import Cancelling
from support.bench import flow_processes
from support.prefect_api import artifacts_of
from support.processes import await_until, wait_for_flow_run

from paradime_blocks.testing import SimulatedCommand

if TYPE_CHECKING:
    from support.processes import Processes, TestProcess

    from paradime_blocks.testing import BoltSimulator

PREFECT_YAML = Path(__file__).resolve().parents[2] / "deployments" / "prefect.yaml"
LONG = SimulatedCommand("dbt run", duration_seconds=100_000)


@pytest.fixture
def worker(bolts_deployment: None, processes: Processes, bolt_simulator: BoltSimulator) -> TestProcess:
    """Deploys prefect.yaml; a worker serves its pool with the simulator's credentials."""
    # Work that another test has left in that pool must not reach this worker.
    waiting = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=["bolt"]))
    with get_client(sync_client=True) as client:
        for flow_run in client.read_flow_runs(flow_run_filter=waiting, work_pool_filter=pool):
            client.delete_flow_run(flow_run.id)
    made = processes.prefect("work-pool", "create", "--type", "process", "--overwrite", "bolt")
    assert made.wait() == 0, made.output
    deployed = processes.prefect("--no-prompt", "deploy", "--prefect-file", str(PREFECT_YAML), "--all")
    assert deployed.wait() == 0, deployed.output
    return processes.worker("bolt", env=bolt_simulator.environment())


@pytest.mark.full
async def test_a_worker_runs_what_prefect_yaml_deploys(
    worker: TestProcess, bolt_simulator: BoltSimulator
) -> None:
    """The deployed flow runs from the installed package, on a worker without access to our folders."""
    bolt_simulator.clock.speed = 50
    bolt_simulator.add_schedule("daily")
    created = await run_deployment("run-schedule/bolt", parameters={"schedule_name": "daily"}, timeout=0)
    flow_run = wait_for_flow_run(created.id)
    assert flow_run.state.is_completed(), f"{flow_run.state}\n{worker.output}"
    assert [run.state for run in bolt_simulator.runs("daily")] == ["SUCCESS"]
    assert "paradime-daily" in await artifacts_of(created.id)


@pytest.mark.full
async def test_serve_runs_the_same_deployments_without_a_work_pool(
    bolts_deployment: None, processes: Processes, bolt_simulator: BoltSimulator
) -> None:
    """One process offers all flows, the sweeper with its automations included."""
    bolt_simulator.clock.speed = 50
    bolt_simulator.add_schedule("daily")
    served = processes.serve(PREFECT_YAML.with_name("serve.py"), env=bolt_simulator.environment())
    created = await run_deployment("run-schedule/bolt", parameters={"schedule_name": "daily"}, timeout=0)
    flow_run = wait_for_flow_run(created.id)
    assert flow_run.state.is_completed(), f"{flow_run.state}\n{served.output}"
    async with get_client() as client:
        sweeper = await client.read_deployment_by_name("sweep-orphans/sweeper")
        automations = await client.read_resource_related_automations(f"prefect.deployment.{sweeper.id}")
    assert {each.name for each in automations} == {"bolt-flow-run-fell-silent", "bolt-flow-run-was-cancelled"}
    assert sweeper.concurrency_limit or sweeper.global_concurrency_limit


@pytest.mark.guarantee("Worker or machine lost", "The worker or `serve` is stopped, or the machine is lost")
@pytest.mark.exhaustive
async def test_the_sweeper_starts_within_three_minutes_of_a_lost_machine(
    worker: TestProcess, processes: Processes, bolt_simulator: BoltSimulator
) -> None:
    """Worker and flow run are killed together, so no hook runs; another worker's sweeper cancels the run."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    await run_deployment("run-schedule/bolt", parameters={"schedule_name": "daily"}, timeout=0)
    bolt_simulator.wait_for(lambda simulator: simulator.count("boltRunStatus") > 1, timeout=120)
    worker.kill()
    for pid in processes.survivors():
        os.kill(pid, signal.SIGKILL)
    processes.worker("bolt", env=bolt_simulator.environment())
    bolt_simulator.wait_for(lambda simulator: not simulator.active_runs(), timeout=180)
    assert [run.state for run in bolt_simulator.runs("daily")] == ["CANCELED"]


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    "A suspended flow run is cancelled",
    prefect="Cancelled",
    bolt="CANCELED by the sweeper, which an automation of `deployments/prefect.yaml` starts",
    result="The sweeper's table names the run",
)
@pytest.mark.exhaustive
async def test_a_cancel_of_a_suspended_flow_run_starts_the_sweeper(
    worker: TestProcess, processes: Processes, bolt_simulator: BoltSimulator
) -> None:
    """It has no process to notify, and Prefect calls no hook: the automation starts the sweeper."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    created = await run_deployment("run-schedule/bolt", parameters={"schedule_name": "daily"}, timeout=0)
    bolt_simulator.wait_for(lambda simulator: simulator.count("boltRunStatus") > 1, timeout=120)
    await asyncio.to_thread(suspend_flow_run, flow_run_id=created.id, timeout=600)

    async def gone() -> bool:
        return not flow_processes(created.id)

    await await_until(gone, "the end of the process")
    async with get_client() as client:
        await client.set_flow_run_state(created.id, Cancelling())
    await asyncio.to_thread(bolt_simulator.wait_for, lambda bolt: not bolt.active_runs(), timeout=120)
    assert [run.state for run in bolt_simulator.runs("daily")] == ["CANCELED"]
