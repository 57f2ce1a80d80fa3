"""`wait="suspend"`: a flow run without a process, which is resumed when its Bolt run has ended."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow_async
from prefect.flow_runs import suspend_flow_run
from support.credentials import save
from support.prefect_api import logs_of

from paradime_blocks import BoltRunTimedOut
from paradime_blocks.testing import SimulatedCommand
from paradime_flows.run_schedule import arun_schedule, run_schedule
from paradime_flows.supervision import resume_suspended
from paradime_flows.time_limits import Timing, use_timing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.schemas.objects import FlowRun

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

LONG = SimulatedCommand("dbt run", duration_seconds=float("inf"))


@pytest.fixture(autouse=True)
def short_holds() -> Iterator[None]:
    with use_timing(Timing(held_seconds=1.0)):
        yield


async def deployed(credentials: ParadimeCredentials, **parameters: Any) -> FlowRun:
    """Create a flow run of a deployment that may be suspended."""
    name = f"paradime-{uuid.uuid4().hex[:8]}"
    await save(credentials, name)
    given = {"schedule_name": "daily", "credentials": name, "wait": "suspend", "poll_interval_seconds": 0.5}
    async with get_client() as client:
        flow_id = await client.create_flow(run_schedule)
        deployment = await client.create_deployment(flow_id=flow_id, name=f"suspended-{name}")
        return await client.create_flow_run_from_deployment(deployment, parameters={**given, **parameters})


async def executed(flow_run: FlowRun) -> str:
    """Execute a flow run as a worker does, and return the name of its state."""
    with suppress(Pause, BoltRunTimedOut):
        await run_flow_async(run_schedule, flow_run=await read(flow_run), parameters=flow_run.parameters)
    return await state_of(flow_run)


async def read(flow_run: FlowRun) -> FlowRun:
    async with get_client() as client:
        return await client.read_flow_run(flow_run.id)


async def state_of(flow_run: FlowRun) -> str:
    return (await read(flow_run)).state_name or ""


async def resumed(credentials: ParadimeCredentials, ended: tuple[int, ...] = ()) -> list[uuid.UUID]:
    async with get_client() as client:
        return [one.id for one in await resume_suspended(client, credentials, ended)]


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    'A flow run with `wait="suspend"` waits for a long run',
    prefect="Suspended, then as the run ends",
    bolt="One run, which keeps running",
    result="When the run has ended, watch_runs or a webhook resumes the flow run, which returns the result",
)
async def test_a_suspended_flow_run_waits_without_a_process(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Nothing polls meanwhile, and the run is triggered once."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    flow_run = await deployed(credentials)
    assert await executed(flow_run) == "Suspended"
    (run,) = bolt_simulator.active_runs()
    asked = bolt_simulator.count("boltRunStatus")
    await asyncio.sleep(2)
    assert bolt_simulator.count("boltRunStatus") == asked
    assert await resumed(credentials) == []
    bolt_simulator.finish(run.id, "SUCCESS")
    assert await resumed(credentials) == [flow_run.id]
    assert await executed(flow_run) == "Completed"
    assert bolt_simulator.count("triggerBoltRun") == 1


async def test_a_flow_run_that_is_resumed_early_is_suspended_again(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    bolt_simulator.add_schedule("daily", commands=[LONG])
    flow_run = await deployed(credentials)
    assert await executed(flow_run) == "Suspended"
    async with get_client() as client:
        await client.resume_flow_run(flow_run.id)
    assert await executed(flow_run) == "Suspended"
    (run,) = bolt_simulator.active_runs()
    bolt_simulator.finish(run.id, "SUCCESS")
    assert await resumed(credentials, ended=(run.id,)) == [flow_run.id]
    assert await executed(flow_run) == "Completed"
    assert bolt_simulator.count("triggerBoltRun") == 1


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    'The run of a flow run with `wait="suspend"` reaches its time limit',
    prefect="Suspended, then Failed",
    bolt="CANCELED, or left running as `on_timeout` says",
    result="BoltRunTimedOut, within a minute after the time limit",
)
async def test_the_time_limit_holds_while_suspended(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    bolt_simulator.add_schedule("daily", commands=[LONG])
    flow_run = await deployed(credentials, timeout_seconds=4)
    assert await executed(flow_run) == "Suspended"
    assert await resumed(credentials) == []
    await asyncio.sleep(4)
    assert await resumed(credentials) == [flow_run.id]
    assert await executed(flow_run) == "Failed"
    assert [run.state for run in bolt_simulator.runs()] == ["CANCELED"]


async def test_two_observers_resume_a_flow_run_once(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    bolt_simulator.add_schedule("daily", commands=[LONG])
    flow_run = await deployed(credentials)
    assert await executed(flow_run) == "Suspended"
    (run,) = bolt_simulator.active_runs()
    bolt_simulator.finish(run.id, "SUCCESS")
    await asyncio.gather(*(resumed(credentials) for _ in range(3)))
    assert await state_of(flow_run) == "Resuming"
    assert await executed(flow_run) == "Completed"
    assert await resumed(credentials) == []


@pytest.mark.parametrize("why", ["it is short", "runs of the schedule usually end soon"])
async def test_a_flow_run_with_a_short_run_is_not_suspended(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, why: str
) -> None:
    is_short = why == "it is short"
    command = SimulatedCommand("dbt run", duration_seconds=3.0)
    bolt_simulator.add_schedule("daily", commands=[command], setup_commands=False)
    if not is_short:
        for _ in range(3):
            before = bolt_simulator.start_run("daily")
            await asyncio.sleep(3.5)
            assert not bolt_simulator.run(before).is_active
    with use_timing(Timing(held_seconds=30.0 if is_short else 1.0)):
        assert await executed(await deployed(credentials)) == "Completed"


async def test_a_flow_run_without_a_deployment_waits_in_its_process(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The same is true for a sub-flow run."""
    bolt_simulator.add_schedule("daily", commands=[SimulatedCommand("dbt run", duration_seconds=3.0)])
    seen: list[uuid.UUID] = []

    @flow
    async def parent() -> str:
        state: Any = await arun_schedule("daily", credentials, wait="suspend", return_state=True)  # type: ignore[call-overload]
        seen.append(state.state_details.flow_run_id)
        return str(state.name)

    assert await parent() == "Completed"
    assert any("waits in its process" in message for message in await logs_of(seen[0]))


async def test_a_flow_run_that_prefect_does_not_suspend_waits_in_its_process(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage of Prefect at this moment ends neither the wait nor the Bolt run."""

    async def refuse(**_: Any) -> None:
        msg = "The database is locked."
        raise RuntimeError(msg)

    monkeypatch.setattr("paradime_flows.runner.suspend.asuspend_flow_run", refuse)
    command = SimulatedCommand("dbt run", duration_seconds=6.0)
    bolt_simulator.add_schedule("daily", commands=[command], setup_commands=False)
    assert await executed(await deployed(credentials)) == "Completed"
    assert bolt_simulator.count("triggerBoltRun") == 1


async def test_a_flow_run_that_a_person_has_suspended_is_not_resumed(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    bolt_simulator.add_schedule("daily", commands=[LONG])
    flow_run = await deployed(credentials, wait="hold")
    executing = asyncio.create_task(executed(flow_run))
    while not bolt_simulator.active_runs():  # noqa: ASYNC110 - the simulator tells nobody
        await asyncio.sleep(0.1)
    await suspend_flow_run(flow_run_id=flow_run.id, timeout=600)  # type: ignore[misc]
    assert await executing == "Suspended"
    (run,) = bolt_simulator.active_runs()
    bolt_simulator.finish(run.id, "SUCCESS")
    assert await resumed(credentials, ended=(run.id,)) == []
