"""A user's flows that fail, are cancelled or are retried while their Bolt runs are active."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.exceptions import CancelledRun, Pause
from prefect.runtime import flow_run as this_flow_run
from prefect.states import Cancelled, Cancelling, Crashed, Running, Suspended
from prefect.tasks import Task
from support.credentials import credentials_for
from support.prefect_api import artifacts_of, latest_flow_run

from paradime_blocks import BoltRunFailed, BoltRunTimedOut, BoltSchedule, ParadimeCredentials
from paradime_blocks.testing import BoltSimulator, SimulatedCommand, faults
from paradime_blocks.testing.reply import Reply
from paradime_blocks.trigger.decision_log import DecisionLog
from paradime_blocks.trigger.request import TriggerRequest
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.ledger.phase import Phase
from paradime_flows.ledger.record import Record, read_records
from paradime_flows.prefect_api import schedule_slot, schedule_tag, the_supervisor
from paradime_flows.prefect_api.flow_runs import lineage
from paradime_flows.retry_run import aretry_run
from paradime_flows.run_schedule import arun_schedule, run_schedule
from paradime_flows.runner.conflict import slot_name
from paradime_flows.supervision import watch
from paradime_flows.tasks import (
    acancel_bolt_run,
    aget_bolt_run,
    atrigger_bolt_run,
    await_for_bolt_run,
    trigger_bolt_run,
    wait_for_bolt_run,
)
from paradime_flows.time_limits import Timing, use_timing

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

HOOKS: dict[str, Any] = {"on_failure": [cancel_owned_runs], "on_crashed": [cancel_owned_runs]}
QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5}
FLOW: dict[str, Any] = {**QUICK, "live_logs": "off"}


async def is_waited_for(workspace: BoltSimulator) -> None:
    """Return after two status requests for a run."""
    await asyncio.to_thread(workspace.wait_for, lambda bolt: bolt.count("boltRunStatus") >= 2, 30)


async def cancel_flow_run(name: str) -> None:
    """Cancel the flow run of that name as the UI does."""
    async with get_client() as client:
        (flow_run,) = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        )
        await client.set_flow_run_state(flow_run.id, Cancelling(), force=True)


@pytest.mark.guarantee(
    "Flows of your own",
    "A flow fails while a run that one of its tasks has triggered is still running (with the hook)",
    prefect="Failed",
    bolt="CANCELED",
    result="Your flow's error",
)
async def test_a_failed_flow_cancels_its_active_runs(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """One of its runs fails, and no task waits for the other any longer."""

    @flow(**HOOKS)
    async def both() -> None:
        failing = await atrigger_bolt_run("failing", credentials)
        await atrigger_bolt_run("endless", credentials)
        await await_for_bolt_run(failing, credentials, **QUICK)

    with pytest.raises(BoltRunFailed):
        await both()
    assert [run.state for run in workspace.runs("endless")] == ["CANCELED"]


@pytest.mark.guarantee(
    "Flows of your own",
    "A flow fails while a run that one of its tasks has triggered is still running (with the hook)",
)
async def test_a_submitted_wait_ends_with_its_flow(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The flow fails in the meantime: the thread notices that and ends the run."""

    @flow
    async def beside() -> None:
        run_id = await atrigger_bolt_run("endless", credentials)
        wait_for_bolt_run.submit(run_id, credentials, **QUICK)
        await asyncio.to_thread(workspace.wait_for, lambda bolt: bolt.count("boltRunStatus") >= 2, 30)
        raise RuntimeError("The flow failed beside its task.")

    with pytest.raises(RuntimeError, match="beside its task"):
        await beside()
    await asyncio.to_thread(workspace.wait_for, lambda bolt: not bolt.active_runs(), 30)
    assert [run.state for run in workspace.runs()] == ["CANCELED"]


async def test_an_outage_that_ends_the_wait_cancels_nothing(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The flow fails because Bolt is unreachable: its hook leaves the healthy run alone."""

    @flow(**HOOKS)
    async def cut_off() -> None:
        run_id = await atrigger_bolt_run("endless", credentials)
        workspace.stop()
        try:
            await await_for_bolt_run(run_id, credentials, max_outage_seconds=0.5, **QUICK)
        finally:
            workspace.start()

    state = await cut_off(return_state=True)
    assert state.is_failed()
    (run,) = workspace.runs()
    assert run.is_active
    assert run.cancel_requests == 0


@pytest.mark.guarantee(
    "Cancelled in Prefect",
    "A script's flow run is cancelled while one of its tasks waits for a run",
    prefect="Cancelling, then Cancelled (for a flow of your own when Prefect writes it, five minutes later)",
    bolt="CANCELED",
    result="The task raises `prefect.exceptions.CancelledRun`, so that nothing after it is run",
)
async def test_a_cancelled_flow_stops_at_the_wait(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """In a script, only the task can stop the flow: it raises, and the code after the wait does not run."""
    behind = []

    @flow
    async def publishes() -> None:
        run_id = await atrigger_bolt_run("endless", credentials)
        async with get_client() as client:
            await client.set_flow_run_state(this_flow_run.id, Cancelling(), force=True)
        await await_for_bolt_run(run_id, credentials, **QUICK)
        behind.append("published")

    with pytest.raises(CancelledRun):
        await publishes()
    assert behind == []
    assert [run.state for run in workspace.runs()] == ["CANCELED"]


@pytest.mark.guarantee(
    "Cancelled in Prefect",
    "The flow run is cancelled while the run of a lost answer is searched for",
    prefect="Cancelled",
    bolt="CANCELED, or no run was started",
    result="Nothing is sent again",
)
@pytest.mark.full
@pytest.mark.parametrize("acts", [True, False], ids=["it had started a run", "it had not"])
async def test_a_cancel_is_noticed_during_the_search_for_a_lost_run(
    workspace: BoltSimulator, credentials: ParadimeCredentials, acts: bool
) -> None:
    """A search takes longer than the cancel allows: the run ends before it is identified, and no second is sent."""
    long_setup = SimulatedCommand("git clone", duration_seconds=100_000)
    workspace.add_schedule("sets up", commands=[long_setup], setup_commands=False)
    workspace.inject(faults.CutConnection(operation="triggerBoltRun", after_acting=acts))

    @flow
    async def lost() -> None:
        run_id = trigger_bolt_run.submit("sets up", credentials)
        await asyncio.to_thread(workspace.wait_for, lambda bolt: bolt.count("listBoltRuns") >= 2, 30)
        async with get_client() as client:
            await client.set_flow_run_state(this_flow_run.id, Cancelling(), force=True)
        run_id.wait()

    state = await lost(return_state=True)
    assert workspace.count("triggerBoltRun") == 1
    assert [run.state for run in workspace.runs()] == ["CANCELED"] * acts
    async with get_client() as client:
        found = read_records(await client.read_flow_run(state.state_details.flow_run_id))
    decisions = " ".join(sentence for record in found for _, sentence in record.notes)
    # The task notices the cancel itself, or the observer of the process does: the record keeps the words of the last.
    assert "is being cancelled in Prefect" in decisions or "was cancelled while" in decisions
    assert "which the trigger started" not in decisions


async def test_an_end_during_a_suspension_is_reported_by_the_resumed_attempt(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The run fails while the flow run is suspended: the resumed attempt reports that, and triggers nothing new."""

    flow_run_ids = []

    @flow
    async def suspended() -> None:
        flow_run_ids.append(this_flow_run.id)
        run_id = await atrigger_bolt_run("failing", credentials)
        await asyncio.to_thread(workspace.wait_for, lambda bolt: not bolt.active_runs(), 30)
        async with get_client() as client:
            await client.set_flow_run_state(this_flow_run.id, Suspended(), force=True)
        await await_for_bolt_run(run_id, credentials, **QUICK)

    with pytest.raises(Pause):
        await suspended()
    async with get_client() as client:
        (record,) = read_records(await client.read_flow_run(flow_run_ids[0]))
    assert record.is_open


@dataclass(frozen=True)
class UntilACancel(faults.Fault):
    """Bolt is unreachable for status requests until it is asked to cancel the run."""

    simulator: BoltSimulator

    def answer(self, exchange: Any) -> Reply:
        if self.simulator.count("cancelBoltRun"):
            return exchange.act()
        return Reply(503)


@pytest.mark.full
async def test_a_cancel_during_an_outage_that_ends_the_wait_cancels_the_run(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The flow run ends as Cancelled, so that no one returns to its run."""

    async def cancel() -> None:
        await is_waited_for(workspace)
        workspace.inject(UntilACancel(workspace, operation="boltRunStatus", times=None))
        await cancel_flow_run(name)

    name = f"out of reach {workspace.api_endpoint}"
    named = run_schedule.with_options(flow_run_name=name)
    run = named("endless", credentials, max_outage_seconds=0, return_state=True, **FLOW)
    state, _ = await asyncio.gather(run, cancel())
    assert state.is_cancelled()
    assert [run.state for run in workspace.runs()] == ["CANCELED"]


@dataclass(frozen=True)
class EndsFirst(faults.Fault):
    """The run ends right before its cancel arrives."""

    simulator: BoltSimulator

    def answer(self, exchange: faults.Exchange) -> Reply:
        self.simulator.finish(self.simulator.runs()[0].id)
        return exchange.act()


@pytest.mark.guarantee(
    "Cancelled in Prefect",
    "The run ends on its own while it is cancelled with its flow run",
    prefect="Cancelled",
    bolt="As it ended",
    result="The flow run's state, log and summary say how the run ended",
)
@pytest.mark.guarantee(
    "Cancelled in Prefect",
    "A flow run is cancelled, and Bolt does not cancel its run within 12 s",
    prefect="Cancelled",
    bolt="May keep running until the sweeper cancels it",
    result="The flow run's state, log and summary name the run. Look in Paradime",
)
@pytest.mark.parametrize("ignored", [True, pytest.param(False, marks=pytest.mark.full)])
async def test_a_cancelled_flow_runs_state_names_a_run_it_could_not_cancel(
    workspace: BoltSimulator,
    credentials: ParadimeCredentials,
    ignored: bool,
) -> None:
    """A cancelled flow run can end in no other state in Prefect: the message says how its run ended or may continue."""
    if ignored:
        workspace.update_schedule("endless", cancel="ignore")
    else:
        workspace.inject(EndsFirst(workspace, operation="cancelBoltRun"))

    async def cancel() -> None:
        await is_waited_for(workspace)
        await cancel_flow_run(name)

    name = f"ignored {workspace.api_endpoint}"
    named = run_schedule.with_options(flow_run_name=name)
    with use_timing(Timing(cancel_seconds=1.0)):
        state, _ = await asyncio.gather(named("endless", credentials, return_state=True, **FLOW), cancel())
    (run,) = workspace.runs()
    assert state.is_cancelled()
    if ignored:
        assert f"Bolt run {run.id} may still be running" in str(state.message)
        assert f"/run_id/{run.id}" in str(state.message)
    else:
        assert f"Bolt run {run.id} had already ended as SUCCESS" in str(state.message)


async def test_a_crash_leaves_flow_runs_of_deployments_to_their_own_processes(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The parent's hook cancels for the subflows of its process; a cancel is for all."""
    run_id = workspace.start_run("endless")
    async with get_client() as client:
        parent = await client.create_flow_run(run_schedule, state=Running())
        call = await client.create_task_run(
            Task(name="run-schedule", fn=run_schedule.fn), flow_run_id=parent.id, dynamic_key="0"
        )
        flow_id = await client.create_flow(run_schedule)
        deployment = await client.create_deployment(flow_id=flow_id, name="apart")
        child = await client.create_flow_run_from_deployment(deployment, parent_task_run_id=call.id)
        record = Record(
            flow_run_id=child.id,
            request=TriggerRequest(schedule_name="endless"),
            phase=Phase.RUNNING,
            run_id=run_id,
            api_endpoint=credentials.api_endpoint,
        )
        await client.update_flow_run_labels(child.id, record.to_labels())
        workspace_of_run = (credentials.api_endpoint, credentials.workspace_uid)
        the_supervisor().of(child.id).credentials[workspace_of_run] = credentials
        for state, left in ((Crashed(), "RUNNING"), (Cancelled(), "CANCELED")):
            await client.set_flow_run_state(parent.id, state, force=True)
            await cancel_owned_runs(run_schedule, parent, state)
            assert workspace.run(run_id).state == left


@pytest.mark.full
async def test_a_run_of_another_workspace_with_the_same_id_is_not_ours(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """It is waited for. A time limit does not cancel it, and its end does not count as the end of ours."""
    with BoltSimulator() as elsewhere:
        elsewhere.add_schedule("endless", commands=[SimulatedCommand("dbt run", duration_seconds=100_000)])
        theirs = credentials_for(elsewhere)
        same_id = elsewhere.start_run("endless")

        @flow(**HOOKS)
        async def two_workspaces() -> None:
            assert await atrigger_bolt_run("endless", credentials) == same_id
            with pytest.raises(BoltRunTimedOut):
                await await_for_bolt_run(same_id, theirs, timeout_seconds=1, **QUICK)
            await acancel_bolt_run(same_id, theirs)
            raise RuntimeError("The flow has failed.")

        with pytest.raises(RuntimeError, match="has failed"):
            await two_workspaces()
        assert elsewhere.run(same_id).cancel_requests == 1
    assert [run.state for run in workspace.runs()] == ["CANCELED"]


async def test_a_flow_that_persists_results_gets_new_answers(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Two triggers start two runs, and a second read returns the new state: Prefect's cache would hide both."""
    seen = []

    @flow(persist_result=True)
    async def twice() -> None:
        for _ in range(2):
            run_id = await atrigger_bolt_run("endless", credentials)
            before = await aget_bolt_run(run_id, credentials)
            await acancel_bolt_run(run_id, credentials)
            after = await aget_bolt_run(run_id, credentials)
            seen.append((run_id, before.state.is_terminal, after.state))

    await twice()
    assert seen == [(run.id, False, "CANCELED") for run in workspace.runs("endless")]
    assert len(seen) == 2


async def test_a_persisted_trigger_is_sent_again_when_its_flow_is_retried(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The first attempt's run failed, and that was reported: the second attempt does not report it again."""
    workspace.add_schedule(
        "recovers", commands=[SimulatedCommand("dbt run", return_code=(1, 0))], setup_commands=False
    )

    @flow(persist_result=True, retries=1, retry_delay_seconds=0)
    async def recovering() -> Any:
        return await await_for_bolt_run(
            await atrigger_bolt_run("recovers", credentials), credentials, **QUICK
        )

    state = await recovering(return_state=True)
    assert [run.state for run in workspace.runs("recovers")] == ["FAILED", "SUCCESS"], state


@pytest.mark.full
async def test_each_attempt_of_a_flow_run_has_its_own_retries(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The retries that the first attempt used do not count for the second."""
    twice = run_schedule.with_options(retries=1, retry_delay_seconds=0)
    state = await twice("failing", credentials, retries=1, retry_delay_seconds=0, return_state=True, **FLOW)
    assert state.is_failed()
    assert (workspace.count("triggerBoltRun"), workspace.count("retryBoltRun")) == (2, 2)
    assert len(workspace.runs()) == 4


@pytest.mark.full
async def test_a_retry_links_the_run_that_it_retries(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """It is in its result and its summary; its own retries start from the failure, whatever the first request was."""
    workspace.add_schedule(
        "flaky", commands=[SimulatedCommand("dbt run", return_code=(1, 1, 0))], setup_commands=False
    )
    with pytest.raises(BoltRunFailed) as caught:
        await arun_schedule("flaky", credentials, **FLOW)
    failed = caught.value.run_id
    assert failed is not None
    flow_run_ids = []

    @flow
    async def again() -> Any:
        state = await aretry_run(
            failed, credentials, everything=True, retries=1, retry_delay_seconds=0, return_state=True, **FLOW
        )
        flow_run_ids.append(state.state_details.flow_run_id)
        return await state.aresult()

    result = await again()
    assert [attempt.run_id for attempt in result.attempts] == [run.id for run in workspace.runs()]
    assert (workspace.count("retryAllBoltRun"), workspace.count("retryBoltRun")) == (1, 1)
    summary = (await artifacts_of(flow_run_ids[0]))["paradime-flaky"]
    assert f"run_id/{failed}" in str(summary.data)


@pytest.mark.parametrize(
    "older",
    [pytest.param(False, id="retryBoltRun"), pytest.param(True, id="older backend", marks=pytest.mark.full)],
)
async def test_a_retry_starts_with_the_first_failed_command(
    workspace: BoltSimulator, credentials: ParadimeCredentials, older: bool
) -> None:
    """With `continueOnError` the run continued after it; on an older backend, all commands from there are triggered."""
    commands = ["dbt run", "dbt test", "dbt run", "dbt docs"]
    codes: list[Any] = [0, (1, 0), 0, (1, 0)]
    workspace.add_schedule(
        "long",
        commands=[
            SimulatedCommand(each, return_code=code) for each, code in zip(commands, codes, strict=True)
        ],
        continue_on_error=True,
    )
    if older:
        workspace.lacks(operations=["retryBoltRun", "retryAllBoltRun"])
    result = await arun_schedule("long", credentials, retries=1, retry_delay_seconds=0, **FLOW)
    assert result.state == "SUCCESS"
    again = [command.command for command in workspace.runs()[1].commands]
    if older:
        assert again[-3:] == ["dbt test", "dbt run", "dbt docs"]


@pytest.mark.full
async def test_no_run_is_started_while_another_awaits_its_retry(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The schedule is in use, although Bolt has no active run of it: `skip` skips, and starts nothing."""
    first = asyncio.create_task(
        run_schedule("failing", credentials, retries=1, retry_delay_seconds=3600, return_state=True, **FLOW)
    )
    await asyncio.to_thread(
        workspace.wait_for,
        lambda bolt: bolt.runs() and not bolt.active_runs() and bolt.count("boltCommand"),
        30,
    )
    with use_timing(Timing(slot_dead_seconds=1.0)):
        state = await run_schedule(
            "failing", credentials, on_already_running="skip", return_state=True, **FLOW
        )
    assert state.name == "Skipped"
    assert "Another flow run in Prefect runs the schedule" in str(state.message)
    assert len(workspace.runs()) == 1
    assert "paradime-failing" in await artifacts_of(state.state_details.flow_run_id)
    assert not first.done()
    first.cancel()
    await asyncio.wait([first])
    assert len(workspace.runs()) == 1


async def test_the_slot_of_a_dead_flow_run_blocks_no_one(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Its lease is valid for a while after the kill, but Bolt has no run of the schedule that would justify `skip`."""
    run_id = workspace.start_run("quick")
    workspace.finish(run_id)
    schedule = BoltSchedule(schedule_name="quick", credentials=credentials)

    async def dead() -> None:
        async with schedule_slot(slot_name(schedule), DecisionLog(), wait_seconds=1.0):
            held.set()
            await asyncio.sleep(4)

    held = asyncio.Event()
    lease = asyncio.create_task(dead())
    await held.wait()
    result = await arun_schedule("quick", credentials, on_already_running="skip", **FLOW)
    assert result.state == "SUCCESS"
    assert result.run_id != run_id
    await lease


@pytest.mark.guarantee(
    "Cancelled in Prefect",
    "A script's flow run is cancelled while it is not waiting for its run",
    prefect="Cancelling, then Cancelled (for a flow of your own when Prefect writes it, five minutes later)",
    bolt="CANCELED within about 10 s",
    result="Nothing to do",
)
@pytest.mark.parametrize("above", [False, True], ids=["the flow run", "its parent"])
async def test_a_cancel_is_noticed_while_a_flow_does_something_else(
    workspace: BoltSimulator, credentials: ParadimeCredentials, above: bool
) -> None:
    """A script gets no message from Prefect, and no code of ours is waiting: the heartbeat finds the cancel."""

    @flow
    async def busy() -> None:
        await atrigger_bolt_run("endless", credentials)
        async with get_client() as client:
            flow_run = await client.read_flow_run(this_flow_run.id)
            *_, outermost = [one async for one in lineage(client, flow_run)]
            await client.set_flow_run_state(outermost.id, Cancelling(), force=True)
        await asyncio.to_thread(workspace.wait_for, lambda bolt: not bolt.active_runs(), 30)

    @flow
    async def parent() -> None:
        await busy()

    with use_timing(Timing(beat_seconds=0.5)):
        await (parent if above else busy)(return_state=True)
    assert [run.state for run in workspace.runs()] == ["CANCELED"]


@pytest.mark.parametrize("on_interrupt", ["cancel", "leave"])
@pytest.mark.parametrize("cancelled", [False, True], ids=["a signal alone", "the signal of a cancel"])
async def test_a_signal_means_the_same_in_any_thread(
    workspace: BoltSimulator,
    credentials: ParadimeCredentials,
    monkeypatch: pytest.MonkeyPatch,
    on_interrupt: Any,
    cancelled: bool,
) -> None:
    """It is a crash, and a run that is to be left can be resumed. It is a cancel only if a cancel caused it."""

    is_sent = False

    def one_signal(_: float) -> int:
        nonlocal is_sent
        if workspace.count("boltRunStatus") < 2:
            return 0
        if cancelled and not is_sent:
            is_sent = True
            with get_client(sync_client=True) as client:
                (flow_run,) = client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name]))
                )
                client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
        return 1

    monkeypatch.setattr(watch, "heard_since", one_signal)
    name = f"in a thread {workspace.api_endpoint}"
    named = run_schedule.with_options(flow_run_name=name)
    state = await asyncio.to_thread(
        lambda: named("endless", credentials, on_interrupt=on_interrupt, return_state=True, **FLOW)
    )
    (run,) = workspace.runs()
    left = on_interrupt == "leave" and not cancelled
    assert (state.is_cancelled(), state.is_crashed()) == (cancelled, not cancelled)
    assert run.state == ("RUNNING" if left else "CANCELED")
    async with get_client() as client:
        (record,) = read_records(await client.read_flow_run(state.state_details.flow_run_id))
    assert record.is_open is left
    assert record.on_crash == ("leave" if left else "cancel")


async def test_parallel_tasks_keep_each_others_tags(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Prefect replaces all tags of a flow run, and each task adds the tag of its schedule."""
    names = ["a", "b", "c", "d"]
    for name in names:
        bolt_simulator.add_schedule(name, commands=["dbt run"])

    @flow
    async def together() -> None:
        await asyncio.gather(*(atrigger_bolt_run(name, credentials) for name in names))

    await together()
    tags = set((await latest_flow_run("together")).tags)
    assert {schedule_tag(name) for name in names} <= tags
