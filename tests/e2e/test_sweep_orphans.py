"""`sweep_orphans`: what it finds, what it does about it, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.states import (
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    Scheduled,
    Suspended,
)
from prefect.tasks import Task
from support.prefect_api import artifacts_of, latest_flow_run

from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_blocks.trigger import search
from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest
from paradime_flows import sweep_orphans as module
from paradime_flows.ledger.entry import TAG, Ownership, read_ownerships
from paradime_flows.ledger.store import LABEL as BODY
from paradime_flows.prefect_api import flow_runs
from paradime_flows.run_schedule import run_schedule
from paradime_flows.supervision.heartbeat import LABEL, _machine
from paradime_flows.supervision.reconcile import settle_interrupted
from paradime_flows.sweep_orphans import asweep_orphans

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun
    from prefect.states import State

    from paradime_blocks import ParadimeCredentials

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

LONG = SimulatedCommand("dbt run", duration_seconds=100_000)


async def orphan(
    credentials: ParadimeCredentials,
    run_id: int | None,
    state: State[Any],
    *,
    intended_ago: float = 0,
    parent_task_run_id: UUID | None = None,
    **changes: Any,
) -> FlowRun:
    """Make a flow run that answers for a Bolt run and is in a state that Prefect holds it for."""
    async with get_client() as client:
        flow_run = await client.create_flow_run(
            run_schedule, state=state, tags=[TAG], parent_task_run_id=parent_task_run_id
        )
        ownership = Ownership(
            flow_run_id=flow_run.id,
            request=TriggerRequest(schedule_name="daily"),
            intent=TriggerIntent(latest_run_id=0, intended_at=time.time() - intended_ago),
            run_id=run_id,
            api_endpoint=credentials.api_endpoint,
            **changes,
        )
        await client.update_flow_run_labels(flow_run.id, ownership.to_labels())
        return flow_run


async def parent_in(state: State[Any]) -> tuple[FlowRun, UUID]:
    """Make a flow run and its call of a subflow."""
    async with get_client() as client:
        parent = await client.create_flow_run(run_schedule, state=state)
        call = await client.create_task_run(
            Task(name="run-schedule", fn=run_schedule.fn), flow_run_id=parent.id, dynamic_key="0"
        )
    return parent, call.id


def dead_here() -> str:
    """Return a last sign of life of a process that was on this machine and is no longer; it is not a second old."""
    return f"{time.time() + 1:.0f} {2**22} 1 {_machine()}"


async def again(flow_run: FlowRun) -> FlowRun:
    """Read a flow run as it is now."""
    async with get_client() as client:
        return await client.read_flow_run(flow_run.id)


@pytest.mark.parametrize(
    "state", [Crashed(), Cancelled(), Failed(), Running(), Pending()], ids=lambda state: state.name
)
async def test_a_run_whose_flow_run_is_over_or_silent_is_cancelled_and_told(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, state: State[Any]
) -> None:
    """The Bolt run is CANCELED, the ownership closed, and a table tells of it."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(credentials, run_id, state)
    async with get_client() as client:
        await client.update_flow_run_labels(flow_run.id, {LABEL: dead_here()})
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
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between intent and id: the run that it started is found by the intent and cancelled."""
    monkeypatch.setattr(search, "_LONGEST_REQUEST_SECONDS", 2.0)
    monkeypatch.setattr(RetryPolicy, "total_seconds", 0.0)
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily", actor="API")
    await orphan(credentials, None, Crashed())
    (found,) = await asweep_orphans(credentials, older_than_seconds=0)
    assert (found.run_id, found.state) == (run_id, "CANCELED")


async def test_a_run_of_bolts_own_scheduler_is_not_taken_for_ours(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The trigger never arrived, and Bolt's clock has started the schedule since: told, and not touched."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily", actor="Scheduler")
    flow_run = await orphan(credentials, None, Crashed(), intended_ago=100)
    for _ in range(2):
        (found,) = await asweep_orphans(credentials, older_than_seconds=0)
        assert (found.run_id, found.done) == (None, "the Bolt run cannot be told")
    assert bolt_simulator.run(run_id).cancel_requests == 0
    (ownership,) = read_ownerships(await again(flow_run))
    assert len(ownership.notes) == 2, "each sweep tells the same again"


async def test_what_lives_is_left_alone_whatever_its_clock_says(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A machine whose clock is twenty minutes behind gives signs of life all the same."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(credentials, run_id, Running())

    async def beat(n: int) -> None:
        async with get_client() as client:
            await client.update_flow_run_labels(
                flow_run.id, {LABEL: f"{time.time() - 1200 + n:.0f} 1 0 there"}
            )

    await beat(0)
    sweeping = asyncio.create_task(asweep_orphans(credentials, older_than_seconds=0))
    await asyncio.sleep(5)
    await beat(10)
    assert await sweeping == []
    assert bolt_simulator.run(run_id).cancel_requests == 0


async def test_a_persons_cancel_stays_a_cancel(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Trap 7: cancelled while nobody was there to hear it. The Bolt run ends, the flow run as Cancelled."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(credentials, run_id, Cancelling())
    async with get_client() as client:
        await client.update_flow_run_labels(flow_run.id, {LABEL: dead_here()})
    (found,) = await asweep_orphans(credentials, older_than_seconds=0)
    assert (found.run_id, found.done) == (run_id, "cancelled")
    state = (await again(flow_run)).state
    assert state is not None
    assert state.name == "Cancelled"


async def test_a_cancel_that_fails_leaves_the_flow_run_for_the_next_sweep(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Bolt ignores the cancel: the table says so, and nothing is called settled."""
    bolt_simulator.add_schedule("daily", commands=[LONG], cancel="refuse")
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(credentials, run_id, Running())
    async with get_client() as client:
        await client.update_flow_run_labels(flow_run.id, {LABEL: dead_here()})
    (found,) = await asweep_orphans(credentials, older_than_seconds=0)
    assert found.done.startswith("not done")
    left = await again(flow_run)
    assert left.state is not None
    assert left.state.is_running()
    assert any(ownership.is_open for ownership in read_ownerships(left))


@pytest.mark.parametrize("state", [Crashed(), Running()], ids=["Crashed", "Running, and known to be dead"])
async def test_a_run_that_is_left_for_a_retry_is_left_for_a_while(
    bolt_simulator: BoltSimulator,
    credentials: ParadimeCredentials,
    monkeypatch: pytest.MonkeyPatch,
    state: State[Any],
) -> None:
    """`on_crash="leave"`: for a quarter of an hour it is told of, and then cancelled."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(credentials, run_id, state, on_crash="leave")
    async with get_client() as client:
        await client.update_flow_run_labels(flow_run.id, {LABEL: dead_here()})
    (found,) = await asweep_orphans(credentials, older_than_seconds=0)
    assert (found.run_id, found.done) == (run_id, "left for a retry, as its policy says")
    assert bolt_simulator.run(run_id).cancel_requests == 0
    monkeypatch.setattr(module, "LEFT_SECONDS", 0.0)
    (found,) = await asweep_orphans(credentials, older_than_seconds=0)
    assert (found.run_id, found.done) == (run_id, "cancelled")


async def test_one_flow_run_that_makes_trouble_does_not_end_the_sweep(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted between the list and the look, or with labels that trip us: the others are swept, the table written."""
    bolt_simulator.add_schedule("daily", commands=[LONG], already_running="allow")
    run_ids = [bolt_simulator.start_run("daily") for _ in range(3)]
    deleted, bad, good = [await orphan(credentials, run_id, Crashed()) for run_id in run_ids]
    settle = module.settle

    async def trouble(ownership: Ownership, *arguments: Any, **options: Any) -> Any:
        if ownership.flow_run_id == bad.id:
            raise RuntimeError("trouble")
        return await settle(ownership, *arguments, **options)

    listed = module.candidates

    async def then_one_is_deleted(client: Any, lookback: Any) -> Any:
        found = await listed(client, lookback)
        await client.delete_flow_run(deleted.id)
        return found

    monkeypatch.setattr(module, "settle", trouble)
    monkeypatch.setattr(module, "candidates", then_one_is_deleted)
    found = {
        entry.flow_run_id: entry.done for entry in await asweep_orphans(credentials, older_than_seconds=0)
    }
    assert found == {bad.id: "not done: trouble", good.id: "cancelled"}


async def test_a_flow_run_that_is_begun_again_is_not_swept(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry takes the flow run up between the sweeper's look and its deed: nothing is cancelled or written."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(credentials, run_id, Running())
    async with get_client() as client:
        await client.update_flow_run_labels(flow_run.id, {LABEL: dead_here()})
    settle = module.settle

    async def retried_meanwhile(*arguments: Any, **options: Any) -> Any:
        async with get_client() as client:
            await client.update_flow_run_labels(flow_run.id, {BODY: "another body"})
        return await settle(*arguments, **options)

    monkeypatch.setattr(module, "settle", retried_meanwhile)
    await asweep_orphans(credentials, older_than_seconds=0)
    assert bolt_simulator.run(run_id).cancel_requests == 0
    state = (await again(flow_run)).state
    assert state is not None
    assert state.is_running()


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


@pytest.mark.full
async def test_many_flow_runs_are_paged_through_by_two_sweepers_at_once(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More flow runs than a page holds, and two sweeps at the same time: all are settled, none makes trouble."""
    monkeypatch.setattr(flow_runs, "_PAGE", 7)
    bolt_simulator.add_schedule("daily", commands=[LONG], already_running="allow")
    run_ids = [bolt_simulator.start_run("daily") for _ in range(24)]
    await asyncio.gather(*(orphan(credentials, run_id, Crashed()) for run_id in run_ids))
    first, second = await asyncio.gather(
        asweep_orphans(credentials, older_than_seconds=0), asweep_orphans(credentials, older_than_seconds=0)
    )
    assert {found.run_id for found in [*first, *second]} == set(run_ids)
    assert bolt_simulator.active_runs() == []
    assert {found.done for found in [*first, *second]} <= {"cancelled", "had ended by itself as CANCELED"}


async def test_a_subflow_whose_parent_nobody_fetches_is_swept(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Its parent has been late for an hour: whoever was to take the run up has not come."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    late = Scheduled(name="Late", scheduled_time=hour_ago, timestamp=hour_ago)
    _, call_id = await parent_in(late)
    child = await orphan(credentials, run_id, Running(), parent_task_run_id=call_id)
    async with get_client() as client:
        await client.update_flow_run_labels(child.id, {LABEL: dead_here()})
    (found,) = await asweep_orphans(credentials, older_than_seconds=0)
    assert (found.run_id, found.done) == (run_id, "cancelled")


@pytest.mark.parametrize("left", ["a run that has ended", "nothing"])
@pytest.mark.parametrize(
    "state, end", [(Running(), "Crashed"), (Cancelling(), "Cancelled")], ids=["", "cancelled"]
)
async def test_the_end_of_a_vanished_process_is_written_where_nothing_is_left_in_bolt(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, left: str, state: State[Any], end: str
) -> None:
    """As that of one of several subflows at once, when another fails: Prefect is not told of it."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    flow_run = await orphan(credentials, run_id, state, closed=True, reported=True)
    async with get_client() as client:
        if left == "nothing":
            flow_run = await client.create_flow_run(run_schedule, state=state, tags=[TAG])
        running = flow_run.state
        assert running is not None
        labels = {LABEL: dead_here(), BODY: "the body before"}
        await client.update_flow_run_labels(flow_run.id, labels)
        if running.is_running():
            # Its present body has not come to us yet.
            assert await asweep_orphans(credentials, older_than_seconds=0) == []
            assert (await again(flow_run)).state.type is state.type
        # It lives, as far as anybody can tell; and then it does not.
        labels = {LABEL: f"{time.time():.0f} 1 0 elsewhere", BODY: str(running.id)}
        await client.update_flow_run_labels(flow_run.id, labels)
        assert await asweep_orphans(credentials, older_than_seconds=0) == []
        assert (await again(flow_run)).state.type is state.type
        await client.update_flow_run_labels(flow_run.id, {LABEL: dead_here()})
    assert await asweep_orphans(credentials, action="report", older_than_seconds=0) == []
    assert (await again(flow_run)).state.type is state.type
    assert await asweep_orphans(credentials, older_than_seconds=0) == []
    assert (await again(flow_run)).state.name == end
    assert bolt_simulator.run(run_id).state == "RUNNING"


async def test_a_body_that_has_begun_just_now_is_not_swept_for_the_silence_of_the_one_before(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """It is Running again, and has not come to what it answers for."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    flow_run = await orphan(credentials, bolt_simulator.start_run("daily"), Running())
    async with get_client() as client:
        await client.update_flow_run_labels(flow_run.id, {LABEL: dead_here()})
    assert await asweep_orphans(credentials, older_than_seconds=60) == []
    assert len(bolt_simulator.active_runs()) == 1


@pytest.mark.parametrize("state", [Suspended(), Scheduled(name="Resuming")], ids=lambda state: state.name)
async def test_a_subflow_of_a_suspended_flow_run_awaits_its_resumption(
    bolt_simulator: BoltSimulator,
    credentials: ParadimeCredentials,
    monkeypatch: pytest.MonkeyPatch,
    state: State[Any],
) -> None:
    """Its process has ended, and its run goes on for whoever takes it up; when the parent is cancelled, for nobody."""
    monkeypatch.setattr(module, "_TWO_BEATS_SECONDS", 0.1)
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    parent, call_id = await parent_in(state)
    child = await orphan(credentials, run_id, Running(), parent_task_run_id=call_id)
    async with get_client() as client:
        await client.update_flow_run_labels(child.id, {LABEL: dead_here()})
    assert await asweep_orphans(credentials, older_than_seconds=0) == []
    assert bolt_simulator.run(run_id).state == "RUNNING"
    async with get_client() as client:
        await client.set_flow_run_state(parent.id, Cancelled(), force=True)
    # However young: a person's cancel leaves nothing to come back for.
    (found,) = await asweep_orphans(credentials, older_than_seconds=900)
    assert (found.run_id, found.done) == (run_id, "cancelled")


async def test_a_crashed_step_is_its_pipelines_to_take_up(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The pipeline's next attempt lives, and has not come to the step; when that has ended, nobody takes it up."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    parent, call_id = await parent_in(Running())
    async with get_client() as client:
        await client.update_flow_run_labels(parent.id, {LABEL: f"{time.time():.0f} 1 0 elsewhere"})
    await orphan(credentials, run_id, Crashed(), parent_task_run_id=call_id)
    assert await asweep_orphans(credentials, older_than_seconds=0) == []
    async with get_client() as client:
        await client.set_flow_run_state(parent.id, Failed(), force=True)
    (found,) = await asweep_orphans(credentials, older_than_seconds=0)
    assert (found.run_id, found.done) == (run_id, "cancelled")


@pytest.mark.parametrize("swept", [False, True], ids=["interrupted", "swept"])
async def test_a_cancel_of_the_parent_is_a_cancel_whatever_the_policy_for_interrupts(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, swept: bool
) -> None:
    """A signal can come of it that the subflow hears of first; or the subflow has crashed of that signal."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    _, call_id = await parent_in(Cancelling())
    state: State[Any] = Crashed() if swept else Running()
    child = await orphan(
        credentials, run_id, state, parent_task_run_id=call_id, on_interrupt="leave", on_crash="leave"
    )
    if swept:
        (found,) = await asweep_orphans(credentials, older_than_seconds=0)
        assert found.done == "cancelled"
    else:
        (ownership,) = read_ownerships(await again(child))
        await settle_interrupted(ownership, credentials)
    assert bolt_simulator.run(run_id).state == "CANCELED"
