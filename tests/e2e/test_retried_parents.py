"""Flows that are begun again, and call anew what they have called before: each intent keeps its one Bolt run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.deployments import arun_deployment
from prefect.flow_engine import run_flow_async
from prefect.states import Cancelling, Running
from prefect.tasks import Task

from paradime_blocks import ParadimeCredentials
from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_flows.prefect_api.flow_runs import subflows_of
from paradime_flows.run_pipeline import arun_pipeline, run_pipeline
from paradime_flows.run_schedule import arun_schedule, run_schedule
from paradime_flows.runner import takeover
from paradime_flows.tasks import atrigger_bolt_run, await_for_bolt_run, trigger_bolt_run, wait_for_bolt_run

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5}
FLOW: dict[str, Any] = {**QUICK, "live_logs": "off"}


class AnotherStepFailedError(Exception):
    """What has the parent retried."""


@flow
async def calls_a_subflow(schedule: str, credentials: ParadimeCredentials, outage: float) -> int:
    return (await arun_schedule(schedule, credentials, max_outage_seconds=outage, **FLOW)).run_id


@flow
async def calls_tasks(schedule: str, credentials: ParadimeCredentials, outage: float) -> int:
    run_id = await atrigger_bolt_run(schedule, credentials)
    await await_for_bolt_run(run_id, credentials, max_outage_seconds=outage, **QUICK)
    return run_id


async def runs_itself(schedule: str, credentials: ParadimeCredentials, outage: float) -> int:
    return await calls_a_subflow.fn(schedule, credentials, outage)


@task
async def runs_as_a_task(schedule: str, credentials: ParadimeCredentials, outage: float) -> int:
    return await runs_itself(schedule, credentials, outage)


SUBFLOWS = {
    "a sub-flow": runs_itself,
    "a sub-flow of a sub-flow": calls_a_subflow,
    "tasks of a sub-flow": calls_tasks,
    "a sub-flow of a task": runs_as_a_task,
}
FULL = pytest.mark.full


@pytest.mark.parametrize(
    "subflow",
    [
        pytest.param(subflow, id=name, marks=[] if name == "a sub-flow" else FULL)
        for name, subflow in SUBFLOWS.items()
    ],
)
async def test_a_retried_parent_takes_up_the_run_of_its_subflow(
    workspace: BoltSimulator, credentials: ParadimeCredentials, subflow: Any
) -> None:
    """Prefect makes a new flow run for the subflow that failed; the Bolt run that it could not see goes on."""
    bodies = []

    async def cut_off() -> None:
        await asyncio.to_thread(workspace.wait_for, lambda simulator: simulator.count("boltRunStatus") > 0)
        workspace.stop()

    @flow(retries=1, retry_delay_seconds=0)
    async def parent() -> Any:
        bodies.append(len(bodies))
        if len(bodies) > 1:
            workspace.start()
            workspace.finish(workspace.runs()[0].id)
            return await subflow("endless", credentials, 600)
        outage = asyncio.create_task(cut_off())
        try:
            return await subflow("endless", credentials, 0.5)
        finally:
            await outage

    run_id = await parent()
    assert bodies == [0, 1]
    assert [(run.id, run.state) for run in workspace.runs()] == [(run_id, "SUCCESS")]


@pytest.mark.parametrize("subflow", SUBFLOWS.values(), ids=SUBFLOWS)
async def test_a_retried_parent_does_not_run_again_what_has_succeeded(
    workspace: BoltSimulator, credentials: ParadimeCredentials, subflow: Any
) -> None:
    """Nobody kept the subflow's result, so Prefect has it run again; each of its runs, and in their order."""
    returned: list[list[int]] = []

    @flow(retries=2, retry_delay_seconds=0)
    async def parent() -> None:
        returned.append([await subflow("quick", credentials, 600) for _ in range(2 if returned else 1)])
        if len(returned) < 3:
            raise AnotherStepFailedError

    await parent()
    first, second = (run.id for run in workspace.runs())
    assert returned == [[first], [first, second], [first, second]]


@pytest.mark.full
async def test_of_two_equal_tasks_of_a_retried_parents_subflow_each_takes_up_its_own_run(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The one whose run had failed triggers anew."""
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


async def runs_a_pipeline(schedule: str, credentials: ParadimeCredentials, outage: float) -> int:
    steps = [{"schedule_name": schedule}]
    (outcome,) = (await arun_pipeline(steps, credentials, max_outage_seconds=outage, **FLOW)).steps
    assert outcome.run_id is not None
    return outcome.run_id


@flow
async def calls_the_pipeline(schedule: str, credentials: ParadimeCredentials, outage: float) -> int:
    return await runs_a_pipeline(schedule, credentials, outage)


@flow
async def calls_a_task(schedule: str, credentials: ParadimeCredentials, outage: float) -> int:
    return await runs_as_a_task(schedule, credentials, outage)


@task
async def calls_a_subflow_as_a_task(schedule: str, credentials: ParadimeCredentials, outage: float) -> int:
    return await calls_a_subflow(schedule, credentials, outage)


@pytest.mark.parametrize(
    "called",
    [
        pytest.param(runs_itself, id="a flow of ours"),
        pytest.param(calls_a_subflow, id="a flow that calls it", marks=FULL),
        pytest.param(calls_tasks, id="a flow with our tasks", marks=FULL),
        pytest.param(calls_tasks.fn, id="our tasks"),
        pytest.param(runs_as_a_task, id="a task that calls it", marks=FULL),
        pytest.param(calls_a_subflow_as_a_task, id="a task that calls a flow", marks=FULL),
        pytest.param(calls_a_task, id="a flow that calls a task", marks=FULL),
        pytest.param(runs_a_pipeline, id="a pipeline", marks=FULL),
        pytest.param(calls_the_pipeline, id="a flow that calls a pipeline", marks=FULL),
    ],
)
@pytest.mark.parametrize("retried", ["task", pytest.param("flow", marks=FULL)])
async def test_what_a_retried_task_calls_is_run_once(
    workspace: BoltSimulator, credentials: ParadimeCredentials, called: Any, retried: str
) -> None:
    """Prefect does not number what a task calls; each attempt of it, or of its flow, comes after the one before."""
    returned: list[list[int]] = []

    @task(retries=2 if retried == "task" else 0, retry_delay_seconds=0)
    async def step() -> None:
        returned.append([])
        for _ in range(1 if len(returned) == 1 else 2):
            returned[-1].append(await called("quick", credentials, 600))
        if len(returned) < 3:
            raise AnotherStepFailedError

    @flow(retries=2 if retried == "flow" else 0, retry_delay_seconds=0)
    async def parent() -> None:
        await step()

    await parent()
    first, second = (run.id for run in workspace.runs())
    assert returned == [[first], [first, second], [first, second]]


@pytest.mark.full
@pytest.mark.parametrize("retried", ["task", "flow"])
async def test_equal_tasks_that_tasks_call_at_once_keep_a_run_each(
    workspace: BoltSimulator, credentials: ParadimeCredentials, retried: str
) -> None:
    """Each finds the runs of the attempt before, and none of them twice."""
    workspace.update_schedule("quick", already_running="allow")
    returned: list[list[int]] = []

    @task
    async def inner(delay: float) -> int:
        # Apart from each other in the first attempt, so that it can be told which run each has started.
        await asyncio.sleep(0 if returned else delay)
        return await calls_tasks.fn("quick", credentials, 600)

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


def test_what_a_retried_task_of_a_plain_flow_calls_is_run_once(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The forms that are not awaited; the wait of the first attempt was cut off."""
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


@flow(name="load")
async def loads(credentials: ParadimeCredentials) -> int:
    return (await arun_schedule("quick", credentials, **FLOW)).run_id


@flow(name="load")
async def loads_as_well(credentials: ParadimeCredentials) -> int:
    return (await arun_schedule("quick", credentials, **FLOW)).run_id


@pytest.mark.full
async def test_two_flows_of_one_name_are_two(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Prefect gives them one id, and numbers each from nought."""
    returned: list[list[int]] = []

    @flow(retries=1, retry_delay_seconds=0)
    async def parent() -> None:
        returned.append([await loads(credentials), await loads_as_well(credentials)])
        if len(returned) < 2:
            raise AnotherStepFailedError

    await parent()
    assert returned == [[run.id for run in workspace.runs()]] * 2
    assert len(workspace.runs()) == 2


async def test_a_flow_that_was_edited_before_its_parent_is_retried_is_the_same(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Prefect's key for it is another one, as also where a worker has fetched the code into another folder."""
    returned: list[int] = []

    @flow(retries=1, retry_delay_seconds=0)
    async def parent() -> None:
        returned.append(await (loads_as_well if returned else loads)(credentials))
        if len(returned) < 2:
            raise AnotherStepFailedError

    await parent()
    assert returned == [run.id for run in workspace.runs()] * 2


async def test_a_flow_that_a_task_calls_takes_up_by_its_own_retry_what_it_had_called(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The task is the same, in the same attempt; but the flow that it called is in another."""
    returned: list[int] = []

    @flow(retries=1, retry_delay_seconds=0)
    async def child() -> None:
        returned.append((await arun_schedule("quick", credentials, **FLOW)).run_id)
        if len(returned) < 2:
            raise AnotherStepFailedError

    @task
    async def step() -> None:
        await child()

    @flow
    async def parent() -> None:
        await step()

    await parent()
    assert returned == [run.id for run in workspace.runs()] * 2


@pytest.mark.full
async def test_what_a_task_of_a_subflow_had_called_is_taken_up_in_each_attempt_of_the_parent(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The subflow is another flow run each time: what the last one took over hides behind none of those before."""
    returned: list[int] = []

    @flow
    async def child() -> None:
        returned.append(await runs_as_a_task("quick", credentials, 600))

    @flow(retries=3, retry_delay_seconds=0)
    async def parent() -> None:
        await child()
        if len(returned) < 4:
            raise AnotherStepFailedError

    await parent()
    assert returned == [run.id for run in workspace.runs()] * 4


@pytest.mark.full
async def test_what_tasks_of_one_attempt_ask_for_is_run_for_each(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """They ask for the same, one after the other and at once: those are intents of their own, in each attempt."""
    workspace.update_schedule("quick", already_running="allow")
    returned: list[list[int]] = []

    @task
    async def step() -> int:
        return (await arun_schedule("quick", credentials, one_at_a_time=False, **FLOW)).run_id

    @flow(retries=1, retry_delay_seconds=0)
    async def parent() -> None:
        returned.append([await step(), await step(), *await asyncio.gather(step(), step())])
        if len(returned) < 2:
            raise AnotherStepFailedError

    await parent()
    assert len(set(returned[0])) == 4
    assert sorted(returned[1]) == sorted(returned[0])
    assert len(workspace.runs()) == 4


@pytest.mark.full
async def test_two_equal_tasks_at_once_do_not_take_over_one_run(
    workspace: BoltSimulator, credentials: ParadimeCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first is about to take over what it has found, the second looks."""
    returned: list[list[int]] = []
    write_the_end = takeover.write_the_end

    async def slowly(*arguments: Any) -> None:
        await asyncio.sleep(1.5)
        await write_the_end(*arguments)

    monkeypatch.setattr(takeover, "write_the_end", slowly)

    async def one(delay: float) -> int:
        await asyncio.sleep(delay)
        run_id = await atrigger_bolt_run("quick", credentials)
        await await_for_bolt_run(run_id, credentials, **QUICK)
        return run_id

    @flow
    async def child() -> None:
        # Far enough apart at first that Bolt takes both.
        returned.append(await asyncio.gather(one(0), one(0.7 if returned else 6)))

    @flow(retries=1, retry_delay_seconds=0)
    async def parent() -> None:
        await child()
        if len(returned) < 2:
            raise AnotherStepFailedError

    await parent()
    assert sorted(returned[0]) == sorted(returned[1])
    assert len(set(returned[1])) == 2


# Flow runs that `run_deployment` has started: each has a process of its own, and outlives its parent.


@dataclass
class Deployed:
    """A deployment that a flow has started at one place, in each of its attempts anew.

    Attributes:
        deployment_id: The deployment.
        call_id: The task run that stands for the place.
        what: The deployed flow.
        parameters: Those of all its flow runs, but for credentials, which Prefect would have to write down.
        credentials: The credentials.
    """

    deployment_id: UUID
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
            parent = await client.create_flow_run(run_schedule, state=Running())
            place = Task(name="apart", fn=what.fn)
            call = await client.create_task_run(place, flow_run_id=parent.id, dynamic_key="0")
        return cls(deployment_id, call.id, what, parameters, credentials)

    async def called(self) -> FlowRun:
        """Return the flow run that the next attempt of the parent starts."""
        async with get_client() as client:
            return await client.create_flow_run_from_deployment(
                self.deployment_id, parent_task_run_id=self.call_id, parameters=self.parameters
            )

    def begun(self, flow_run: FlowRun) -> asyncio.Task[Any]:
        """Have a flow run begin; it does not end with the one that has started it."""
        given = {**self.parameters, "credentials": self.credentials}
        call = run_flow_async(self.what, flow_run=flow_run, parameters=given, return_type="state")
        return asyncio.create_task(call)


async def has_crashed(flow_run: FlowRun) -> None:
    """Wait until Prefect says so of a flow run, or of one that it has called: who takes its place writes that."""
    while "Crashed" not in await states_of_the_family(flow_run):  # noqa: ASYNC110 - Prefect tells nobody
        await asyncio.sleep(0.2)


async def states_of_the_family(flow_run: FlowRun) -> set[str | None]:
    """Return the names of the states of a flow run and of those that it has called."""
    async with get_client() as client:
        found = [await client.read_flow_run(flow_run.id), *await subflows_of(client, [flow_run.id])]
    return {one.state and one.state.name for one in found}


@flow
async def calls_a_pipeline(schedule: str, credentials: ParadimeCredentials) -> None:
    await arun_pipeline([{"schedule_name": schedule}], credentials, **FLOW)


@flow
async def calls_a_schedule(
    schedule: str, credentials: ParadimeCredentials, one_at_a_time: bool = True
) -> None:
    await arun_schedule(schedule, credentials, one_at_a_time=one_at_a_time, **FLOW)


DEPLOYED = pytest.mark.parametrize(
    "what",
    [
        pytest.param(run_schedule, id="run_schedule"),
        pytest.param(run_pipeline, id="run_pipeline"),
        pytest.param(calls_a_schedule, id="calls_a_schedule", marks=FULL),
        pytest.param(calls_a_pipeline, id="calls_a_pipeline", marks=FULL),
    ],
)


def parameters_of(what: Flow[Any, Any], schedule: str) -> dict[str, Any]:
    if what is run_schedule:
        return {"schedule_name": schedule, **FLOW}
    return (
        {"steps": [{"schedule_name": schedule}], **FLOW} if what is run_pipeline else {"schedule": schedule}
    )


@DEPLOYED
async def test_a_deployment_that_is_called_again_runs_again_what_had_failed(
    workspace: BoltSimulator, credentials: ParadimeCredentials, what: Flow[Any, Any]
) -> None:
    """In another process, and as another attempt than the one before."""
    parameters = parameters_of(what, "once")
    deployed = await Deployed.at(what, parameters, credentials)
    states = [await deployed.begun(await deployed.called()) for _ in range(2)]
    assert [state.name for state in states] == ["Failed", "Completed"]
    assert [run.state for run in workspace.runs()] == ["FAILED", "SUCCESS"]


@DEPLOYED
@pytest.mark.parametrize(
    "cancelled", [pytest.param(False, id=""), pytest.param(True, id="and the first is cancelled", marks=FULL)]
)
async def test_a_deployment_that_is_called_again_while_the_first_lives_takes_its_run_over(
    workspace: BoltSimulator, credentials: ParadimeCredentials, what: Flow[Any, Any], cancelled: bool
) -> None:
    """The first lets go of it, and so do its steps: it is the second's to wait for and to cancel."""
    parameters = parameters_of(what, "endless")
    deployed = await Deployed.at(what, parameters, credentials)
    one = await deployed.called()
    first = deployed.begun(one)
    await asyncio.to_thread(workspace.wait_for, lambda bolt: bolt.count("boltRunStatus") >= 2, 30)
    second = deployed.begun(await deployed.called())
    await asyncio.wait([first], timeout=60)
    assert first.done()
    await asyncio.wait_for(has_crashed(one), 30)
    if cancelled:
        # The second has taken it over when it asks for it.
        asked = workspace.count("boltRunStatus")
        await asyncio.to_thread(workspace.wait_for, lambda bolt: bolt.count("boltRunStatus") > asked + 1, 60)
        async with get_client() as client:
            await client.set_flow_run_state(one.id, Cancelling(), force=True)
        asked = workspace.count("boltRunStatus")
        await asyncio.to_thread(workspace.wait_for, lambda bolt: bolt.count("boltRunStatus") > asked + 5, 30)
    (run_of_both,) = workspace.runs()
    assert (run_of_both.state, run_of_both.cancel_requests) == ("RUNNING", 0)
    workspace.finish(run_of_both.id)
    assert (await second).is_completed()
    assert len(workspace.runs()) == 1


@flow
async def calls_two(schedule: str, credentials: ParadimeCredentials) -> None:
    await arun_schedule("quick", credentials, **FLOW)
    # Longer than it takes to hear of a parent's end.
    await asyncio.sleep(8)
    await arun_schedule(schedule, credentials, **FLOW)


@pytest.mark.full
async def test_what_the_older_flow_run_still_does_goes_on_until_it_is_taken_over(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Its first step is done and its second lives, as the newer flow run looks for the first."""
    parameters = parameters_of(calls_two, "endless")
    deployed = await Deployed.at(calls_two, parameters, credentials)
    first = deployed.begun(await deployed.called())
    await asyncio.to_thread(workspace.wait_for, lambda bolt: len(bolt.runs()) == 2, 60)
    second = deployed.begun(await deployed.called())
    await asyncio.wait([first], timeout=60)
    assert first.done()
    _, run = workspace.runs()
    assert (run.state, run.cancel_requests) == ("RUNNING", 0)
    workspace.finish(run.id)
    assert (await second).is_completed()
    assert len(workspace.runs()) == 2


@pytest.mark.full
@DEPLOYED
async def test_a_deployments_flow_run_that_begins_late_gives_way_to_the_one_in_its_place(
    workspace: BoltSimulator, credentials: ParadimeCredentials, what: Flow[Any, Any]
) -> None:
    """Its worker was down, and the parent has been retried meanwhile."""
    parameters = parameters_of(what, "endless")
    deployed = await Deployed.at(what, parameters, credentials)
    one, two = await deployed.called(), await deployed.called()
    second = deployed.begun(two)
    await asyncio.to_thread(workspace.wait_for, lambda bolt: bolt.count("boltRunStatus") >= 2, 30)
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


@pytest.mark.full
@pytest.mark.parametrize("what", [run_schedule, calls_a_schedule], ids=lambda what: what.name)
async def test_a_deployment_that_is_called_again_before_the_first_has_triggered_triggers_once(
    workspace: BoltSimulator, credentials: ParadimeCredentials, what: Flow[Any, Any]
) -> None:
    """Both find the schedule running; the first lets go, and the second waits to trigger."""
    workspace.update_schedule("quick", commands=[SimulatedCommand("dbt run", duration_seconds=100_000)])
    in_the_way = workspace.start_run("quick")
    parameters = {**parameters_of(what, "quick"), "one_at_a_time": False}
    deployed = await Deployed.at(what, parameters, credentials)
    called, runs = [], []
    for _ in range(2):
        asked = workspace.count("triggerBoltRun")
        called.append(await deployed.called())
        runs.append(deployed.begun(called[-1]))
        await asyncio.to_thread(
            workspace.wait_for, lambda bolt, n=asked: bolt.count("triggerBoltRun") > n, 30
        )
    await asyncio.wait(runs[:1], timeout=30)
    assert runs[0].done()
    workspace.update_schedule("quick", commands=[SimulatedCommand("dbt run")])
    workspace.finish(in_the_way)
    assert (await runs[1]).is_completed()
    assert len(workspace.runs()) == 2
    await asyncio.wait_for(has_crashed(called[0]), 30)


async def test_what_a_task_outside_of_a_flow_calls_twice_is_run_twice(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Prefect has one key for all that it calls."""
    async with get_client() as client:
        await client.create_deployment(flow_id=await client.create_flow(run_schedule), name="twice")

    @task
    async def refresh() -> list[FlowRun]:
        return [await arun_deployment("run-schedule/twice", timeout=0) for _ in range(2)]

    for flow_run in await refresh():
        given = {"schedule_name": "quick", "credentials": credentials, **FLOW}
        await run_flow_async(run_schedule, flow_run=flow_run, parameters=given)
    assert len(workspace.runs()) == 2
