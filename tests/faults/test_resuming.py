"""An attempt dies, a hook or the sweeper cleans up, and the next attempt resumes the run without starting a second."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from faults.attempts import begun, record_of, resuming, running, unanswered
from faults.bench import SCHEDULE, credentials_for, reached
from faults.prefect_in_memory import Killed, Process, process
from prefect.client.schemas.objects import StateType

from paradime_blocks.errors import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltRunFailed,
    BoltTriggerUnknown,
    BoltUnavailable,
)
from paradime_blocks.models import BoltRunState
from paradime_blocks.polling import Deadline
from paradime_blocks.testing import SimulatedCommand, faults
from paradime_blocks.trigger.request import TriggerIntent
from paradime_flows.ledger.phase import Phase, Relation
from paradime_flows.ledger.store import Lease
from paradime_flows.time_limits import Timing, use_timing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from uuid import UUID

    from faults.prefect_in_memory import PrefectInMemory

    from paradime_blocks.testing import BoltSimulator
    from paradime_flows.runner.lifecycle import RunLifecycle


@pytest.fixture
def no_signs_of_life() -> Iterator[None]:
    """The silent process that a sweeper finds is this one, which is alive."""
    import paradime_flows.supervision.orphans as module

    short = use_timing(Timing(beat_seconds=0.1))
    with short, mock.patch.object(module, "silent_seconds", return_value=float("inf")):
        yield


@pytest.fixture
def taken_slot() -> Iterator[None]:
    """Another flow run has the schedule's slot in Prefect."""
    import paradime_flows.runner.conflict as module

    @asynccontextmanager
    async def taken(*_: Any, wait_seconds: float) -> AsyncIterator[None]:
        await asyncio.sleep(min(wait_seconds, 1))
        raise module.SlotTaken
        yield

    with mock.patch.object(module, "schedule_slot", taken):
        yield


async def crash_hook(simulator: BoltSimulator, prefect: PrefectInMemory, flow_run_id: UUID) -> None:
    """Do what the hook does for a flow run whose process was killed."""
    from paradime_flows.supervision import Event, reconcile_run

    await reconcile_run(
        record_of(prefect, flow_run_id), credentials_for(simulator), Event.CRASHED, "The flow run crashed."
    )


async def killed_during_takeover(
    simulator: BoltSimulator,
    prefect: PrefectInMemory,
    first: UUID,
    second: UUID,
    before: str = "the mark",
) -> None:
    """Kill the new flow run before a step of its takeover: by default, before it marks the record of the older one."""
    from paradime_flows.runner import begin

    step = "write_final_state" if before == "the final state" else "write_record"
    done, do = iter([True] if before == "the mark" else []), getattr(begin, step)

    async def do_or_die(*arguments: Any) -> Any:
        if not next(done, False):
            raise Killed
        return await do(*arguments)

    killed = mock.patch.object(begin, step, do_or_die)
    with killed, resuming(prefect, first), pytest.raises(Killed):
        await begun(simulator, second)


def decisions_of(lifecycle: RunLifecycle) -> str:
    return " ".join(sentence for _, sentence in lifecycle.record.notes)


@pytest.mark.guarantee(
    "Signals, kills, clocks",
    "`trigger_only` is killed before it has its answer, or a flow run that has attached to a run is "
    "killed; then a retry",
    prefect="Crashed, then as the run ends",
    bolt="One run, which keeps running",
    result="The retry resumes the same run",
)
async def test_a_retry_of_trigger_only_finds_the_run_it_started(simulator, prefect) -> None:
    """It is killed with the trigger in flight. The hook finds the run and leaves it; nothing was reported."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    flow_run_id = running(prefect)
    process.set(Process())
    run = await (await begun(simulator, flow_run_id, leave=True)).obtain()
    unanswered(prefect, flow_run_id)
    await crash_hook(simulator, prefect, flow_run_id)
    process.set(Process())
    retry = await begun(simulator, flow_run_id, leave=True)
    assert (await retry.obtain()).run_id == run.run_id
    assert simulator.count("triggerBoltRun") == 1
    assert [each.state for each in simulator.runs()] == ["RUNNING"]
    assert "somebody else started" not in decisions_of(retry)


async def test_a_retried_parent_finds_the_run_that_trigger_only_started(simulator, prefect) -> None:
    """When a parent is retried, Prefect creates a new flow run for an interrupted subflow."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    first, second = running(prefect), running(prefect)
    process.set(Process())
    run = await (await begun(simulator, first, leave=True)).obtain()
    process.set(Process())
    with resuming(prefect, first):
        newer = await begun(simulator, second, leave=True)
    assert (await newer.obtain()).run_id == run.run_id
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.guarantee(
    "The trigger's answer is lost",
    "A gateway sends the trigger twice, and only Bolt's refusal of the second one arrives",
)
async def test_of_two_runs_behind_a_refusal_none_is_chosen(simulator, prefect) -> None:
    """Ours ends, and another client starts one that does the same, before we look: the error names both."""
    from paradime_flows.runner.conflict import Triggering

    simulator.update_schedule(SCHEDULE, already_running="refuse")
    simulator.inject(faults.Duplicated(operation="triggerBoltRun"))
    look, runs = Triggering._conflicting_run, []

    async def late(triggering: Triggering, refused: BoltAlreadyRunning) -> Any:
        (ours,) = simulator.active_runs()
        simulator.finish(ours.id)
        runs.extend([ours.id, simulator.start_run(SCHEDULE, actor="an API key")])
        return await look(triggering, refused)

    process.set(Process())
    attempt = await begun(simulator, running(prefect))
    looks_late = mock.patch.object(Triggering, "_conflicting_run", late)
    with looks_late, pytest.raises(BoltTriggerUnknown) as unknown:
        await attempt.obtain()
    assert list(unknown.value.candidates) == runs
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.guarantee(
    "The trigger's answer is lost",
    "A gateway sends the trigger twice, and only Bolt's refusal of the second one arrives",
)
async def test_only_the_refused_attempt_takes_the_run_for_its_own(simulator, prefect) -> None:
    """It is killed before it has seen the run: the retry does as for any other client's run."""
    from paradime_flows.runner.conflict import Triggering

    simulator.update_schedule(SCHEDULE, already_running="refuse")
    simulator.inject(faults.Duplicated(operation="triggerBoltRun"))
    flow_run_id = running(prefect)
    process.set(Process())
    killed = mock.patch.object(Triggering, "_conflicting_run", side_effect=BoltUnavailable("Killed."))
    with killed, pytest.raises(BoltUnavailable):
        await (await begun(simulator, flow_run_id)).obtain()
    (ours,) = simulator.active_runs()
    process.set(Process())
    retry = await begun(simulator, flow_run_id, on_already_running="attach")
    assert (await retry.obtain()).run_id == ours.id
    assert record_of(prefect, flow_run_id).relation is Relation.ATTACHED


async def test_a_run_still_in_its_setup_does_not_count_as_ours(simulator, prefect) -> None:
    """Another client started it between our search and our trigger; later commands show that it does something else."""
    setup = SimulatedCommand("git clone it", duration_seconds=10)
    ours = SimulatedCommand("dbt run", duration_seconds=float("inf"))
    simulator.update_schedule(SCHEDULE, commands=[setup, ours], already_running="refuse")
    process.set(Process())
    attempt = await begun(simulator, running(prefect), on_already_running="fail")
    intend = attempt.ledger.intend

    async def and_somebody_starts_one(*arguments: Any) -> None:
        await intend(*arguments)
        simulator.start_run(SCHEDULE, commands=["git clone it", "dbt test"], actor="an API key")

    somebody = mock.patch.object(attempt.ledger, "intend", and_somebody_starts_one)
    with somebody, pytest.raises(BoltAlreadyRunning) as refused:
        await attempt.obtain()
    (other,) = simulator.runs()
    assert (refused.value.run_id, other.cancel_requests) == (other.id, 0)


async def test_an_interrupted_withdrawal_is_written_during_the_cleanup(simulator, prefect) -> None:
    """Otherwise the intent stays open, and another client's later run is taken for its run and cancelled."""
    from paradime_flows.ledger.record import FlowRunLedger
    from paradime_flows.supervision.watch import StoppedByPrefect

    flow_run_id = running(prefect)
    process.set(Process())
    attempt = await begun(simulator, flow_run_id)
    go_on = attempt.ledger.check

    async def cancelled_at_the_look(_: Any) -> None:
        prefect.set_state(flow_run_id, StateType.CANCELLING)
        await go_on(prefect.flow_runs[flow_run_id])

    withdraw = FlowRunLedger.withdraw

    async def broken_off(ledger: FlowRunLedger) -> None:
        write = mock.patch.object(prefect, "update_flow_run_labels", side_effect=RuntimeError("503"))
        with write:
            await withdraw(ledger)

    with (
        mock.patch.object(attempt.ledger, "check", cancelled_at_the_look),
        mock.patch.object(FlowRunLedger, "withdraw", broken_off),
        pytest.raises(StoppedByPrefect),
    ):
        async with attempt.cleaning_up():
            await attempt.obtain()
    assert simulator.count("triggerBoltRun") == 0
    assert not record_of(prefect, flow_run_id).is_open


LOST_ON_ITS_WAY = faults.CutConnection(operation="triggerBoltRun")


async def test_a_busy_bolt_after_a_lost_answer_is_waited_for(simulator, prefect) -> None:
    """A search has shown that nothing was started: a run that appears during the wait does not count as ours."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    flow_run_id = running(prefect)
    process.set(Process())
    simulator.inject(LOST_ON_ITS_WAY)
    simulator.inject(faults.Status(429, retry_after=90, operation="triggerBoltRun", times=2))
    trigger = asyncio.create_task((await begun(simulator, flow_run_id)).obtain())
    await reached(simulator, lambda bolt: bolt.count("triggerBoltRun") == 3)
    await reached(simulator, lambda _: not record_of(prefect, flow_run_id).is_open)
    other = simulator.start_run(SCHEDULE, actor="an API key")
    ours = (await trigger).run_id
    assert [each.id for each in simulator.runs()] == [other, ours]
    assert simulator.count("triggerBoltRun") == 4


async def test_a_refusal_after_a_lost_answer_closes_the_intent(simulator, prefect) -> None:
    """A search has shown that nothing was started, so nobody is to cancel a run that appears later."""
    flow_run_id = running(prefect)
    process.set(Process())
    simulator.inject(LOST_ON_ITS_WAY)
    simulator.inject(faults.Status(401, operation="triggerBoltRun"))
    with pytest.raises(BoltAuthError):
        await (await begun(simulator, flow_run_id)).obtain()
    assert record_of(prefect, flow_run_id).phase is Phase.TAKEN


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    "A parent is retried, and the deployment's older flow run is cancelled before it has stopped",
    prefect="Cancelled; the new flow run as its run ends",
    bolt="CANCELED; a new run for the new flow run",
    result="The result of the new run",
)
@pytest.mark.parametrize("above", [False, True], ids=["itself", "its parent"])
@pytest.mark.parametrize("refuses", [False, True], ids=["", "Bolt refuses"])
async def test_a_cancelled_flow_runs_run_is_cancelled_by_its_replacement(
    simulator, prefect, above, refuses
) -> None:
    """Its attempt stops before it notices the cancel, and it is not set to Crashed in Prefect."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    parent = running(prefect)
    first, second = running(prefect, parent=parent), running(prefect)
    process.set(Process())
    run = await (await begun(simulator, first)).obtain()
    prefect.set_state(parent if above else first, StateType.CANCELLING)
    if refuses:
        simulator.inject(faults.Status(403, operation="cancelBoltRun"))
    process.set(Process())
    with resuming(prefect, first):
        if refuses:
            with pytest.raises(BoltAuthError):
                await begun(simulator, second)
            # The sweeper continues with it.
            assert record_of(prefect, first).is_open
        else:
            newer = await begun(simulator, second)
            assert (await newer.obtain()).run_id != run.run_id
    assert [each.state for each in simulator.runs()] == (["RUNNING"] if refuses else ["CANCELED", "RUNNING"])
    end = prefect.flow_runs[first].state
    assert end is not None
    assert end.type is (StateType.CRASHED if above else StateType.CANCELLED)


async def test_a_cancel_between_the_writes_of_a_takeover_is_noticed(simulator, prefect) -> None:
    """The cancelled flow run is the one whose end is about to be written."""
    from paradime_flows.runner import begin

    simulator.update_schedule(SCHEDULE, already_running="allow")
    first, second = running(prefect), running(prefect)
    process.set(Process())
    run = await (await begun(simulator, first)).obtain()
    write_final_state = begin.write_final_state

    async def cancelled_just_before(*arguments: Any) -> bool:
        prefect.set_state(first, StateType.CANCELLING)
        return await write_final_state(*arguments)

    process.set(Process())
    with resuming(prefect, first), mock.patch.object(begin, "write_final_state", cancelled_just_before):
        newer = await begun(simulator, second)
    assert (await newer.obtain()).run_id != run.run_id
    assert [each.state for each in simulator.runs()] == ["CANCELED", "RUNNING"]


async def test_a_cancel_that_is_overwritten_by_an_older_runs_end_is_noticed(simulator, prefect) -> None:
    """It comes between the last read of that flow run and the write."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    first, second = running(prefect), running(prefect)
    process.set(Process())
    run = await (await begun(simulator, first)).obtain()
    write = prefect.set_flow_run_state

    async def cancelled_just_before(flow_run_id: UUID, state: Any, **options: Any) -> None:
        if state.is_crashed():
            prefect.set_state(first, StateType.CANCELLING)
        await write(flow_run_id, state, **options)

    process.set(Process())
    with resuming(prefect, first), mock.patch.object(prefect, "set_flow_run_state", cancelled_just_before):
        newer = await begun(simulator, second)
    assert (await newer.obtain()).run_id != run.run_id
    assert [each.state for each in simulator.runs()] == ["CANCELED", "RUNNING"]
    assert [each.type for each in prefect.states[first]][-2:] == [StateType.CRASHED, StateType.CANCELLED]


async def test_a_cancel_overwritten_by_a_killed_process_is_noticed(simulator, prefect) -> None:
    """The new flow run died after it set the older one to Crashed, and before it saw that this hid a cancel."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    first, second = running(prefect), running(prefect)
    process.set(Process())
    run = await (await begun(simulator, first)).obtain()
    process.set(Process())
    await killed_during_takeover(simulator, prefect, first, second, before="the final state")
    prefect.set_state(first, StateType.CANCELLING)
    prefect.set_state(first, StateType.CRASHED)
    process.set(Process())
    with resuming(prefect, first):
        newer = await begun(simulator, second)
    assert (await newer.obtain()).run_id != run.run_id
    assert [each.state for each in simulator.runs()] == ["CANCELED", "RUNNING"]


async def test_an_ended_run_is_taken_over_from_a_cancelled_flow_run(simulator, prefect) -> None:
    """There is nothing to cancel, and the end was not reported."""
    first, second = running(prefect), running(prefect)
    process.set(Process())
    run = await (await begun(simulator, first)).obtain()
    simulator.finish(run.run_id)
    prefect.set_state(first, StateType.CANCELLING)
    process.set(Process())
    with resuming(prefect, first):
        newer = await begun(simulator, second)
    assert (await newer.obtain()).run_id == run.run_id
    assert [each.state for each in simulator.runs()] == ["SUCCESS"]


@pytest.mark.parametrize("before", ["the final state", "the new record", "the mark"])
async def test_the_next_attempt_completes_an_interrupted_takeover(simulator, prefect, before) -> None:
    """After each step of a takeover, a record is open: nobody loses the run, and nobody starts another one."""
    first, second = running(prefect), running(prefect)
    process.set(Process())
    run = await (await begun(simulator, first)).obtain()
    process.set(Process())
    await killed_during_takeover(simulator, prefect, first, second, before)
    assert record_of(prefect, first).is_open
    process.set(Process())
    with resuming(prefect, first):
        newer = await begun(simulator, second)
    assert not record_of(prefect, first).is_unreported
    assert (await newer.obtain()).run_id == run.run_id
    assert record_of(prefect, second).is_open
    assert simulator.count("triggerBoltRun") == 1


async def test_an_interrupted_takeover_is_redone_after_the_older_flow_run_resumed(simulator, prefect) -> None:
    """The new flow run was killed during the takeover. The older one resumes its run; then the new one starts again."""
    first, second = running(prefect), running(prefect)
    process.set(Process())
    run = await (await begun(simulator, first)).obtain()
    unanswered(prefect, first)
    process.set(Process())
    await killed_during_takeover(simulator, prefect, first, second)
    prefect.set_state(first, StateType.RUNNING)
    process.set(Process())
    assert (await (await begun(simulator, first)).obtain()).run_id == run.run_id
    process.set(Process())
    with resuming(prefect, first):
        newer = await begun(simulator, second)
    assert (await newer.obtain()).run_id == run.run_id
    assert [record_of(prefect, each).is_open for each in (first, second)] == [False, True]
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.guarantee(
    "Signals, kills, clocks",
    "`trigger_only` is killed before it has its answer, or a flow run that has attached to a run is "
    "killed; then a retry",
)
async def test_a_retry_attaches_to_the_same_run(simulator, prefect) -> None:
    """The other run has ended by then: that end is what the flow run waits for, and no new run is started."""
    flow_run_id = running(prefect)
    other = simulator.start_run(SCHEDULE)
    process.set(Process())
    assert (await (await begun(simulator, flow_run_id, on_already_running="attach")).obtain()).run_id == other
    await crash_hook(simulator, prefect, flow_run_id)
    assert [each.state for each in simulator.runs()] == ["RUNNING"]
    simulator.finish(other)
    process.set(Process())
    retry = await begun(simulator, flow_run_id, on_already_running="attach")
    run = await retry.obtain()
    assert run.run_id == other
    await retry.wait(run)
    assert retry.record.state == "SUCCESS"
    assert len(simulator.runs()) == 1
    assert "was already reported" not in decisions_of(retry)


@pytest.mark.parametrize("cancelled", ["the flow run itself", "its parent"])
async def test_a_retry_does_not_report_a_run_whose_wait_was_cancelled(simulator, prefect, cancelled) -> None:
    """A retry on the next day is a new intent, without yesterday's run."""
    from paradime_flows.supervision import Event, reconcile_run

    parent = running(prefect)
    flow_run_id = running(prefect, parent=parent)
    other = simulator.start_run(SCHEDULE)
    process.set(Process())
    await (await begun(simulator, flow_run_id, on_already_running="attach")).obtain()
    prefect.set_state(parent if cancelled == "its parent" else flow_run_id, StateType.CANCELLED)
    # The hook of the flow run that was cancelled does this.
    record = record_of(prefect, flow_run_id)
    await reconcile_run(record, credentials_for(simulator), Event.CANCELLED, "It was cancelled.")
    simulator.finish(other)
    process.set(Process())
    for each in (parent, flow_run_id):
        prefect.set_state(each, StateType.SCHEDULED)
        prefect.set_state(each, StateType.RUNNING)
    retry = await begun(simulator, flow_run_id, on_already_running="attach")
    assert (await retry.obtain()).run_id != other


async def test_a_run_left_at_its_time_limit_is_not_reported_as_ended(simulator, prefect) -> None:
    """The next attempt's log entry says so."""
    from paradime_blocks.errors import BoltRunTimedOut

    flow_run_id = running(prefect)
    process.set(Process())
    first = await begun(simulator, flow_run_id, on_timeout="leave")
    run = await first.obtain()
    await first.finish(BoltRunTimedOut("Time is up.", state="RUNNING", run_id=run.run_id))
    simulator.finish(run.run_id)
    process.set(Process())
    retry = await begun(simulator, flow_run_id, on_timeout="leave")
    assert (await retry.obtain()).run_id != run.run_id
    told = f"Bolt run {run.run_id} was left running at its time limit. This outcome was already reported"
    assert told in decisions_of(retry)


@pytest.mark.guarantee(
    "Signals, kills, clocks",
    "SIGTERM reaches a flow run that Prefect runs again after it (`PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR` is "
    "`reschedule` or `relinquish`)",
    prefect="As Prefect says; then as the run ends",
    bolt="One run, which keeps running",
    result="The next attempt resumes the same run. `on_interrupt` overrides that",
)
@pytest.mark.parametrize("behavior", ["reschedule", "relinquish", "crash", None])
@pytest.mark.parametrize("policy", [{}, {"on_interrupt": "cancel"}], ids=["", "cancel"])
async def test_an_evicted_flow_run_leaves_its_run_for_the_next_attempt(
    simulator, prefect, monkeypatch, behavior, policy
) -> None:
    """Kubernetes or ECS takes the machine away, and Prefect starts the flow run on another one."""
    if behavior is not None:
        monkeypatch.setenv("PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", behavior)
    flow_run_id = running(prefect)
    process.set(Process())
    attempt = await begun(simulator, flow_run_id, **policy)
    run = await attempt.obtain()
    with pytest.raises(asyncio.CancelledError):
        async with attempt.cleaning_up():
            raise asyncio.CancelledError
    is_left = behavior in {"reschedule", "relinquish"} and not policy
    assert [each.state for each in simulator.runs()] == ["RUNNING" if is_left else "CANCELED"]
    # Prefect may call the eviction a crash.
    await crash_hook(simulator, prefect, flow_run_id)
    process.set(Process())
    again = await (await begun(simulator, flow_run_id, **policy)).obtain()
    assert (again.run_id == run.run_id) is is_left


async def test_the_message_about_a_run_that_outlives_its_flow_run(simulator, prefect) -> None:
    """It was left on purpose, or Bolt did not execute the cancel."""
    from paradime_flows.supervision import Event, describe_run

    flow_run_id = running(prefect)
    process.set(Process())
    run = await (await begun(simulator, flow_run_id)).obtain()
    record = record_of(prefect, flow_run_id)
    assert f"Bolt run {run.run_id} may still be running" in describe_run(record, Event.CANCELLED)
    record.on_interrupt = "leave"
    assert f"Bolt run {run.run_id} keeps running" in describe_run(record, Event.INTERRUPTED)
    assert f"Bolt run {run.run_id} may still be running" in describe_run(record, Event.CANCELLED)


@pytest.mark.guarantee(
    "Signals, kills, clocks",
    "A killed flow run is retried while the hook or the sweeper still searches for its run",
    prefect="As the newer process ends it",
    bolt="One run, which keeps running",
    result="The hook or the sweeper stops; the retry has the run",
)
@pytest.mark.parametrize("by", ["hook", "sweeper"])
async def test_a_search_does_not_cancel_a_run_that_a_new_attempt_adopted(
    simulator, prefect, no_signs_of_life, by
) -> None:
    """The search can take a minute, and the flow run may be retried in that time."""
    from paradime_flows.ledger.store import Superseded
    from paradime_flows.supervision import reconcile
    from paradime_flows.sweep_orphans import sweep_orphans

    flow_run_id = running(prefect)
    process.set(Process())
    await (await begun(simulator, flow_run_id)).obtain()
    unanswered(prefect, flow_run_id)
    prefect.set_state(flow_run_id, StateType.CRASHED)
    find_run = reconcile.find_run
    late = []

    async def retried() -> None:
        process.set(Process())
        prefect.set_state(flow_run_id, StateType.RUNNING)
        await (await begun(simulator, flow_run_id)).obtain()

    async def find_and_be_late(*arguments: Any, **options: Any) -> Any:
        found = await find_run(*arguments, **options)
        await asyncio.create_task(retried())
        late.append(found)
        return found

    with mock.patch.object(reconcile, "find_run", find_and_be_late):
        if by == "hook":
            with pytest.raises(Superseded):
                await crash_hook(simulator, prefect, flow_run_id)
        else:
            await sweep_orphans.fn(credentials_for(simulator), older_than_seconds=0)
    assert len(late) == 1
    assert [each.state for each in simulator.runs()] == ["RUNNING"]
    assert record_of(prefect, flow_run_id).is_open


@pytest.mark.guarantee("The trigger's answer is lost", "The answer is lost, and two runs may be ours")
async def test_two_fitting_runs_are_named_to_each_retry_and_swept_while_active(
    simulator, prefect, no_signs_of_life
) -> None:
    """While one run is active, the sweeper comes back; when both have ended, nothing can be left over."""
    from paradime_flows.sweep_orphans import sweep_orphans

    simulator.update_schedule(SCHEDULE, already_running="allow")
    flow_run_id = running(prefect)
    process.set(Process())
    await (await begun(simulator, flow_run_id)).obtain()
    simulator.start_run(SCHEDULE, actor="API")
    unanswered(prefect, flow_run_id)
    prefect.set_state(flow_run_id, StateType.CRASHED)

    async def swept() -> list[str]:
        return [one.done for one in await sweep_orphans.fn(credentials_for(simulator), older_than_seconds=0)]

    assert await swept() == ["the Bolt run is unknown"]
    assert len(simulator.active_runs()) == 2
    both = [each.id for each in simulator.runs()]
    for run_id in both:
        simulator.finish(run_id)
    assert await swept() == ["the Bolt run is unknown"]
    assert await swept() == []
    for _ in range(2):
        process.set(Process())
        prefect.set_state(flow_run_id, StateType.RUNNING)
        retry = await begun(simulator, flow_run_id)
        with pytest.raises(BoltTriggerUnknown) as unknown:
            await retry.obtain()
        await retry.finish(unknown.value)
        assert list(unknown.value.candidates) == both
    assert simulator.count("triggerBoltRun") == 1


async def test_a_sweep_that_attaches_cancels_for_a_flow_run_that_was_cancelled(simulator, prefect) -> None:
    """A person's cancel counts, whatever the policy for runs of crashed flow runs."""
    from paradime_flows.sweep_orphans import sweep_orphans

    flow_run_id = running(prefect)
    process.set(Process())
    await (await begun(simulator, flow_run_id)).obtain()
    prefect.set_state(flow_run_id, StateType.CANCELLED)
    (found,) = await sweep_orphans.fn(credentials_for(simulator), action="attach", older_than_seconds=0)
    assert found.done == "cancelled"
    assert [each.state for each in simulator.runs()] == ["CANCELED"]


@pytest.mark.parametrize("state", [StateType.RUNNING, StateType.CANCELLING], ids=lambda state: state.name)
async def test_a_vanished_process_that_was_attached_gets_its_end_written(
    simulator, prefect, no_signs_of_life, state
) -> None:
    """That run belongs to another client and continues, but the flow run is over."""
    from paradime_flows.sweep_orphans import sweep_orphans

    simulator.update_schedule(SCHEDULE, already_running="refuse")
    simulator.start_run(SCHEDULE)
    flow_run_id = running(prefect)
    process.set(Process())
    await (await begun(simulator, flow_run_id, on_already_running="attach")).obtain()
    if state is StateType.CANCELLING:
        prefect.set_state(flow_run_id, state)
    else:
        lease = Lease(9, str(prefect.flow_runs[flow_run_id].state.id))
        prefect.flow_runs[flow_run_id].labels[lease.label] = ""
    assert await sweep_orphans.fn(credentials_for(simulator), older_than_seconds=0) == []
    assert [each.state for each in simulator.runs()] == ["RUNNING"]
    end = prefect.flow_runs[flow_run_id].state
    assert end is not None
    assert end.type is (StateType.CANCELLED if state is StateType.CANCELLING else StateType.CRASHED)


@pytest.mark.parametrize("begun_again", [False, True])
async def test_a_sweep_ends_a_subflows_run_when_its_parent_died_too(
    simulator, prefect, no_signs_of_life, begun_again
) -> None:
    """The parent, which sends no heartbeat itself, was in the same process, unless it has started again."""
    from paradime_flows.sweep_orphans import sweep_orphans

    parent = running(prefect)
    # The clock of the test goes faster than the clock that Prefect's states have.
    prefect.states[parent][-1].timestamp -= timedelta(seconds=10)
    flow_run_id = running(prefect, parent=parent)
    process.set(Process())
    await (await begun(simulator, flow_run_id)).obtain()
    if begun_again:
        await asyncio.sleep(2)
        prefect.set_state(parent, StateType.RUNNING)
        prefect.states[parent][-1].timestamp = datetime.fromtimestamp(time.time(), timezone.utc)
    swept = await sweep_orphans.fn(credentials_for(simulator), older_than_seconds=0)
    assert [each.done for each in swept] == ([] if begun_again else ["cancelled"])
    assert [each.state for each in simulator.runs()] == ["RUNNING" if begun_again else "CANCELED"]


@pytest.mark.parametrize("above", [False, True], ids=["itself", "its parent"])
async def test_a_sweep_that_attaches_notices_a_cancel(simulator, prefect, no_signs_of_life, above) -> None:
    """No one else would cancel the Bolt run while the sweeper waits for it."""
    from paradime_flows.sweep_orphans import sweep_orphans

    parent = running(prefect)
    flow_run_id = running(prefect, parent=parent)
    process.set(Process())
    await (await begun(simulator, flow_run_id)).obtain()
    prefect.set_state(parent, StateType.CRASHED)
    looks = simulator.count("boltRunStatus")
    sweep = sweep_orphans.fn(credentials_for(simulator), action="attach", older_than_seconds=0)
    sweeping = asyncio.create_task(sweep)
    await reached(simulator, lambda bolt: bolt.count("boltRunStatus") > looks + 2)
    prefect.set_state(parent if above else flow_run_id, StateType.CANCELLING)
    (found,) = await asyncio.wait_for(sweeping, 20)
    assert found.done == "cancelled"
    assert [each.state for each in simulator.runs()] == ["CANCELED"]
    end = prefect.flow_runs[flow_run_id].state
    assert end is not None
    assert end.type is (StateType.CRASHED if above else StateType.CANCELLED)


async def test_a_sweep_that_attaches_stops_when_the_flow_run_is_retried(
    simulator, prefect, no_signs_of_life
) -> None:
    """The process that retried the flow run waits for the run: the sweep ends and changes nothing."""
    from paradime_flows.sweep_orphans import sweep_orphans

    flow_run_id = running(prefect)
    process.set(Process())
    run = await (await begun(simulator, flow_run_id)).obtain()
    prefect.set_state(flow_run_id, StateType.CRASHED)
    looks = simulator.count("boltRunStatus")
    sweep = sweep_orphans.fn(credentials_for(simulator), action="attach", older_than_seconds=0)
    sweeping = asyncio.create_task(sweep)
    await reached(simulator, lambda bolt: bolt.count("boltRunStatus") > looks + 2)
    process.set(Process())
    assert (await (await begun(simulator, flow_run_id)).obtain()).run_id == run.run_id
    await asyncio.wait_for(sweeping, 20)
    assert record_of(prefect, flow_run_id).is_open
    assert [(each.state, each.cancel_requests) for each in simulator.runs()] == [("RUNNING", 0)]


@pytest.mark.parametrize("on_timeout, state", [("cancel", "CANCELED"), ("leave", "RUNNING")])
async def test_a_sweep_that_attaches_waits_until_the_time_limit(
    simulator, prefect, no_signs_of_life, on_timeout, state
) -> None:
    """No one else would cancel it then. If the policy says leave, the run is left and not swept any more."""
    from paradime_flows.sweep_orphans import sweep_orphans

    flow_run_id = running(prefect)
    process.set(Process())
    await (await begun(simulator, flow_run_id, on_timeout=on_timeout)).obtain()
    record = record_of(prefect, flow_run_id)
    record.limit_seconds = 1.0
    prefect.flow_runs[flow_run_id].labels.update(record.to_labels())
    prefect.set_state(flow_run_id, StateType.CRASHED)
    sweep = partial(sweep_orphans.fn, credentials_for(simulator), action="attach", older_than_seconds=0)
    (found,) = await sweep()
    assert (found.state, found.done) == (state, f"waited for until its time limit; its state is {state}")
    assert [each.state for each in simulator.runs()] == [state]
    assert await sweep() == []


@pytest.mark.guarantee(
    "Signals, kills, clocks",
    "A clock is set forward or back",
    prefect="As the run ends",
    bolt="The run keeps running",
    result="The time limit is measured by a clock that cannot be set, and in another process by Bolt's clock",
)
@pytest.mark.parametrize("anew", [False, True], ids=["the same process", "another process"])
async def test_a_clock_that_jumps_ahead_ends_no_healthy_run(simulator, prefect, anew) -> None:
    """After the trigger, this machine's clock is set a day ahead; Bolt's clock and the monotonic clock are not."""
    flow_run_id = running(prefect)
    process.set(Process())
    lifecycle = await begun(simulator, flow_run_id)
    run = await lifecycle.obtain()
    day = SimpleNamespace(time=lambda: time.time() + 90_000, monotonic=time.monotonic)
    modules = [sys.modules[f"paradime_flows.{name}"] for name in ("ledger.record", "supervision.reconcile")]
    with mock.patch.object(modules[0], "time", day), mock.patch.object(modules[1], "time", day):
        if anew:
            process.set(Process())
            lifecycle = await begun(simulator, flow_run_id)
            run = await lifecycle.obtain()
        looks = simulator.count("boltRunStatus")
        wait = asyncio.create_task(lifecycle.wait(run))
        await reached(simulator, lambda bolt: bolt.count("boltRunStatus") > looks + 2)
        assert [each.cancel_requests for each in simulator.runs()] == [0]
        simulator.finish(run.run_id)
        await wait
        assert lifecycle.record.state == "SUCCESS"


@pytest.mark.guarantee("Signals, kills, clocks", "A clock is set forward or back")
async def test_the_time_of_a_resumed_run_is_measured_by_bolts_clock(simulator, prefect) -> None:
    """This machine's clock was set back: the run gets no extra time."""
    from paradime_flows.supervision import remaining_seconds

    simulator.clock.speed = 0
    flow_run_id = running(prefect)
    process.set(Process())
    await (await begun(simulator, flow_run_id)).obtain()
    simulator.clock.advance(3000)
    process.set(Process())
    record = record_of(prefect, flow_run_id)
    assert 590 < await remaining_seconds(record, credentials_for(simulator), 3600) <= 605
    simulator.inject(faults.Status(503, operation="boltRunStatus", times=None))
    # Bolt's response has no date: this machine's clock must do.
    assert 3400 < await remaining_seconds(record, credentials_for(simulator), 3600) <= 3600


async def test_an_outage_before_a_retry_does_not_report_the_failure_before_it(simulator, prefect) -> None:
    """The flow run ends because Bolt is unreachable: the next attempt retries what failed, and does not start over."""
    simulator.update_schedule(SCHEDULE, commands=[SimulatedCommand("dbt run", return_code=(1, 0))])
    flow_run_id = running(prefect)
    process.set(Process())
    policies = {"retries": 1, "retry_delay_seconds": 0.0}
    lifecycle = await begun(simulator, flow_run_id, **policies)
    run = await lifecycle.obtain()
    await lifecycle.wait(run)
    with pytest.raises(BoltRunFailed) as failure:
        await lifecycle.result(run)
    simulator.inject(faults.Status(503, operation="boltScheduleName", times=None))
    with pytest.raises(BoltUnavailable) as outage:
        await lifecycle.retry(run, failure.value)
    await lifecycle.finish(outage.value)
    simulator.clear_faults()
    process.set(Process())
    lifecycle = await begun(simulator, flow_run_id, **policies)
    again = await lifecycle.obtain()
    assert again.run_id == run.run_id
    with pytest.raises(BoltRunFailed) as failure:
        await lifecycle.result(again)
    retried = await lifecycle.retry(again, failure.value)
    assert retried is not None
    assert (simulator.count("triggerBoltRun"), simulator.count("retryBoltRun")) == (1, 1)


async def test_a_resumed_run_follows_the_policies_of_its_present_attempt(simulator, prefect) -> None:
    """An interrupt or outage of the attempt before may have stored other policies for the hooks; they do not count."""
    flow_run_id = running(prefect)
    process.set(Process())
    await (await begun(simulator, flow_run_id)).obtain()
    record = record_of(prefect, flow_run_id)
    record.on_crash, record.unreachable = "leave", True
    prefect.flow_runs[flow_run_id].labels.update(record.to_labels())
    process.set(Process())
    await (await begun(simulator, flow_run_id)).obtain()
    record = record_of(prefect, flow_run_id)
    assert (record.on_crash, record.unreachable) == ("cancel", False)


@pytest.mark.parametrize("policy", ["wait", "fail"])
@pytest.mark.parametrize("ended, retries", [(None, 1), ("SUCCESS", 1), ("FAILED", 0), ("FAILED", 1)])
async def test_an_attempt_with_a_run_to_resume_needs_no_slot(
    simulator, prefect, taken_slot, policy, ended, retries
) -> None:
    """A hook left its run running, and another flow run has the schedule now."""

    simulator.update_schedule(SCHEDULE, already_running="allow")
    flow_run_id = running(prefect)
    process.set(Process())
    run = await (await begun(simulator, flow_run_id, leave=True)).obtain()
    if ended:
        simulator.finish(run.run_id, state=ended)
    record = record_of(prefect, flow_run_id)
    record.state = ended and BoltRunState(ended)
    record.phase = Phase.ENDED if ended else Phase.RELEASED
    prefect.flow_runs[flow_run_id].labels.update(record.to_labels())
    simulator.start_run(SCHEDULE)
    process.set(Process())
    retry = await begun(simulator, flow_run_id, leave=True, on_already_running=policy, retries=retries)
    retry.triggering.waiting = Deadline(0.5)
    async with AsyncExitStack() as stack:
        await retry.triggering.hold_slot(stack)
        assert (await retry.obtain()).run_id == run.run_id
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.guarantee(
    "The schedule is running already",
    "The schedule is running again when a failed run is to be retried, and `on_already_running` is `skip`",
)
@pytest.mark.parametrize("sent", [False, True], ids=["awaiting its retry", "about to retry"])
async def test_an_unreported_failure_is_not_skipped(simulator, prefect, taken_slot, sent) -> None:
    """Its attempt has died, and another flow run has the schedule by now."""
    from paradime_flows.retry_policy import retry_of
    from paradime_flows.runner import run as driving

    flow_run_id = running(prefect)
    simulator.update_schedule(SCHEDULE, already_running="allow")
    other = simulator.start_run(SCHEDULE)
    process.set(Process())
    first = await begun(simulator, flow_run_id, retries=1, retry_delay_seconds=0)
    run = await first.obtain()
    simulator.finish(run.run_id, state="FAILED")
    await first.wait(run)
    with pytest.raises(BoltRunFailed) as failure:
        await first.result(run)
    with mock.patch.object(first, "_start"):
        await first.retry(run, failure.value)
    if sent:
        intent = TriggerIntent(latest_run_id=run.run_id, intended_at=time.time())
        await first.ledger.intend(retry_of(first.request, run.run_id), intent)
    simulator.update_schedule(SCHEDULE, already_running="refuse")
    process.set(Process())
    again = await begun(simulator, flow_run_id, on_already_running="skip", retries=1)
    async with AsyncExitStack() as stack:
        await again.triggering.hold_slot(stack)
        with pytest.raises(BoltRunFailed) as failure:
            await driving._to_the_end(again, await again.obtain())
    assert failure.value.run_id == run.run_id
    assert [each.id for each in simulator.runs()] == [other, run.run_id]


async def test_a_reported_failure_can_be_skipped(simulator, prefect, taken_slot) -> None:
    """A retry of its flow run is a new intent, and another flow run has the schedule."""
    from paradime_flows.runner.conflict import Skipped

    flow_run_id = running(prefect)
    process.set(Process())
    first = await begun(simulator, flow_run_id, retries=1)
    run = await first.obtain()
    simulator.finish(run.run_id, state="FAILED")
    await first.wait(run)
    with pytest.raises(BoltRunFailed) as failure:
        await first.result(run)
    await first.finish(failure.value)
    simulator.start_run(SCHEDULE)
    process.set(Process())
    again = await begun(simulator, flow_run_id, on_already_running="skip", retries=1)
    async with AsyncExitStack() as stack:
        with pytest.raises(Skipped):
            await again.triggering.hold_slot(stack)


async def test_a_schedule_that_never_ran_cannot_be_skipped(simulator, prefect, taken_slot) -> None:
    """There is no run to return. So it fails, but only when a killed flow run would have lost the slot."""

    lifecycle = await begun(simulator, running(prefect), on_already_running="skip")
    lifecycle.triggering.waiting = Deadline(1000)
    began = asyncio.get_running_loop().time()
    async with AsyncExitStack() as stack:
        with pytest.raises(BoltAlreadyRunning):
            await lifecycle.triggering.hold_slot(stack)
    assert 70 < asyncio.get_running_loop().time() - began < 90


@pytest.mark.parametrize("policy", ["fail", "attach_if_same"])
async def test_a_conflict_before_a_trigger_forgets_a_reported_run(simulator, prefect, policy) -> None:
    """The failure of the earlier run was reported: it is not archived again, and the record does not name it."""
    flow_run_id = running(prefect)
    process.set(Process())
    first = await begun(simulator, flow_run_id)
    run = await first.obtain()
    simulator.finish(run.run_id, state="FAILED")
    await first.wait(run)
    with pytest.raises(BoltRunFailed) as failure:
        await first.result(run)
    await first.finish(failure.value)
    assert record_of(prefect, flow_run_id).phase is Phase.REPORTED
    other = simulator.start_run(SCHEDULE, commands=["dbt run"])
    looks = simulator.count("listBoltRuns")
    process.set(Process())
    again = await begun(simulator, flow_run_id, on_already_running=policy)
    again.triggering.looks_first = True
    with pytest.raises(BoltAlreadyRunning) as refused:
        await again.obtain()
    assert refused.value.run_id == other
    if policy == "fail":
        assert simulator.count("listBoltRuns") == looks + 1
    archived, _ = await again.finish(refused.value)
    assert archived.record.run_id is None
    record = record_of(prefect, flow_run_id)
    assert (record.run_id, record.state) == (None, None)
    assert (record.phase, record.relation) == (Phase.TAKEN, Relation.OURS)


async def test_a_refusal_before_a_trigger_forgets_a_reported_run(simulator, prefect) -> None:
    """Bolt does not even show the schedule: nothing was sent, and the earlier run is not archived again."""
    flow_run_id = running(prefect)
    process.set(Process())
    first = await begun(simulator, flow_run_id)
    run = await first.obtain()
    simulator.finish(run.run_id, state="FAILED")
    await first.wait(run)
    with pytest.raises(BoltRunFailed) as failure:
        await first.result(run)
    await first.finish(failure.value)
    simulator.inject(faults.Status(503, operation="boltScheduleName", times=None))
    process.set(Process())
    with pytest.raises(BoltUnavailable):
        await (await begun(simulator, flow_run_id)).obtain()
    assert record_of(prefect, flow_run_id).run_id is None


async def test_a_new_trigger_gets_its_full_time_limit(simulator, prefect) -> None:
    """It is killed before its answer: the previous run's time limit does not apply to it."""
    flow_run_id = running(prefect)
    process.set(Process())
    run = await (await begun(simulator, flow_run_id)).obtain()
    simulator.finish(run.run_id, state="FAILED")
    record = record_of(prefect, flow_run_id)
    record.state, record.phase = BoltRunState.FAILED, Phase.REPORTED
    record.began_at, record.limit_seconds = time.time() - 172_800, 86_400
    prefect.flow_runs[flow_run_id].labels.update(record.to_labels())
    simulator.inject(faults.Hang(1, operation="triggerBoltRun", after_acting=True))
    process.set(Process())
    lifecycle = await begun(simulator, flow_run_id)
    starting = asyncio.create_task(lifecycle.obtain())
    await reached(simulator, lambda bolt: len(bolt.runs()) == 2)
    record = record_of(prefect, flow_run_id)
    assert (record.run_id, record.is_open, record.time_is_up) == (None, True, False)
    assert (await starting).run_id != run.run_id
