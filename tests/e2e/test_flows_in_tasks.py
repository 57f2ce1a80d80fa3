"""Our flows, called by tasks of the user's: each call is a subflow with its own Bolt run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from paradime_blocks import ParadimeCredentials
from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_flows.ledger.record import read_records
from paradime_flows.prefect_api.flow_runs import subflows_of
from paradime_flows.run_schedule import arun_schedule, run_schedule

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5, "live_logs": "off"}
NAMES = ("orders", "customers")


@pytest.fixture
def workspace(bolt_simulator: BoltSimulator) -> BoltSimulator:
    bolt_simulator.clock.speed = 20
    for name in NAMES:
        command = SimulatedCommand("dbt run", duration_seconds=20, resources={})
        bolt_simulator.add_schedule(name, commands=[command], setup_commands=False)
    return bolt_simulator


@task
def in_a_thread(name: str, credentials: ParadimeCredentials, **options: Any) -> int:
    return run_schedule(name, credentials, **QUICK, **options).run_id


@task
async def in_the_loop(name: str, credentials: ParadimeCredentials) -> int:
    return (await arun_schedule(name, credentials, **QUICK)).run_id


@pytest.mark.parametrize(
    "how",
    [
        "gathered",
        *(pytest.param(how, marks=pytest.mark.full) for how in ("submitted", "one after the other")),
    ],
)
async def test_each_call_by_a_task_is_a_subflow_with_its_own_run(
    workspace: BoltSimulator, credentials: ParadimeCredentials, how: str
) -> None:
    """The record is on the subflow; the parent has none."""

    @flow
    async def nightly() -> tuple[list[int], Any]:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        if how == "submitted":
            futures = [in_a_thread.submit(name, credentials) for name in NAMES]
            found = [await asyncio.to_thread(future.result) for future in futures]
        elif how == "gathered":
            found = list(await asyncio.gather(*(in_the_loop(name, credentials) for name in NAMES)))
        else:
            found = [await in_the_loop(name, credentials) for name in NAMES]
        return found, context.flow_run.id

    found, parent_id = await nightly()
    assert [workspace.run(run_id).schedule_name for run_id in found] == list(NAMES)
    assert [run.state for run in workspace.runs()] == ["SUCCESS", "SUCCESS"]
    async with get_client() as client:
        assert read_records(await client.read_flow_run(parent_id)) == []
        owned = [read_records(child) for child in await subflows_of(client, [parent_id])]
    assert sorted(one.run_id or 0 for (one,) in owned) == sorted(found)


def test_the_same_schedule_with_other_commands_is_another_intent(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The second call does not return the result of the first."""

    @flow
    def twice() -> list[int]:
        return [in_a_thread("orders", credentials, commands=[f"dbt {what}"]) for what in ("run", "test")]

    first, second = twice()
    assert first != second
    assert [run.planned_commands[-1] for run in workspace.runs()] == ["dbt run", "dbt test"]
