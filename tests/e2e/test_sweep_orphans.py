"""`sweep_orphans` on a real Prefect server: which flow runs it finds there, and what it leaves behind.

tests/faults/test_sweeps.py shows what it does with each kind.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from prefect.client.orchestration import get_client
from prefect.states import Completed, Crashed, Failed, Running
from prefect.tasks import Task
from support.prefect_api import artifacts_of, latest_flow_run, logs_of

from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest
from paradime_flows import sweep_orphans as module
from paradime_flows.ledger.phase import Phase, Relation
from paradime_flows.ledger.record import Record, read_records
from paradime_flows.ledger.store import Lease, execution_of
from paradime_flows.prefect_api.labels import FLOW_RUN_TAG
from paradime_flows.run_schedule import run_schedule
from paradime_flows.supervision import sweep
from paradime_flows.sweep_orphans import asweep_orphans
from paradime_flows.time_limits import Timing, times, use_timing

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun
    from prefect.states import State

    from paradime_blocks import ParadimeCredentials

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

LONG = SimulatedCommand("dbt run", duration_seconds=100_000)
Orphan = Callable[..., Awaitable["FlowRun"]]


@pytest.fixture
def orphan(credentials: ParadimeCredentials, swept_tag: str) -> Orphan:
    """Creates a flow run with a Bolt run, in a state that Prefect reports for it."""

    async def make(
        run_id: int | None,
        state: State[Any],
        *,
        of: ParadimeCredentials = credentials,
        parent_task_run_id: UUID | None = None,
        **changes: Any,
    ) -> FlowRun:
        async with get_client() as client:
            flow_run = await client.create_flow_run(
                run_schedule,
                state=state,
                tags=[FLOW_RUN_TAG, swept_tag],
                parent_task_run_id=parent_task_run_id,
            )
            record = Record(
                flow_run_id=flow_run.id,
                request=TriggerRequest(schedule_name="daily"),
                intent=TriggerIntent(latest_run_id=0, intended_at=time.time()),
                run_id=run_id,
                api_endpoint=of.api_endpoint,
                **{"phase": Phase.SENDING if run_id is None else Phase.RUNNING, **changes},
            )
            await client.update_flow_run_labels(flow_run.id, record.to_labels())
            return flow_run

    return make


async def gives_sign_of_life(flow_run: FlowRun, ago: float = 0) -> None:
    async with get_client() as client:
        lease = max(execution_of(await client.read_flow_run(flow_run.id)), Lease(1, ""))
        await client.update_flow_run_labels(flow_run.id, {lease.label: f"{time.time() - ago:.0f}"})


@pytest.fixture
def short_beats() -> Iterator[None]:
    """Heartbeats come so often that a silent flow run need not be watched for long."""
    with use_timing(Timing(beat_seconds=1.0)):
        yield


async def await_until_logged(flow_run_id: UUID, line: str) -> None:
    """Prefect sends log lines a little later."""
    with anyio.fail_after(30):
        while line not in await logs_of(flow_run_id):  # noqa: ASYNC110 - Prefect's own thread sends them
            await asyncio.sleep(0.3)


async def again(flow_run: FlowRun) -> FlowRun:
    """Read a flow run's present version."""
    async with get_client() as client:
        return await client.read_flow_run(flow_run.id)


@pytest.mark.usefixtures("short_beats")
@pytest.mark.parametrize("state", [Crashed(), Running()], ids=lambda state: state.name)
async def test_runs_of_ended_or_silent_flow_runs_are_cancelled_and_reported(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, orphan: Orphan, state: State[Any]
) -> None:
    """The Bolt run is CANCELED, the record closed, and a table reports it. The flow run's own page says it, too."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(run_id, state)
    await gives_sign_of_life(flow_run, ago=times().stale_seconds + 2)
    (found,) = await asweep_orphans(credentials, older_than_seconds=0)
    assert (found.run_id, found.state, found.done) == (run_id, "CANCELED", "cancelled")
    assert bolt_simulator.run(run_id).state == "CANCELED"
    swept = await again(flow_run)
    assert not any(record.is_open for record in read_records(swept))
    assert swept.state is not None
    assert swept.state.is_final()
    if state.is_running():
        assert f"/{run_id}): cancelled." in str(swept.state.message)
    await await_until_logged(flow_run.id, f"Bolt run {run_id} was cancelled.")
    await await_until_logged(
        (await latest_flow_run("sweep-orphans")).id,
        f"Flow run {flow_run.name!r} of daily, Bolt run {run_id}: cancelled",
    )
    artifacts = await artifacts_of((await latest_flow_run("sweep-orphans")).id)
    (row,) = json.loads(str(artifacts["paradime-orphans"].data))
    assert row["Bolt run"] == run_id
    assert await asweep_orphans(credentials, older_than_seconds=0) == []


async def test_attaching_waits_for_the_end_and_archives_to_the_flow_run(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, orphan: Orphan
) -> None:
    """The healthy run ends, and its summary is on the flow run that had lost it."""
    bolt_simulator.add_schedule("daily", commands=[SimulatedCommand("dbt run", duration_seconds=20)])
    bolt_simulator.clock.speed = 60
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(run_id, Crashed())
    (found,) = await asweep_orphans(credentials, action="attach", older_than_seconds=0)
    assert found.state == "SUCCESS"
    assert "paradime-daily" in await artifacts_of(flow_run.id)
    assert bolt_simulator.run(run_id).cancel_requests == 0


async def test_one_broken_flow_run_does_not_end_the_sweep(
    bolt_simulator: BoltSimulator,
    credentials: ParadimeCredentials,
    orphan: Orphan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was deleted after the listing, or its labels are broken: the others are swept, and the table is written."""
    bolt_simulator.add_schedule("daily", commands=[LONG], already_running="allow")
    run_ids = [bolt_simulator.start_run("daily") for _ in range(3)]
    deleted, bad, good = [await orphan(run_id, Crashed()) for run_id in run_ids]
    original = sweep.reconcile_run

    async def trouble(record: Record, *arguments: Any, **options: Any) -> Any:
        if record.flow_run_id == bad.id:
            raise RuntimeError("trouble")
        return await original(record, *arguments, **options)

    listed = module.candidates

    async def then_one_is_deleted(client: Any, *arguments: Any) -> Any:
        found = await listed(client, *arguments)
        await client.delete_flow_run(deleted.id)
        return found

    monkeypatch.setattr(sweep, "reconcile_run", trouble)
    monkeypatch.setattr(module, "candidates", then_one_is_deleted)
    found = {
        entry.flow_run_id: entry.done for entry in await asweep_orphans(credentials, older_than_seconds=0)
    }
    assert found == {bad.id: "not done: trouble", good.id: "cancelled"}


async def test_flow_runs_that_need_no_cleanup_are_left_alone(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, orphan: Orphan
) -> None:
    """Too young, of another workspace, cleaned up, only attached to, completed, or alive: nothing is touched."""
    bolt_simulator.add_schedule("daily", commands=[LONG], already_running="allow")
    run_ids = [bolt_simulator.start_run("daily") for _ in range(6)]
    await orphan(run_ids[0], Completed())
    await orphan(run_ids[1], Crashed(), relation=Relation.MAYBE_OURS)
    await orphan(run_ids[2], Crashed(), phase=Phase.RELEASED)
    elsewhere = credentials.model_copy(update={"api_endpoint": "https://elsewhere.example.com/graphql"})
    await orphan(run_ids[3], Crashed(), of=elsewhere)
    alive = await orphan(run_ids[4], Running())
    async with get_client() as client:
        await client.update_flow_run_labels(alive.id, {Lease(1, "an execution").label: f"{time.time():.0f}"})
    assert await asweep_orphans(credentials, older_than_seconds=0) == []
    await orphan(run_ids[5], Crashed())
    assert await asweep_orphans(credentials, older_than_seconds=900) == []
    assert len(bolt_simulator.active_runs()) == 6


async def test_two_sweepers_at_once_do_not_disturb_each_other(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, orphan: Orphan
) -> None:
    """All flow runs are cleaned up, and neither sweep reports trouble."""
    bolt_simulator.add_schedule("daily", commands=[LONG], already_running="allow")
    run_ids = [bolt_simulator.start_run("daily") for _ in range(10)]
    await asyncio.gather(*(orphan(run_id, Crashed()) for run_id in run_ids))
    first, second = await asyncio.gather(
        asweep_orphans(credentials, older_than_seconds=0), asweep_orphans(credentials, older_than_seconds=0)
    )
    assert {found.run_id for found in [*first, *second]} == set(run_ids)
    assert bolt_simulator.active_runs() == []
    assert {found.done for found in [*first, *second]} <= {"cancelled", "had already ended as CANCELED"}


async def test_a_crashed_step_is_left_for_its_pipeline(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, orphan: Orphan
) -> None:
    """The pipeline's next attempt is alive and has not reached the step. When it has ended, no one resumes the step."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    async with get_client() as client:
        parent = await client.create_flow_run(run_schedule, state=Running())
        call = await client.create_task_run(
            Task(name="run-schedule", fn=run_schedule.fn), flow_run_id=parent.id, dynamic_key="0"
        )
        await client.update_flow_run_labels(parent.id, {Lease(1, "an execution").label: f"{time.time():.0f}"})
    await orphan(run_id, Crashed(), parent_task_run_id=call.id)
    assert await asweep_orphans(credentials, older_than_seconds=0) == []
    async with get_client() as client:
        await client.set_flow_run_state(parent.id, Failed(), force=True)
    (found,) = await asweep_orphans(credentials, older_than_seconds=0)
    assert (found.run_id, found.done) == (run_id, "cancelled")


@pytest.mark.usefixtures("short_beats")
async def test_a_vanished_process_without_a_bolt_run_gets_its_end_written(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, orphan: Orphan
) -> None:
    """One of several subflows can end like this when another fails: Prefect does not learn of it."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(run_id, Running(), phase=Phase.REPORTED)
    assert flow_run.state is not None
    async with get_client() as client:
        await client.update_flow_run_labels(flow_run.id, {Lease(1, str(flow_run.state.id)).label: ""})
    await gives_sign_of_life(flow_run, ago=times().stale_seconds + 2)
    assert await asweep_orphans(credentials, older_than_seconds=0) == []
    state = (await again(flow_run)).state
    assert state is not None
    assert state.is_crashed()
    assert bolt_simulator.run(run_id).state == "RUNNING"
