"""`sweep_orphans`: what it does with the flow runs that Prefect lists, and what it leaves alone.

tests/e2e/test_sweep_orphans.py shows which flow runs Prefect lists.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID

import pytest
from faults.attempts import begun, record_of, running
from faults.bench import SCHEDULE, credentials_for
from faults.prefect_in_memory import Process, process
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

from paradime_blocks import BoltAttempt, BoltRunState
from paradime_blocks.testing import faults
from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest
from paradime_flows import sweep_orphans as module
from paradime_flows.ledger.phase import Phase
from paradime_flows.ledger.record import Record, read_records
from paradime_flows.ledger.store import Lease, execution_of
from paradime_flows.prefect_api import schedule_tag
from paradime_flows.prefect_api.labels import LEASE_LABEL_PREFIX
from paradime_flows.supervision import sweep
from paradime_flows.supervision.reconcile import clean_up_interrupted
from paradime_flows.time_limits import Timing, times, use_timing

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
    record = Record(
        flow_run_id=flow_run_id,
        run_id=run_id,
        api_endpoint=simulator.api_endpoint,
        **{"intent": TriggerIntent(latest_run_id=0, intended_at=time.time() - intended_ago)}
        | {"request": TriggerRequest(schedule_name=SCHEDULE)}
        | {"phase": Phase.SENDING if run_id is None else Phase.RUNNING, **changes},
    )
    prefect.flow_runs[flow_run_id].labels.update(record.to_labels())
    return flow_run_id


def gives_sign_of_life(prefect: PrefectInMemory, flow_run_id: UUID, ago: float = 0) -> None:
    """Write the sign of life of the execution, or of one whose state is not in the table."""
    flow_run = prefect.flow_runs[flow_run_id]
    lease = max(execution_of(flow_run), Lease(1, ""))
    labels = {**flow_run.labels, lease.label: f"{time.time() - ago:.0f}"}
    # A reader may still have the previous version.
    prefect.flow_runs[flow_run_id] = flow_run.model_copy(update={"labels": labels})


def dies(prefect: PrefectInMemory, flow_run_id: UUID) -> None:
    """Let the last heartbeat be just too old."""
    gives_sign_of_life(prefect, flow_run_id, times().stale_seconds + 2)


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
    dies(prefect, flow_run_id)
    (found,) = await swept(simulator)
    assert (found.run_id, found.state, found.done) == (run_id, "CANCELED", "cancelled")
    assert simulator.run(run_id).state == "CANCELED"
    assert not record_of(prefect, flow_run_id).is_open
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
async def test_a_run_that_another_flow_run_has_triggered_is_not_taken_for_the_lost_one(
    simulator, prefect
) -> None:
    """A flow run was lost before it had sent its trigger; another one for the same schedule has a run since then."""
    lost = orphan(simulator, prefect, None, Crashed())
    dies(prefect, lost)
    run_id = simulator.start_run(SCHEDULE, actor="API")
    other = orphan(simulator, prefect, run_id, Running(), intended_ago=-1)
    gives_sign_of_life(prefect, other)
    prefect.flow_runs[other].tags.append(schedule_tag(SCHEDULE))
    found = {one.flow_run_id: one for one in await swept(simulator)}
    assert (found[lost].run_id, found[lost].done) == (None, "no Bolt run was started")
    assert simulator.run(run_id).is_active


async def test_a_run_is_found_although_the_flow_run_that_resumes_it_knows_it(simulator, prefect) -> None:
    """Both records have the same trigger: such a flow run is no other one."""
    run_id = simulator.start_run(SCHEDULE, actor="API")
    intent = TriggerIntent(latest_run_id=0, intended_at=time.time())
    lost = orphan(simulator, prefect, None, Crashed(), intent=intent)
    dies(prefect, lost)
    resumed = orphan(simulator, prefect, run_id, Running(), intent=intent)
    gives_sign_of_life(prefect, resumed)
    prefect.flow_runs[resumed].tags.append(schedule_tag(SCHEDULE))
    found = {one.flow_run_id: one for one in await swept(simulator, "report")}
    assert found[lost].run_id == run_id


async def test_a_run_of_bolts_own_scheduler_does_not_count_as_ours(simulator, prefect) -> None:
    """The trigger never arrived, and Bolt's scheduler has started a run since: it is reported, and not touched."""
    run_id = simulator.start_run(SCHEDULE, actor="Scheduler")
    flow_run_id = orphan(simulator, prefect, None, Crashed(), intended_ago=100)
    for _ in range(2):
        (found,) = await swept(simulator)
        assert (found.run_id, found.done) == (None, "the Bolt run is unknown")
    assert simulator.run(run_id).cancel_requests == 0
    assert len(record_of(prefect, flow_run_id).notes) == 2, "each sweep reports the same again"


async def test_a_live_flow_run_is_left_alone_whatever_its_clock_says(simulator, prefect) -> None:
    """A machine whose clock is twenty minutes behind still sends heartbeats."""
    run_id = simulator.start_run(SCHEDULE)
    flow_run_id = orphan(simulator, prefect, run_id, Running())
    gives_sign_of_life(prefect, flow_run_id, 1200)
    sweeping = asyncio.create_task(swept(simulator))
    await asyncio.sleep(0.5)
    gives_sign_of_life(prefect, flow_run_id, 1190)
    assert await sweeping == []
    assert simulator.run(run_id).cancel_requests == 0


async def test_a_cancel_that_fails_leaves_the_flow_run_for_the_next_sweep(simulator, prefect) -> None:
    """Bolt refuses the cancel: the sweep reports that, and does not count the flow run as done."""
    simulator.update_schedule(SCHEDULE, cancel="refuse")
    flow_run_id = orphan(simulator, prefect, simulator.start_run(SCHEDULE), Running())
    dies(prefect, flow_run_id)
    (found,) = await swept(simulator)
    assert found.done.startswith("not done")
    assert state_of(prefect, flow_run_id).is_running()
    assert record_of(prefect, flow_run_id).is_open


async def test_an_error_of_bolt_is_logged_once(simulator, prefect, caplog) -> None:
    simulator.update_schedule(SCHEDULE, cancel="refuse")
    orphan(simulator, prefect, simulator.start_run(SCHEDULE), Crashed())
    (found,) = await swept(simulator)
    message = found.done.removeprefix("not done: ")
    logged = [each.getMessage() for each in caplog.records if each.name == "prefect.paradime"]
    assert sum(message in line for line in logged) == 1


async def test_an_unexpected_error_is_reported_once(simulator, prefect, monkeypatch) -> None:
    monkeypatch.setattr(sweep, "reconcile_run", mock.AsyncMock(side_effect=RuntimeError("trouble")))
    run_id = simulator.start_run(SCHEDULE)
    orphan(simulator, prefect, run_id, Crashed())
    (found,) = await swept(simulator)
    assert (found.run_id, found.done) == (run_id, "not done: trouble")


async def test_each_run_is_logged_right_after_it_was_handled(simulator, prefect, caplog) -> None:
    """The sweep still waits for another Bolt run."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    ended, runs_on = simulator.start_run(SCHEDULE), simulator.start_run(SCHEDULE)
    for run_id in (ended, runs_on):
        orphan(simulator, prefect, run_id, Crashed())
    simulator.finish(ended)
    sweeping = asyncio.create_task(swept(simulator, "attach"))
    await asyncio.sleep(100)
    assert f"Bolt run {ended}: waited for; it ended as SUCCESS" in caplog.text
    assert not sweeping.done()
    sweeping.cancel()


async def test_a_sweep_that_attaches_stores_the_run_that_it_has_found(simulator, prefect) -> None:
    """The process was lost before the answer to its trigger was stored. If the sweeper dies, the next one knows."""
    flow_run_id = orphan(simulator, prefect, None, Running())
    run_id = simulator.start_run(SCHEDULE, actor="API")
    sweeping = asyncio.create_task(swept(simulator, "attach"))
    await asyncio.sleep(200)
    assert record_of(prefect, flow_run_id).run_id == run_id
    simulator.finish(run_id)
    (found,) = await sweeping
    assert (found.run_id, found.done) == (run_id, "waited for; it ended as SUCCESS")


async def test_the_end_says_that_a_retry_was_not_started(simulator, prefect, monkeypatch) -> None:
    """The process was lost before it had sent the retry of a failed Bolt run."""
    end = mock.AsyncMock()
    monkeypatch.setattr(sweep, "set_final_state", end)
    failed = simulator.start_run(SCHEDULE)
    simulator.finish(failed, state="FAILED")
    flow_run_id = orphan(
        simulator,
        prefect,
        None,
        Running(),
        request=TriggerRequest(schedule_name=SCHEDULE, retry_of=failed),
        intent=TriggerIntent(latest_run_id=failed, intended_at=time.time()),
        failed_run=failed,
        attempts=[BoltAttempt(run_id=failed, state=BoltRunState.FAILED)],
    )
    dies(prefect, flow_run_id)
    (found,) = await swept(simulator)
    assert (found.run_id, found.done) == (failed, "its retry was not started")
    assert f"/{failed}): its retry was not started." in end.await_args.args[2]


@pytest.mark.parametrize("state", [Crashed(), Running()], ids=["Crashed", "Running, but silent"])
async def test_a_run_left_for_a_retry_is_swept_later(simulator, prefect, state) -> None:
    """With `on_crash="leave"`, it is only reported for a quarter of an hour, and then cancelled."""
    run_id = simulator.start_run(SCHEDULE)
    flow_run_id = orphan(simulator, prefect, run_id, state, on_crash="leave")
    dies(prefect, flow_run_id)
    (found,) = await swept(simulator)
    assert (found.run_id, found.done) == (run_id, "left for a retry, as the policy says")
    assert simulator.run(run_id).cancel_requests == 0
    with use_timing(Timing(left_for_retry_seconds=0.0)):
        (found,) = await swept(simulator)
    assert (found.run_id, found.done) == (run_id, "cancelled")


async def test_a_flow_run_retried_during_the_sweep_is_not_swept(simulator, prefect, monkeypatch) -> None:
    """A retry resumes the flow run between the sweeper's check and its action: nothing is cancelled or written."""
    run_id = simulator.start_run(SCHEDULE)
    flow_run_id = orphan(simulator, prefect, run_id, Running())
    dies(prefect, flow_run_id)
    original = sweep.reconcile_run

    async def retried_meanwhile(*arguments: Any, **options: Any) -> Any:
        prefect.flow_runs[flow_run_id].labels[Lease(9, "another body").label] = ""
        return await original(*arguments, **options)

    monkeypatch.setattr(sweep, "reconcile_run", retried_meanwhile)
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
    dies(prefect, child)
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
    flow_run_id = orphan(simulator, prefect, run_id, State(type=kind), phase=Phase.REPORTED)
    if left == "nothing":
        prefect.flow_runs[flow_run_id].labels.clear()
    begun = state_of(prefect, flow_run_id)
    dies(prefect, flow_run_id)
    if kind is StateType.RUNNING:
        # Its present attempt has not called us yet.
        assert await swept(simulator) == []
        assert state_of(prefect, flow_run_id).id == begun.id
    # It seems to be alive, and then it does not.
    prefect.flow_runs[flow_run_id].labels[Lease(2, str(begun.id)).label] = ""
    gives_sign_of_life(prefect, flow_run_id)
    assert await swept(simulator) == []
    assert state_of(prefect, flow_run_id).id == begun.id
    dies(prefect, flow_run_id)
    assert await swept(simulator, "report") == []
    assert state_of(prefect, flow_run_id).id == begun.id
    assert await swept(simulator) == []
    assert state_of(prefect, flow_run_id).name == end
    assert simulator.run(run_id).state == "RUNNING"


async def test_a_new_attempt_is_not_swept_for_the_old_ones_silence(simulator, prefect) -> None:
    """It is Running again, and has not reached the call that resumes its run."""
    flow_run_id = orphan(simulator, prefect, simulator.start_run(SCHEDULE), Running())
    dies(prefect, flow_run_id)
    assert await swept(simulator, older_than_seconds=60) == []
    assert len(simulator.active_runs()) == 1


@pytest.mark.parametrize("state", [Suspended(), Scheduled(name="Resuming")], ids=lambda state: state.name)
async def test_a_subflow_of_a_suspended_flow_run_is_not_swept(simulator, prefect, state) -> None:
    """Its process has ended, and its run is left for the resumed one. A cancel of the parent ends that."""
    run_id = simulator.start_run(SCHEDULE)
    parent = prefect.new_flow_run()
    in_state(prefect, parent, state.model_copy(update={"timestamp": datetime.now(timezone.utc)}))
    child = orphan(simulator, prefect, run_id, Running(), parent=parent)
    dies(prefect, child)
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
    gives_sign_of_life(prefect, parent)
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
        (record,) = read_records(prefect.flow_runs[child])
        await clean_up_interrupted(record, credentials_for(simulator), asyncio.CancelledError())
    assert simulator.run(run_id).state == "CANCELED"


async def test_the_sweeper_gives_signs_of_life_at_equal_intervals(simulator, prefect, monkeypatch) -> None:
    """It waits for a Bolt run in place of a lost flow run, however often or seldom it asks Bolt meanwhile."""
    flow_run_id = running(prefect)
    await (await begun(simulator, flow_run_id, on_crash="leave")).obtain()
    process.set(Process())
    prefect.set_state(flow_run_id, StateType.CRASHED)
    await asyncio.sleep(2000)
    loop, beats = asyncio.get_running_loop(), []
    write = prefect.update_flow_run_labels

    async def note_beats(flow_run_id: UUID, labels: dict[str, Any]) -> None:
        if list(labels) == [label for label in labels if label.startswith(LEASE_LABEL_PREFIX)]:
            beats.append(loop.time())
        await write(flow_run_id, labels)

    monkeypatch.setattr(prefect, "update_flow_run_labels", note_beats)
    simulator.inject(faults.Status(429, retry_after=90, times=5))
    one = sweep.Sweep(prefect, credentials_for(simulator), "attach", 0)
    waits = asyncio.create_task(one.sweep(prefect.flow_runs[flow_run_id]))
    await asyncio.sleep(600)
    waits.cancel()
    gaps = [after - before for before, after in pairwise(beats[1:])]
    assert len(gaps) > 30
    assert all(gap == pytest.approx(times().beat_seconds / 2, abs=1) for gap in gaps)
