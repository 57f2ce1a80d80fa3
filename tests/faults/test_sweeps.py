"""`sweep_orphans`: what it does with the flow runs that Prefect lists, and what it leaves alone.

tests/e2e/test_sweep_orphans.py shows which flow runs Prefect lists.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from faults.attempts import ownership_of
from faults.bench import SCHEDULE, credentials_for
from prefect.client.schemas.objects import State, StateType
from prefect.states import (
    Cancelled,
    Cancelling,
    Crashed,
    Failed,
    Pending,
    Running,
    Scheduled,
    Suspended,
)

from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest
from paradime_flows import sweep_orphans as module
from paradime_flows.ledger.record import Ownership, read_ownerships
from paradime_flows.prefect_api.labels import ALIVE_LABEL, EXECUTION_LABEL
from paradime_flows.supervision import sweep
from paradime_flows.supervision.heartbeat import beat
from paradime_flows.supervision.reconcile import clean_up_interrupted
from paradime_flows.time_limits import Timing, use_timing

if TYPE_CHECKING:
    from faults.prefect_in_memory import PrefectInMemory

    from paradime_blocks.testing import BoltSimulator
    from paradime_flows.sweep_orphans import SweptRun


def in_state(prefect: PrefectInMemory, flow_run_id: UUID, state: State[Any]) -> None:
    prefect.flow_runs[flow_run_id].state = state
    prefect.states[flow_run_id].append(state)


def orphan(
    simulator: BoltSimulator,
    prefect: PrefectInMemory,
    run_id: int | None,
    state: State[Any],
    *,
    intended_ago: float = 0,
    parent: UUID | None = None,
    **changes: Any,
) -> UUID:
    """Create a flow run with a Bolt run, in a state that Prefect reports for it."""
    flow_run_id = prefect.new_flow_run(parent=parent)
    # A state of its own: the states in the tables are as old as the test run.
    in_state(prefect, flow_run_id, State(type=state.type, name=state.name))
    ownership = Ownership(
        flow_run_id=flow_run_id,
        request=TriggerRequest(schedule_name=SCHEDULE),
        intent=TriggerIntent(latest_run_id=0, intended_at=time.time() - intended_ago),
        run_id=run_id,
        api_endpoint=simulator.api_endpoint,
        **changes,
    )
    prefect.flow_runs[flow_run_id].labels.update(ownership.to_labels())
    return flow_run_id


async def dies_here(prefect: PrefectInMemory, flow_run_id: UUID) -> None:
    """Let the last heartbeat, not a second old, come from a process of this machine that has ended."""
    await beat(prefect, flow_run_id)
    labels = prefect.flow_runs[flow_run_id].labels
    at, _, _, machine = str(labels[ALIVE_LABEL]).split(" ", 3)
    labels[ALIVE_LABEL] = f"{int(at) + 1} {2**22} 1 {machine}"


def lives_elsewhere(prefect: PrefectInMemory, flow_run_id: UUID, ago: float = 0) -> None:
    flow_run = prefect.flow_runs[flow_run_id]
    labels = {**flow_run.labels, ALIVE_LABEL: f"{time.time() - ago:.0f} 1 0 elsewhere"}
    # A reader may still have the previous version.
    prefect.flow_runs[flow_run_id] = flow_run.model_copy(update={"labels": labels})


async def swept(
    simulator: BoltSimulator, action: Any = "cancel", older_than_seconds: float = 0
) -> list[SweptRun]:
    return await module.sweep_orphans.fn(
        credentials_for(simulator), action=action, older_than_seconds=older_than_seconds
    )


def state_of(prefect: PrefectInMemory, flow_run_id: UUID) -> State[Any]:
    state = prefect.flow_runs[flow_run_id].state
    assert state is not None
    return state


@pytest.mark.parametrize(
    "state, end",
    [
        (Crashed(), "Crashed"),
        (Cancelled(), "Cancelled"),
        (Failed(), "Failed"),
        (Running(), "Crashed"),
        (Pending(), "Crashed"),
        # A person's cancel still counts, although no process noticed it.
        (Cancelling(), "Cancelled"),
    ],
    ids=lambda state: getattr(state, "name", ""),
)
async def test_a_run_of_an_ended_or_silent_flow_run_is_cancelled(simulator, prefect, state, end) -> None:
    """The Bolt run is CANCELED, the record closed, and the flow run's end written, once."""
    run_id = simulator.start_run(SCHEDULE)
    flow_run_id = orphan(simulator, prefect, run_id, state)
    await dies_here(prefect, flow_run_id)
    (found,) = await swept(simulator)
    assert (found.run_id, found.state, found.done) == (run_id, "CANCELED", "cancelled")
    assert simulator.run(run_id).state == "CANCELED"
    assert not ownership_of(prefect, flow_run_id).is_open
    assert state_of(prefect, flow_run_id).name == end
    assert await swept(simulator) == []


async def test_a_report_changes_nothing(simulator, prefect) -> None:
    """It reports the run each time, and leaves it."""
    run_id = simulator.start_run(SCHEDULE)
    orphan(simulator, prefect, run_id, Crashed())
    for _ in range(2):
        (found,) = await swept(simulator, "report")
        assert (found.run_id, found.state) == (run_id, "RUNNING")
    assert simulator.run(run_id).cancel_requests == 0


@pytest.mark.guarantee(
    "The trigger's answer is lost",
    "The answer is lost, and the only run that may be ours may also be one of Bolt's own scheduler",
    prefect="Failed",
    bolt="It keeps running",
    result="`BoltTriggerUnknown`. The sweeper leaves the run alone, too",
)
async def test_a_run_of_bolts_own_scheduler_does_not_count_as_ours(simulator, prefect) -> None:
    """The trigger never arrived, and Bolt's scheduler has started a run since: it is reported, and not touched."""
    run_id = simulator.start_run(SCHEDULE, actor="Scheduler")
    flow_run_id = orphan(simulator, prefect, None, Crashed(), intended_ago=100)
    for _ in range(2):
        (found,) = await swept(simulator)
        assert (found.run_id, found.done) == (None, "the Bolt run is unknown")
    assert simulator.run(run_id).cancel_requests == 0
    assert len(ownership_of(prefect, flow_run_id).notes) == 2, "each sweep reports the same again"


async def test_a_live_flow_run_is_left_alone_whatever_its_clock_says(simulator, prefect) -> None:
    """A machine whose clock is twenty minutes behind still sends heartbeats."""
    run_id = simulator.start_run(SCHEDULE)
    flow_run_id = orphan(simulator, prefect, run_id, Running())
    lives_elsewhere(prefect, flow_run_id, 1200)
    sweeping = asyncio.create_task(swept(simulator))
    await asyncio.sleep(0.5)
    lives_elsewhere(prefect, flow_run_id, 1190)
    assert await sweeping == []
    assert simulator.run(run_id).cancel_requests == 0


async def test_a_cancel_that_fails_leaves_the_flow_run_for_the_next_sweep(simulator, prefect) -> None:
    """Bolt refuses the cancel: the sweep reports that, and does not count the flow run as done."""
    simulator.update_schedule(SCHEDULE, cancel="refuse")
    flow_run_id = orphan(simulator, prefect, simulator.start_run(SCHEDULE), Running())
    await dies_here(prefect, flow_run_id)
    (found,) = await swept(simulator)
    assert found.done.startswith("not done")
    assert state_of(prefect, flow_run_id).is_running()
    assert ownership_of(prefect, flow_run_id).is_open


@pytest.mark.parametrize("state", [Crashed(), Running()], ids=["Crashed", "Running, but its process is dead"])
async def test_a_run_left_for_a_retry_is_swept_later(simulator, prefect, state) -> None:
    """With `on_crash="leave"`, it is only reported for a quarter of an hour, and then cancelled."""
    run_id = simulator.start_run(SCHEDULE)
    flow_run_id = orphan(simulator, prefect, run_id, state, on_crash="leave")
    await dies_here(prefect, flow_run_id)
    (found,) = await swept(simulator)
    assert (found.run_id, found.done) == (run_id, "left for a retry, as its policy says")
    assert simulator.run(run_id).cancel_requests == 0
    with use_timing(Timing(left_for_retry_seconds=0.0)):
        (found,) = await swept(simulator)
    assert (found.run_id, found.done) == (run_id, "cancelled")


async def test_a_flow_run_retried_during_the_sweep_is_not_swept(simulator, prefect, monkeypatch) -> None:
    """A retry resumes the flow run between the sweeper's check and its action: nothing is cancelled or written."""
    run_id = simulator.start_run(SCHEDULE)
    flow_run_id = orphan(simulator, prefect, run_id, Running())
    await dies_here(prefect, flow_run_id)
    clean_up = sweep.clean_up

    async def retried_meanwhile(*arguments: Any, **options: Any) -> Any:
        prefect.flow_runs[flow_run_id].labels[EXECUTION_LABEL] = "another body"
        return await clean_up(*arguments, **options)

    monkeypatch.setattr(sweep, "clean_up", retried_meanwhile)
    await swept(simulator)
    assert simulator.run(run_id).cancel_requests == 0
    assert state_of(prefect, flow_run_id).is_running()


async def test_a_subflow_whose_parent_no_worker_starts_is_swept(simulator, prefect) -> None:
    """Its parent has been late for an hour: no process will resume the run."""
    run_id = simulator.start_run(SCHEDULE)
    hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    parent = prefect.new_flow_run()
    in_state(prefect, parent, Scheduled(name="Late", scheduled_time=hour_ago, timestamp=hour_ago))
    child = orphan(simulator, prefect, run_id, Running(), parent=parent)
    await dies_here(prefect, child)
    (found,) = await swept(simulator)
    assert (found.run_id, found.done) == (run_id, "cancelled")


@pytest.mark.parametrize("left", ["a run that has ended", "nothing"])
@pytest.mark.parametrize(
    "kind, end",
    [(StateType.RUNNING, "Crashed"), (StateType.CANCELLING, "Cancelled")],
    ids=["", "cancelled"],
)
async def test_a_vanished_process_without_a_bolt_run_gets_its_end_written(
    simulator, prefect, left, kind, end
) -> None:
    """One of several subflows can end like this when another fails: Prefect does not learn of it."""
    run_id = simulator.start_run(SCHEDULE)
    flow_run_id = orphan(simulator, prefect, run_id, State(type=kind), closed=True, reported=True)
    labels = prefect.flow_runs[flow_run_id].labels
    if left == "nothing":
        labels.clear()
    begun = state_of(prefect, flow_run_id)
    await dies_here(prefect, flow_run_id)
    labels[EXECUTION_LABEL] = "the attempt before"
    if kind is StateType.RUNNING:
        # Its present attempt has not called us yet.
        assert await swept(simulator) == []
        assert state_of(prefect, flow_run_id).id == begun.id
    # It seems to be alive, and then it does not.
    labels[EXECUTION_LABEL] = str(begun.id)
    lives_elsewhere(prefect, flow_run_id)
    assert await swept(simulator) == []
    assert state_of(prefect, flow_run_id).id == begun.id
    await dies_here(prefect, flow_run_id)
    assert await swept(simulator, "report") == []
    assert state_of(prefect, flow_run_id).id == begun.id
    assert await swept(simulator) == []
    assert state_of(prefect, flow_run_id).name == end
    assert simulator.run(run_id).state == "RUNNING"


async def test_a_new_attempt_is_not_swept_for_the_old_ones_silence(simulator, prefect) -> None:
    """It is Running again, and has not reached the call that resumes its run."""
    flow_run_id = orphan(simulator, prefect, simulator.start_run(SCHEDULE), Running())
    await dies_here(prefect, flow_run_id)
    assert await swept(simulator, older_than_seconds=60) == []
    assert len(simulator.active_runs()) == 1


@pytest.mark.parametrize("state", [Suspended(), Scheduled(name="Resuming")], ids=lambda state: state.name)
async def test_a_subflow_of_a_suspended_flow_run_is_not_swept(simulator, prefect, state) -> None:
    """Its process has ended, and its run is left for the resumed one. A cancel of the parent ends that."""
    run_id = simulator.start_run(SCHEDULE)
    parent = prefect.new_flow_run()
    in_state(prefect, parent, state.model_copy(update={"timestamp": datetime.now(timezone.utc)}))
    child = orphan(simulator, prefect, run_id, Running(), parent=parent)
    await dies_here(prefect, child)
    assert await swept(simulator) == []
    assert simulator.run(run_id).state == "RUNNING"
    prefect.set_state(parent, StateType.CANCELLED)
    # Even a young run: after a person's cancel, nothing is to be resumed.
    (found,) = await swept(simulator, older_than_seconds=900)
    assert (found.run_id, found.done) == (run_id, "cancelled")


async def test_a_crashed_step_is_left_for_its_pipeline(simulator, prefect) -> None:
    """The pipeline's next attempt is alive and has not reached the step. When it has ended, no one resumes the step."""
    run_id = simulator.start_run(SCHEDULE)
    parent = prefect.new_flow_run()
    prefect.set_state(parent, StateType.RUNNING)
    lives_elsewhere(prefect, parent)
    orphan(simulator, prefect, run_id, Crashed(), parent=parent)
    assert await swept(simulator) == []
    prefect.set_state(parent, StateType.FAILED)
    (found,) = await swept(simulator)
    assert (found.run_id, found.done) == (run_id, "cancelled")


@pytest.mark.parametrize("is_swept", [False, True], ids=["interrupted", "swept"])
async def test_a_cancel_of_the_parent_overrides_the_interrupt_policy(simulator, prefect, is_swept) -> None:
    """A signal may reach the subflow before the cancel does; or that signal made the subflow crash."""
    run_id = simulator.start_run(SCHEDULE)
    parent = prefect.new_flow_run()
    prefect.set_state(parent, StateType.CANCELLING)
    state = Crashed() if is_swept else Running()
    child = orphan(simulator, prefect, run_id, state, parent=parent, on_interrupt="leave", on_crash="leave")
    if is_swept:
        (found,) = await swept(simulator)
        assert found.done == "cancelled"
    else:
        (ownership,) = read_ownerships(prefect.flow_runs[child])
        await clean_up_interrupted(ownership, credentials_for(simulator))
    assert simulator.run(run_id).state == "CANCELED"
