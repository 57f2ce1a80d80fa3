"""An attempt ends before its Bolt run does: the run is found again, cancelled, or left to the next attempt."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from faults.attempts import begun, block, record_of, running
from faults.bench import SCHEDULE, bolt, credentials_for, reached
from faults.prefect_in_memory import Process, process
from prefect.client.schemas.objects import StateType
from prefect.states import Suspended

from paradime_blocks.errors import BoltRequestError, BoltRunFailed
from paradime_blocks.run import BoltRun
from paradime_blocks.testing import SimulatedCommand, faults
from paradime_blocks.trigger import send

if TYPE_CHECKING:
    from paradime_flows.runner.lifecycle import RunLifecycle


@pytest.mark.parametrize("retry_after", [2, 500])
async def test_a_trigger_waiting_to_be_sent_again_is_dropped_on_cancel(simulator, retry_after) -> None:
    """Bolt asked for a later try; when the caller has gone, there is none."""
    simulator.inject(faults.Status(429, operation="triggerBoltRun", retry_after=retry_after))
    trigger = asyncio.create_task(block(simulator).atrigger())
    await reached(simulator, lambda bolt: bolt.count("triggerBoltRun") == 1)
    trigger.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trigger
    await asyncio.sleep(1000)
    assert simulator.count("triggerBoltRun") == 1
    assert simulator.runs() == []


async def test_a_run_started_during_an_interrupt_is_cancelled(simulator) -> None:
    """The answer is waited for, and the run that it names is cancelled."""
    simulator.inject(faults.Hang(1, operation="triggerBoltRun", after_acting=True))
    trigger = asyncio.create_task(block(simulator).atrigger())
    await reached(simulator, lambda bolt: bolt.runs())
    trigger.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trigger
    assert [run.state for run in simulator.runs()] == ["CANCELED"]


async def test_the_answer_is_waited_for_when_a_search_could_not_decide(simulator, prefect) -> None:
    """Trap 3: another run fits as well, so that only the trigger's own answer identifies ours."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    flow_run_id = running(prefect)
    simulator.inject(faults.Hang(1, operation="triggerBoltRun", after_acting=True))
    lifecycle = await begun(simulator, flow_run_id)

    async def work() -> None:
        async with lifecycle.cleaning_up():
            await lifecycle.obtain()

    attempt = asyncio.create_task(work())
    await reached(simulator, lambda bolt: bolt.runs())
    other = simulator.start_run(SCHEDULE, actor="API")
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    states = {run.id: run.state for run in simulator.runs()}
    assert states.pop(other) == "RUNNING"
    assert list(states.values()) == ["CANCELED"]


async def test_a_cancel_does_not_wait_for_an_unresponsive_prefect(simulator, prefect) -> None:
    """The run's id cannot be stored, but the interrupted attempt knows it and cancels the run."""
    flow_run_id = running(prefect)
    simulator.inject(faults.Hang(1, operation="triggerBoltRun", after_acting=True))
    lifecycle = await begun(simulator, flow_run_id)
    update = prefect.update_flow_run_labels
    hanging = asyncio.Event()

    async def hang_once(*arguments: Any) -> None:
        if simulator.runs() and not hanging.is_set():
            hanging.set()
            await asyncio.sleep(3600)
        await update(*arguments)

    async def work() -> None:
        async with lifecycle.cleaning_up():
            await lifecycle.obtain()

    with mock.patch.object(prefect, "update_flow_run_labels", hang_once):
        attempt = asyncio.create_task(work())
        await reached(simulator, lambda bolt: bolt.runs())
        attempt.cancel()
        await asyncio.wait([attempt], timeout=30)
    assert attempt.cancelled()
    assert hanging.is_set()
    assert [run.state for run in simulator.runs()] == ["CANCELED"]


async def test_a_trigger_that_may_still_act_is_left_to_the_sweeper(simulator, prefect) -> None:
    """Bolt is slow: no run exists when the interrupted attempt searches or has to end. It starts later."""
    from paradime_flows.sweep_orphans import sweep_orphans

    flow_run_id = running(prefect)
    lifecycle = await begun(simulator, flow_run_id)
    simulator.inject(faults.Hang(120, operation="triggerBoltRun"))

    async def work() -> None:
        async with lifecycle.cleaning_up():
            await lifecycle.obtain()

    attempt = asyncio.create_task(work())
    await reached(simulator, lambda bolt: bolt.count("triggerBoltRun") == 1)
    # Prefect kills the process before the answer arrives.
    with mock.patch.object(send, "_INTERRUPT_SECONDS", 0):
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
    assert simulator.runs() == []
    assert record_of(prefect, flow_run_id).is_open
    prefect.set_state(flow_run_id, StateType.CANCELLED)
    await reached(simulator, lambda bolt: bolt.runs())
    await sweep_orphans.fn(credentials_for(simulator), older_than_seconds=0)
    assert [run.state for run in simulator.runs()] == ["CANCELED"]


async def test_the_sweeper_can_find_every_flow_run_with_a_run(simulator, prefect) -> None:
    """The flow run has the tag before it takes over or triggers anything: its process may die right after."""
    from paradime_flows.prefect_api.labels import FLOW_RUN_TAG
    from paradime_flows.runner import begin

    flow_run_id = running(prefect)
    tagged = []

    def claim(*_: Any) -> None:
        tagged.append(FLOW_RUN_TAG in prefect.flow_runs[flow_run_id].tags)

    with mock.patch.object(begin, "claim", claim):
        await begun(simulator, flow_run_id)
    assert tagged == [True]


@pytest.mark.parametrize("sent", [0, 1], ids=["nothing was sent", "a first one has started nothing"])
async def test_an_unused_intent_is_withdrawn(simulator, prefect, sent) -> None:
    """Prefect fails after it has stored the label: no later run may count as ours."""
    flow_run_id = running(prefect)
    lifecycle = await begun(simulator, flow_run_id)
    if sent:
        simulator.inject(faults.CutConnection(operation="triggerBoltRun"))
    looks = iter([None] * sent + [RuntimeError("503")])

    async def go_on(*_: Any) -> None:
        trouble = next(looks)
        if trouble is not None:
            raise trouble

    with mock.patch.object(lifecycle.ledger, "check", go_on), pytest.raises(RuntimeError, match="503"):
        await lifecycle.obtain()
    assert simulator.count("triggerBoltRun") == sent
    assert not record_of(prefect, flow_run_id).is_open


async def test_a_run_that_appears_after_a_refusal_is_found_by_the_sweeper(simulator, prefect) -> None:
    """The run appears after the search for it has ended: the intent stays open, and the sweeper finds the run."""
    from paradime_flows.sweep_orphans import sweep_orphans

    flow_run_id = running(prefect)
    lifecycle = await begun(simulator, flow_run_id)
    simulator.inject(faults.GraphQLError("Internal error", operation="triggerBoltRun", after_acting=True))
    hidden = mock.patch.object(sys.modules["paradime_blocks.trigger.search"], "_newer_runs", _nothing_yet)
    with hidden, pytest.raises(BoltRequestError):
        await lifecycle.obtain()
    assert record_of(prefect, flow_run_id).is_open
    prefect.set_state(flow_run_id, StateType.FAILED)
    await sweep_orphans.fn(credentials_for(simulator), older_than_seconds=0)
    assert [run.state for run in simulator.runs()] == ["CANCELED"]


async def _nothing_yet(*_: Any) -> dict[int, Any]:
    return {}


async def test_a_cancel_before_a_retry_ends_the_run_at_the_next_attempt(simulator, prefect) -> None:
    """Trap 5, with a run that is still running: no hook and no attempt knew of the cancel until the next attempt."""
    from paradime_flows.supervision.watch import StoppedByPrefect

    flow_run_id = running(prefect)
    await (await begun(simulator, flow_run_id)).obtain()
    prefect.set_state(flow_run_id, StateType.SCHEDULED, "AwaitingRetry")
    prefect.set_state(flow_run_id, StateType.CANCELLED)
    prefect.set_state(flow_run_id, StateType.RUNNING)
    process.set(Process())
    with pytest.raises(StoppedByPrefect, match="waited for its retry"):
        await begun(simulator, flow_run_id)
    assert [run.state for run in simulator.runs()] == ["CANCELED"]
    assert not record_of(prefect, flow_run_id).is_open


async def test_a_refused_retry_is_sent_by_the_next_attempt(simulator, prefect) -> None:
    """Another client's run blocked the retry when the attempt died: the failed run is retried, not all run again."""
    fails = SimulatedCommand("dbt run", return_code=(1, 0))
    endless = SimulatedCommand("dbt run", duration_seconds=100_000)
    simulator.update_schedule(SCHEDULE, commands=[fails], already_running="refuse")
    flow_run_id = running(prefect)
    first = Process()
    process.set(first)
    policies = {"retries": 1, "retry_delay_seconds": 0.0}

    async def fail(lifecycle: RunLifecycle) -> tuple[BoltRun, BoltRunFailed]:
        run = await lifecycle.obtain()
        await lifecycle.wait(run)
        with pytest.raises(BoltRunFailed) as failure:
            await lifecycle.result(run)
        return run, failure.value

    lifecycle = await begun(simulator, flow_run_id, **policies)
    failed, why = await fail(lifecycle)
    simulator.update_schedule(SCHEDULE, commands=[endless])
    other = simulator.start_run(SCHEDULE)
    retry = asyncio.create_task(lifecycle.retry(failed, why))
    await reached(
        simulator,
        lambda bolt: bolt.count("retryBoltRun") and record_of(prefect, flow_run_id).intent is None,
    )
    first.dead = True
    process.set(Process())
    await asyncio.gather(retry, return_exceptions=True)
    simulator.update_schedule(SCHEDULE, commands=[fails])
    await BoltRun(other, credentials_for(simulator)).acancel()

    lifecycle = await begun(simulator, flow_run_id, **policies)
    again, why = await fail(lifecycle)
    assert again.run_id == failed.run_id
    retried = await lifecycle.retry(again, why)
    assert retried is not None
    assert (simulator.count("triggerBoltRun"), simulator.count("retryBoltRun")) == (1, 2)
    await lifecycle.wait(retried)
    assert lifecycle.record.state == "SUCCESS"


async def test_a_superseded_attempt_overwrites_nothing(simulator, prefect) -> None:
    """The records that a newer attempt has written for the flow run stay as they are."""
    flow_run_id = running(prefect)
    older_process = Process()
    process.set(older_process)
    older = await begun(simulator, flow_run_id)
    await older.obtain()
    process.set(Process())
    newer = await begun(simulator, flow_run_id)
    newer.decision_log.note("The newer attempt was here.")
    await newer.ledger.save()
    process.set(older_process)
    await older.ledger.close(None, reported=True)
    record = record_of(prefect, flow_run_id)
    assert record.is_open
    assert any("newer attempt" in note for _, note in record.notes)


@pytest.mark.parametrize("same_ids", [True, False])
async def test_a_run_is_only_cancelled_in_its_own_workspace(simulator, prefect, same_ids) -> None:
    """Two workspaces can have equal run ids: a hook cancels our run in each, and no other run."""
    from paradime_flows.supervision import Event, clean_up_family

    elsewhere = bolt("timeout", speed=1, already_running="allow")
    with elsewhere:
        foreign = [] if same_ids else [elsewhere.start_run(SCHEDULE)]
        flow_run_id = running(prefect)
        await (await begun(simulator, flow_run_id, "a")).obtain()
        await (await begun(elsewhere, flow_run_id, "b")).obtain()
        flow_run = prefect.flow_runs[flow_run_id]
        await clean_up_family(prefect, flow_run, Event.CRASHED, "The flow run crashed.")  # type: ignore[arg-type]
        assert [run.state for run in simulator.runs()] == ["CANCELED"]
        states = {run.id: run.state for run in elsewhere.runs()}
        assert [states.pop(run_id) for run_id in foreign] == ["RUNNING"] * len(foreign)
        assert list(states.values()) == ["CANCELED"]


async def test_credentials_of_another_workspace_cancel_nothing(simulator, prefect) -> None:
    """A hook's process may have no others: the error says so, and what to do."""
    from paradime_flows.supervision import Event, reconcile_run

    flow_run_id = running(prefect)
    await (await begun(simulator, flow_run_id)).obtain()
    elsewhere = credentials_for(simulator).model_copy(
        update={"api_endpoint": "https://elsewhere.example/graphql"}
    )
    with pytest.raises(BoltRequestError, match="another workspace"):
        await reconcile_run(
            record_of(prefect, flow_run_id), elsewhere, Event.CRASHED, "The flow run crashed."
        )
    assert simulator.runs()[0].cancel_requests == 0


@pytest.mark.parametrize(
    "secret, workspace",
    [
        pytest.param("prdm_cmp_t", "w2", id="company token"),
        pytest.param("prdm_wsp_t", "w1", id="workspace token"),
    ],
)
async def test_a_hook_uses_the_block_for_the_workspace_of_the_run(prefect, secret, workspace) -> None:
    """The flow run used `for_workspace`; the block itself, which the hook's process loads, is for another one."""
    from uuid import uuid4

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.trigger.request import TriggerRequest
    from paradime_flows.ledger.record import Record
    from paradime_flows.supervision.cancellation import credentials_of

    saved = ParadimeCredentials(
        api_endpoint="https://api.paradime.io/graphql", api_secret=secret, workspace_uid="w1"
    )
    record = Record(
        flow_run_id=uuid4(),
        request=TriggerRequest(schedule_name="daily"),
        api_endpoint=saved.api_endpoint,
        workspace_uid="w2",
        credentials_block="production",
    )
    with mock.patch.object(ParadimeCredentials, "aload", mock.AsyncMock(return_value=saved)) as load:
        found = await credentials_of(record)
    load.assert_awaited_once_with("production")
    assert found.workspace_uid == workspace
    assert record.is_in(found) is (workspace == "w2")


@pytest.mark.parametrize(
    "since,limit,left",
    [
        pytest.param(100, 120, 20, id="part of the time is used"),
        pytest.param(500, 120, 0, id="the time is over"),
        pytest.param(-5000, 120, 120, id="the clock was set back, so never more than the limit"),
    ],
)
def test_time_counts_from_the_trigger(since, limit, left) -> None:
    """It does not matter who waits, or how often the wait starts again."""
    from uuid import uuid4

    from paradime_blocks.trigger.request import TriggerRequest
    from paradime_flows.ledger.record import Record

    record = Record(
        flow_run_id=uuid4(), request=TriggerRequest(schedule_name="daily"), began_at=time.time() - since
    )
    assert abs(record.remaining_seconds(limit) - left) < 5


async def test_a_run_that_is_found_again_gets_no_extra_time(simulator, prefect) -> None:
    """It was killed before the answer was stored: its time counts since the trigger was sent."""
    flow_run_id = running(prefect)
    first = await begun(simulator, flow_run_id)
    await first.obtain()
    record = record_of(prefect, flow_run_id)
    intended = record.intent.intended_at - 600
    record.intent = type(record.intent)(**{**vars(record.intent), "intended_at": intended})
    record.began_at, record.run_id = intended, None
    prefect.flow_runs[flow_run_id].labels.update(record.to_labels())
    process.set(Process())
    again = await begun(simulator, flow_run_id)
    run = await again.obtain()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert again.record.began_at == intended


async def test_a_suspension_after_the_end_is_reported_hides_no_failure(
    simulator, prefect, monkeypatch
) -> None:
    """Otherwise the next execution would find a reported end, and trigger a second run."""
    flow_run_id = running(prefect)
    lifecycle = await begun(simulator, flow_run_id)
    run = await lifecycle.obtain()
    simulator.finish(run.run_id, state="FAILED")
    await lifecycle.wait(run)
    close = lifecycle.ledger.close

    async def suspended_meanwhile(*arguments: Any, **options: Any) -> None:
        prefect.flow_runs[flow_run_id].state = Suspended()
        await close(*arguments, **options)

    monkeypatch.setattr(lifecycle.ledger, "close", suspended_meanwhile)
    assert (await lifecycle.finish(None))[1] is None
