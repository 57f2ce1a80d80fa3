"""`sweep_orphans`: what it finds, what it does about it, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelled, Completed, Crashed, Failed, Running
from support.prefect_api import artifacts_of, latest_flow_run

from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_blocks.trigger import TriggerIntent, TriggerRequest
from paradime_flows import sweep_orphans as module
from paradime_flows.liveness import LABEL
from paradime_flows.ownership import TAG, Ownership, read_ownerships
from paradime_flows.run_schedule import run_schedule
from paradime_flows.sweep_orphans import asweep_orphans

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.states import State

    from paradime_blocks import ParadimeCredentials

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

LONG = SimulatedCommand("dbt run", duration_seconds=100_000)


async def orphan(
    credentials: ParadimeCredentials, run_id: int | None, state: State[Any], **changes: Any
) -> FlowRun:
    """Make a flow run that answers for a Bolt run and is in a state that Prefect holds it for."""
    async with get_client() as client:
        flow_run = await client.create_flow_run(run_schedule, state=state, tags=[TAG])
        ownership = Ownership(
            flow_run_id=flow_run.id,
            request=TriggerRequest(schedule_name="daily"),
            intent=TriggerIntent(latest_run_id=0, intended_at=time.time()),
            run_id=run_id,
            api_endpoint=credentials.api_endpoint,
            **changes,
        )
        await client.update_flow_run_labels(flow_run.id, ownership.to_labels())
        return flow_run


async def again(flow_run: FlowRun) -> FlowRun:
    """Read a flow run as it is now."""
    async with get_client() as client:
        return await client.read_flow_run(flow_run.id)


@pytest.mark.parametrize("state", [Crashed(), Cancelled(), Failed(), Running()], ids=lambda state: state.name)
async def test_a_run_whose_flow_run_is_over_or_silent_is_cancelled_and_told(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, state: State[Any]
) -> None:
    """The Bolt run is CANCELED, the ownership closed, and a table tells of it."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(credentials, run_id, state)
    async with get_client() as client:
        await client.update_flow_run_labels(flow_run.id, {LABEL: "1000 1 0 elsewhere"})
    (found,) = await asweep_orphans(credentials, older_than_seconds=0)
    assert (found.run_id, found.state, found.done) == (run_id, "CANCELED", "cancelled")
    assert bolt_simulator.run(run_id).state == "CANCELED"
    swept = await again(flow_run)
    assert not any(ownership.is_open for ownership in read_ownerships(swept))
    assert swept.state is not None
    assert swept.state.is_final()
    artifacts = await artifacts_of((await latest_flow_run("sweep-orphans")).id)
    (row,) = json.loads(str(artifacts["paradime-orphans"].data))
    assert row["Bolt run"] == run_id
    assert await asweep_orphans(credentials, older_than_seconds=0) == []


async def test_a_report_changes_nothing(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """It tells of the run each time, and leaves it."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    await orphan(credentials, run_id, Crashed())
    for _ in range(2):
        (found,) = await asweep_orphans(credentials, action="report", older_than_seconds=0)
        assert (found.run_id, found.state) == (run_id, "RUNNING")
    assert bolt_simulator.run(run_id).cancel_requests == 0


async def test_attaching_waits_for_the_end_and_archives_to_the_flow_run(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The healthy run ends by itself, and its summary stands with the flow run that had lost it."""
    bolt_simulator.add_schedule("daily", commands=[SimulatedCommand("dbt run", duration_seconds=20)])
    bolt_simulator.clock.speed = 20
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(credentials, run_id, Crashed())
    (found,) = await asweep_orphans(credentials, action="attach", older_than_seconds=0)
    assert found.state == "SUCCESS"
    assert "paradime-daily" in await artifacts_of(flow_run.id)
    assert bolt_simulator.run(run_id).cancel_requests == 0


async def test_a_trigger_that_was_never_answered_is_looked_into(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Killed between intent and id: the run that it started is found by the intent and cancelled."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    await orphan(credentials, None, Crashed())
    (found,) = await asweep_orphans(credentials, older_than_seconds=0)
    assert (found.run_id, found.state) == (run_id, "CANCELED")


async def test_what_is_none_of_its_business_is_left_alone(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Too young, of another workspace, settled, only attached to, completed, or alive: nothing is touched."""
    bolt_simulator.add_schedule("daily", commands=[LONG], already_running="allow")
    run_ids = [bolt_simulator.start_run("daily") for _ in range(6)]
    await orphan(credentials, run_ids[0], Completed())
    await orphan(credentials, run_ids[1], Crashed(), owned=False)
    await orphan(credentials, run_ids[2], Crashed(), closed=True)
    elsewhere = credentials.model_copy(update={"api_endpoint": "https://elsewhere.example.com/graphql"})
    await orphan(elsewhere, run_ids[3], Crashed())
    alive = await orphan(credentials, run_ids[4], Running())
    async with get_client() as client:
        await client.update_flow_run_labels(alive.id, {LABEL: f"{time.time():.0f} 1 0 elsewhere"})
    assert await asweep_orphans(credentials, older_than_seconds=0) == []
    await orphan(credentials, run_ids[5], Crashed())
    assert await asweep_orphans(credentials, older_than_seconds=900) == []
    assert len(bolt_simulator.active_runs()) == 6


async def test_many_flow_runs_are_paged_through_by_two_sweepers_at_once(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More flow runs than a page holds, and two sweeps at the same time: all are settled, none makes trouble."""
    monkeypatch.setattr(module, "_PAGE", 7)
    bolt_simulator.add_schedule("daily", commands=[LONG], already_running="allow")
    run_ids = [bolt_simulator.start_run("daily") for _ in range(24)]
    await asyncio.gather(*(orphan(credentials, run_id, Crashed()) for run_id in run_ids))
    first, second = await asyncio.gather(
        asweep_orphans(credentials, older_than_seconds=0), asweep_orphans(credentials, older_than_seconds=0)
    )
    assert {found.run_id for found in [*first, *second]} == set(run_ids)
    assert bolt_simulator.active_runs() == []
    assert {found.done for found in [*first, *second]} <= {"cancelled", "had ended by itself as CANCELED"}
