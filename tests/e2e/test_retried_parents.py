"""Retried flows that repeat their calls: each intent keeps its one Bolt run.

One test for each shape. test_call_paths.py, here and in tests/unit, tests which flow run precedes which.
tests/faults/test_retried_parents.py tests what happens to everything that the earlier ones can have left.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow_async
from prefect.states import Cancelling, Running
from prefect.tasks import Task

from paradime_blocks import ParadimeCredentials
from paradime_blocks.testing import BoltSimulator
from paradime_flows.prefect_api.flow_runs import subflows_of
from paradime_flows.run_pipeline import arun_pipeline, run_pipeline
from paradime_flows.run_schedule import arun_schedule, run_schedule
from paradime_flows.tasks import atrigger_bolt_run, await_for_bolt_run, trigger_bolt_run, wait_for_bolt_run

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5}
FLOW: dict[str, Any] = {**QUICK, "live_logs": "off"}
longer = pytest.mark.exhaustive


class AnotherStepFailedError(Exception):
    """Causes a retry of the attempt."""


async def runs_itself(schedule: str, credentials: ParadimeCredentials) -> int:
    return (await arun_schedule(schedule, credentials, on_interrupt="leave", **FLOW)).run_id


@flow
async def calls_a_subflow(schedule: str, credentials: ParadimeCredentials) -> int:
    return await runs_itself(schedule, credentials)


@flow
async def calls_tasks(schedule: str, credentials: ParadimeCredentials) -> int:
    run_id = await atrigger_bolt_run(schedule, credentials)
    await await_for_bolt_run(run_id, credentials, **QUICK)
    return run_id


@task
async def runs_as_a_task(schedule: str, credentials: ParadimeCredentials) -> int:
    return await runs_itself(schedule, credentials)


@flow
async def calls_a_task(schedule: str, credentials: ParadimeCredentials) -> int:
    return await runs_as_a_task(schedule, credentials)


async def runs_a_pipeline(schedule: str, credentials: ParadimeCredentials) -> int:
    steps = [{"schedule_name": schedule}]
    (outcome,) = (await arun_pipeline(steps, credentials, on_interrupt="leave", **FLOW)).steps
    assert outcome.run_id is not None
    return outcome.run_id


@flow
async def calls_the_pipeline(schedule: str, credentials: ParadimeCredentials) -> int:
    return await runs_a_pipeline(schedule, credentials)


async def is_waited_for(workspace: BoltSimulator, more: int = 1) -> None:
    """Return after this many more status requests."""
    asked = workspace.count("boltRunStatus")
    await asyncio.to_thread(workspace.wait_for, lambda bolt: bolt.count("boltRunStatus") >= asked + more, 60)


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    "A flow or task of your own is retried, and Prefect runs its sub-flow again",
    prefect="As the run ends",
    bolt="No second run, unless the first one had failed",
    result=(
        "The new sub-flow run, and all that it calls, resumes runs that are still running, and returns the "
        "results of runs that succeeded. So do tasks and flows that a task of yours calls. A pipeline starts "
        "from its failed steps"
    ),
)
@pytest.mark.parametrize(
    "called",
    [
        pytest.param(runs_itself, id="a sub-flow"),
        pytest.param(calls_a_subflow, id="a sub-flow of a sub-flow", marks=longer),
        pytest.param(runs_as_a_task, id="a sub-flow of a task", marks=longer),
        pytest.param(runs_a_pipeline, id="a pipeline", marks=longer),
        pytest.param(calls_the_pipeline, id="a pipeline of a sub-flow", marks=longer),
    ],
)
async def test_a_retried_parent_resumes_the_active_run(
    workspace: BoltSimulator, credentials: ParadimeCredentials, called: Any
) -> None:
    """Its first attempt is interrupted while it waits, and Prefect creates a new flow run for the subflow."""
    attempts = []

    @flow(retries=1, retry_delay_seconds=0)
    async def parent() -> Any:
        attempts.append(len(attempts))
        call = asyncio.create_task(called("endless", credentials))
        await is_waited_for(workspace)
        if len(attempts) < 2:
            call.cancel()
            await asyncio.wait([call])
            raise AnotherStepFailedError
        workspace.finish(workspace.runs()[0].id)
        return await call

    run_id = await parent()
    assert attempts == [0, 1]
    assert [(run.id, run.state) for run in workspace.runs()] == [(run_id, "SUCCESS")]


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    "A flow or task of your own is retried, and Prefect runs its sub-flow again",
)
@pytest.mark.parametrize(
    "called, by",
    [
        pytest.param(calls_a_subflow, "flow", id="a sub-flow of a sub-flow; the flow is retried"),
        pytest.param(calls_tasks, "flow", id="tasks of a sub-flow; the flow is retried", marks=longer),
        pytest.param(calls_the_pipeline, "flow", id="a pipeline; the flow is retried", marks=longer),
        pytest.param(runs_itself, "task", id="a flow; the task is retried"),
        pytest.param(calls_a_subflow, "task", id="a flow of a flow; the task is retried", marks=longer),
        pytest.param(calls_tasks.fn, "task", id="our tasks; the task is retried", marks=longer),
        pytest.param(runs_as_a_task, "task", id="a flow of a task; the task is retried", marks=longer),
        pytest.param(calls_a_task, "task", id="a task of a flow; the task is retried", marks=longer),
        pytest.param(runs_a_pipeline, "task", id="a pipeline; the task is retried", marks=longer),
        pytest.param(runs_itself, "flow of the task", id="a flow; the task's flow is retried", marks=longer),
        pytest.param(calls_tasks.fn, "flow of the task", id="our tasks; the task's flow is retried"),
        pytest.param(
            calls_a_task, "flow of the task", id="a task of a flow; the task's flow is retried", marks=longer
        ),
        pytest.param(
            runs_a_pipeline, "flow of the task", id="a pipeline; the task's flow is retried", marks=longer
        ),
    ],
)
async def test_a_success_is_not_run_again_by_a_retry(
    workspace: BoltSimulator, credentials: ParadimeCredentials, called: Any, by: str
) -> None:
    """No result was stored, so Prefect runs the call again. A second call of the same is another intent.

    Equal pipelines that tasks call are an exception: they share the outcomes of the earlier attempts.
    """
    calls = 1 if by != "flow" and called is runs_a_pipeline else 2
    returned: list[list[int]] = []
    retried = {"retries": 1, "retry_delay_seconds": 0}

    async def attempt() -> None:
        first = not returned
        returned.append([await called("quick", credentials) for _ in range(1 if first else calls)])
        if first:
            raise AnotherStepFailedError

    @task(**(retried if by == "task" else {}))
    async def step() -> None:
        await attempt()

    @flow(**({} if by == "task" else retried))
    async def parent() -> None:
        await (attempt() if by == "flow" else step())

    await parent()
    first, *second = (run.id for run in workspace.runs())
    assert returned == [[first], [first, *second]]
    assert len(second) == calls - 1


async def test_equal_tasks_in_a_retried_parents_subflow_resume_their_own_runs(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The task whose run had failed triggers again."""
    returned: list[list[int]] = []

    @flow
    async def child() -> None:
        for _ in range(2):
            returned[-1].append(await atrigger_bolt_run("once", credentials))
            await await_for_bolt_run(returned[-1][-1], credentials, **QUICK)

    @flow(retries=2, retry_delay_seconds=0)
    async def parent() -> None:
        returned.append([])
        await child()
        if len(returned) < 3:
            raise AnotherStepFailedError

    await parent()
    failed, first, second = (run.id for run in workspace.runs())
    assert returned == [[failed], [first, second], [first, second]]


@longer
@pytest.mark.parametrize("retried", ["task", "flow"])
async def test_equal_tasks_called_at_once_keep_one_run_each(
    workspace: BoltSimulator, credentials: ParadimeCredentials, retried: str
) -> None:
    """Each resumes one run of the attempt before, and no run is resumed twice."""
    workspace.update_schedule("quick", already_running="allow")
    returned: list[list[int]] = []

    @task
    async def inner(delay: float) -> int:
        # They start one by one in the first attempt, so that each task's run is known.
        await asyncio.sleep(0 if returned else delay)
        return await calls_tasks.fn("quick", credentials)

    @task(retries=1 if retried == "task" else 0, retry_delay_seconds=0)
    async def outer() -> None:
        returned.append(await asyncio.gather(*(inner(delay) for delay in (0, 6, 12))))
        if len(returned) < 2:
            raise AnotherStepFailedError

    @flow(retries=1 if retried == "flow" else 0, retry_delay_seconds=0)
    async def parent() -> None:
        await outer()

    await parent()
    assert len(set(returned[0])) == 3
    assert sorted(returned[1]) == sorted(returned[0])
    assert len(workspace.runs()) == 3


def test_a_call_in_a_retried_task_of_a_sync_flow_runs_once(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The sync forms are called; the wait of the first attempt was interrupted."""
    returned: list[int] = []

    @task(retries=1, retry_delay_seconds=0)
    def step() -> None:
        returned.append(trigger_bolt_run("endless", credentials))
        if len(returned) < 2:
            raise AnotherStepFailedError
        workspace.finish(returned[0])
        wait_for_bolt_run(returned[-1], credentials, **QUICK)

    @flow
    def parent() -> None:
        step()

    parent()
    assert returned == [run.id for run in workspace.runs()] * 2


# Flow runs started by `run_deployment`: each has its own process and outlives its parent.


@dataclass
class Deployed:
    """A deployment that a flow starts at one place, again in each attempt.

    Attributes:
        deployment_id: The deployment.
        parent_id: The flow run that calls it.
        call_id: The task run of the call.
        what: The deployed flow.
        parameters: The parameters of all its flow runs, without credentials, which Prefect would store.
        credentials: The credentials.
    """

    deployment_id: UUID
    parent_id: UUID
    call_id: UUID
    what: Flow[Any, Any]
    parameters: dict[str, Any]
    credentials: ParadimeCredentials

    @classmethod
    async def at(
        cls, what: Flow[Any, Any], parameters: dict[str, Any], credentials: ParadimeCredentials
    ) -> Deployed:
        async with get_client() as client:
            deployment_id = await client.create_deployment(
                flow_id=await client.create_flow(what), name="apart"
            )
            parent = await client.create_flow_run(run_schedule)
            place = Task(name="apart", fn=what.fn)
            call = await client.create_task_run(place, flow_run_id=parent.id, dynamic_key="0")
        return cls(deployment_id, parent.id, call.id, what, parameters, credentials)

    async def called(self) -> FlowRun:
        """Return the flow run that the parent's next attempt starts."""
        async with get_client() as client:
            # The first attempt, or a retry of the parent.
            await client.set_flow_run_state(self.parent_id, Running(), force=True)
            return await client.create_flow_run_from_deployment(
                self.deployment_id, parent_task_run_id=self.call_id, parameters=self.parameters
            )

    def begun(self, flow_run: FlowRun) -> asyncio.Task[Any]:
        """Start a flow run; it does not end with its parent."""
        given = {**self.parameters, "credentials": self.credentials}
        call = run_flow_async(self.what, flow_run=flow_run, parameters=given, return_type="state")
        return asyncio.create_task(call)


async def has_crashed(flow_run: FlowRun) -> None:
    """Wait until Prefect shows a flow run, or one that it called, as crashed; its replacement writes that."""
    while "Crashed" not in await states_of_the_family(flow_run):  # noqa: ASYNC110 - Prefect tells nobody
        await asyncio.sleep(0.1)


async def states_of_the_family(flow_run: FlowRun) -> set[str | None]:
    """Return the names of the states of a flow run and its subflows."""
    async with get_client() as client:
        found = [await client.read_flow_run(flow_run.id), *await subflows_of(client, [flow_run.id])]
    return {one.state and one.state.name for one in found}


@flow
async def calls_a_pipeline(schedule: str, credentials: ParadimeCredentials) -> None:
    await arun_pipeline([{"schedule_name": schedule}], credentials, **FLOW)


@flow
async def calls_a_schedule(schedule: str, credentials: ParadimeCredentials) -> None:
    await arun_schedule(schedule, credentials, **FLOW)


def parameters_of(what: Flow[Any, Any], schedule: str) -> dict[str, Any]:
    if what is run_schedule:
        return {"schedule_name": schedule, **FLOW}
    return (
        {"steps": [{"schedule_name": schedule}], **FLOW} if what is run_pipeline else {"schedule": schedule}
    )


@longer
@pytest.mark.parametrize("what", [calls_a_schedule, run_pipeline], ids=lambda what: what.name)
async def test_a_deployment_called_again_reruns_a_failed_run(
    workspace: BoltSimulator, credentials: ParadimeCredentials, what: Flow[Any, Any]
) -> None:
    """The second flow run is in another process and another attempt."""
    deployed = await Deployed.at(what, parameters_of(what, "once"), credentials)
    states = [await deployed.begun(await deployed.called()) for _ in range(2)]
    assert [state.name for state in states] == ["Failed", "Completed"]
    assert [run.state for run in workspace.runs()] == ["FAILED", "SUCCESS"]


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    "A parent is retried while a flow run that it had started by a deployment is still running",
    prefect="Crashed; the new flow run as the run ends",
    bolt="One run, which keeps running",
    result="The new flow run takes over, and the older one stops, even before its trigger",
)
@pytest.mark.parametrize(
    "what, cancelled",
    [
        pytest.param(run_schedule, False, id="run-schedule"),
        pytest.param(calls_a_schedule, True, id="calls-a-schedule, the first is cancelled", marks=longer),
        pytest.param(run_pipeline, False, id="run-pipeline", marks=longer),
        pytest.param(calls_a_pipeline, True, id="calls-a-pipeline, the first is cancelled", marks=longer),
    ],
)
async def test_a_deployment_called_again_takes_over_from_a_live_flow_run(
    workspace: BoltSimulator, credentials: ParadimeCredentials, what: Flow[Any, Any], cancelled: bool
) -> None:
    """The first flow run and its steps release the run; now the second waits for it and may cancel it."""
    deployed = await Deployed.at(what, parameters_of(what, "endless"), credentials)
    one = await deployed.called()
    first = deployed.begun(one)
    await is_waited_for(workspace, 2)
    second = deployed.begun(await deployed.called())
    await asyncio.wait([first], timeout=60)
    assert first.done()
    await asyncio.wait_for(has_crashed(one), 30)
    if cancelled:
        # Its first status request shows that the second has taken the run over.
        await is_waited_for(workspace)
        async with get_client() as client:
            await client.set_flow_run_state(one.id, Cancelling(), force=True)
        await is_waited_for(workspace, 5)
    (run_of_both,) = workspace.runs()
    assert (run_of_both.state, run_of_both.cancel_requests) == ("RUNNING", 0)
    workspace.finish(run_of_both.id)
    assert (await second).is_completed()
    assert len(workspace.runs()) == 1


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    "A parent is retried, and the deployment's older flow run starts only after the new one",
    prefect="Crashed; the new flow run as the run ends",
    bolt="One run, which keeps running",
    result="The older flow run stops as it starts",
)
@longer
@pytest.mark.parametrize("what", [run_schedule, calls_a_pipeline], ids=lambda what: what.name)
async def test_a_deployments_flow_run_that_starts_late_stops(
    workspace: BoltSimulator, credentials: ParadimeCredentials, what: Flow[Any, Any]
) -> None:
    """Its worker was down, and the parent was retried in the meantime."""
    deployed = await Deployed.at(what, parameters_of(what, "endless"), credentials)
    one, two = await deployed.called(), await deployed.called()
    second = deployed.begun(two)
    await is_waited_for(workspace, 2)
    late = deployed.begun(one)
    await asyncio.wait([late], timeout=60)
    assert late.done()
    assert await states_of_the_family(one) == {"Crashed"}
    assert await states_of_the_family(two) == {"Running"}
    (run_of_both,) = workspace.runs()
    assert (run_of_both.state, run_of_both.cancel_requests) == ("RUNNING", 0)
    workspace.finish(run_of_both.id)
    assert (await second).is_completed()
    assert len(workspace.runs()) == 1
