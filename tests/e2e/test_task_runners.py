"""Tasks in other processes than their flow: Prefect's process pool, and Dask and Ray where they are installed.

Prefect's default, the thread pool, is tested in tests/processes.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from prefect import flow, tags, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterName,
)
from prefect.states import Cancelling
from support.processes import wait_until

from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_flows.tasks import trigger_bolt_run, wait_for_bolt_run

if TYPE_CHECKING:
    from uuid import UUID

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]


def process_pool() -> Any:
    from prefect.task_runners import ProcessPoolTaskRunner

    return ProcessPoolTaskRunner(max_workers=2)


def dask() -> Any:
    runner = pytest.importorskip("prefect_dask").DaskTaskRunner
    return runner(cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None})


def ray() -> Any:
    runner = pytest.importorskip("prefect_ray").RayTaskRunner
    return runner(init_kwargs={"num_cpus": 2, "include_dashboard": False})


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A schedule that ends soon, and one that does not; credentials in the environment, as for workers."""
    with BoltSimulator(speed=100) as simulator:
        simulator.add_schedule("quick", commands=[SimulatedCommand("dbt run", duration_seconds=10)])
        simulator.add_schedule("endless", commands=[SimulatedCommand("dbt run", duration_seconds=1e9)])
        for name, value in simulator.environment().items():
            monkeypatch.setenv(name, value)
        yield simulator


def flow_run_of(tag: str) -> Any:
    with get_client(sync_client=True) as client:
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]))
        return next(iter(client.read_flow_runs(flow_run_filter=tagged)), None)


def is_waited_for(run_id: int, flow_run_id: UUID) -> bool:
    with get_client(sync_client=True) as client:
        found = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])),
            task_run_filter=TaskRunFilter(name=TaskRunFilterName(any_=[f"wait for {run_id}"])),
        )
    return any(task_run.state is not None and task_run.state.is_running() for task_run in found)


@pytest.mark.exhaustive
@pytest.mark.parametrize("make_runner", [process_pool, dask, ray])
def test_tasks_run_in_other_processes_and_a_cancel_leaves_nothing_running(
    workspace: BoltSimulator, make_runner: Any
) -> None:
    """`.map()` and `.submit()` start each run once; each wait ends its run when its flow run is cancelled."""
    tag = f"{make_runner.__name__}-{time.time_ns()}"

    @flow(task_runner=make_runner())
    def composed() -> None:
        quick, endless = trigger_bolt_run.map(["quick", "endless"])
        wait_for_bolt_run.submit(quick, poll_interval_seconds=0.5).result()
        wait_for_bolt_run.map([endless], poll_interval_seconds=0.5).result()

    def cancel() -> UUID:
        (run,) = wait_until(lambda: workspace.runs("endless"), "the endless run")
        flow_run = flow_run_of(tag)
        wait_until(lambda: is_waited_for(run.id, flow_run.id), "a task to wait for it")
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
        return flow_run.id

    with ThreadPoolExecutor(1) as beside, tags(tag):
        cancelled = beside.submit(cancel)
        composed(return_state=True)
        cancelled.result()
    state = flow_run_of(tag).state
    assert state.is_cancelling() or state.is_cancelled()
    assert {run.schedule_name: run.state for run in workspace.runs()} == {
        "quick": "SUCCESS",
        "endless": "CANCELED",
    }
    assert len(workspace.runs()) == 2


@task
def of_the_user() -> None:
    """Submitted first, it sets the context that the process pool then gives to all later tasks."""


@pytest.mark.full
def test_tasks_in_other_processes_belong_to_their_flow_runs_attempt(
    workspace: BoltSimulator,
) -> None:
    """No task takes the lease from the flow run's attempt, or from another task; the user's task is not one of ours."""

    @flow(task_runner=process_pool())
    def composed() -> list[str]:
        of_the_user.submit().result()
        first = trigger_bolt_run("quick")
        waited = [wait_for_bolt_run.submit(first, poll_interval_seconds=0.5).result()]
        second = trigger_bolt_run.submit("quick").result()
        waited.append(wait_for_bolt_run(second, poll_interval_seconds=0.5))
        return [result.state for result in waited]

    assert composed() == ["SUCCESS", "SUCCESS"]
    assert len(workspace.runs("quick")) == 2
