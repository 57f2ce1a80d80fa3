"""The task runs in the timeline of a flow run: one for each part of the work, and one for each Bolt command."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prefect import flow
from prefect.client.base import PrefectHttpxAsyncClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId
from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun
from prefect.logging.handlers import APILogHandler
from prefect.states import Cancelling, Crashed, Failed, Running
from recorded import recorded_commands
from support.prefect_api import latest_flow_run, logs_of

from paradime_blocks import BoltRunFailed, BoltRunTimedOut
from paradime_blocks.testing import SimulatedCommand
from paradime_flows.archive_run import aarchive_run
from paradime_flows.cancel_run import acancel_run
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.prefect_api.task_runs import show_work
from paradime_flows.retry_run import aretry_run
from paradime_flows.run_schedule import arun_schedule, run_schedule
from paradime_flows.tasks import atrigger_bolt_run, await_for_bolt_run
from paradime_flows.trigger_only import atrigger_only

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    import httpx
    from prefect.client.schemas.objects import State, TaskRun

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5}
ORDERS_FAIL = (
    "Running with dbt=1.9.4\nDatabase Error in model orders (models/orders.sql)\n  no such table: raw\n"
)


async def timeline_of(
    flow_run_id: UUID, until: Callable[[list[TaskRun]], bool] = lambda found: True
) -> list[TaskRun]:
    """Return the task runs of a flow run in the order of their beginning. Their states arrive as events, so wait."""
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    found: list[TaskRun] = []
    async with get_client() as client:
        for _ in range(150):
            found = await client.read_task_runs(flow_run_filter=wanted)
            found = sorted(found, key=lambda one: str(one.start_time))
            if until(found):
                break
            await asyncio.sleep(0.2)
    return found


def all_ended(*names: str) -> Callable[[list[TaskRun]], bool]:
    """Whether the task runs with these names, and all others, have ended."""

    def ended(found: list[TaskRun]) -> bool:
        return {*names} <= {one.name for one in found} and all(
            one.state is not None and one.state.is_final() for one in found
        )

    return ended


def shown(found: list[TaskRun]) -> list[tuple[str, str]]:
    """Return the name and the state of each task run."""
    return [(one.name, one.state_name or "") for one in found]


async def messages_of(task_run: TaskRun) -> list[str]:
    """Return the log of a task run."""
    await APILogHandler.aflush()
    assert task_run.flow_run_id is not None
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[task_run.flow_run_id]))
    async with get_client() as client:
        return [log.message for log in await client.read_logs(wanted) if log.task_run_id == task_run.id]


async def test_each_part_of_the_work_is_a_task_run(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A command's task run has the command's log, and does not begin before the command."""
    bolt_simulator.clock.speed = 4
    bolt_simulator.add_schedule("daily", commands=["dbt build --select orders"])
    result = await arun_schedule("daily", credentials, **QUICK)
    names = [
        "trigger daily",
        f"wait for {result.run_id}",
        "1 git clone https://git.example.com/acme/jaffle-shop.git",
        "2 dbt deps",
        "3 dbt build --select orders",
        "archive",
    ]
    found = await timeline_of((await latest_flow_run("run-schedule")).id, all_ended(*names))
    assert shown(found) == [(name, "Completed") for name in names]
    build = found[4]
    assert any("Running with dbt" in message for message in await messages_of(build))
    assert build.state is not None
    assert str(build.state.message).startswith("Return code 0 after ")
    assert f"Bolt run {result.run_id} was started." in await messages_of(found[0])


async def test_a_failed_command_shows_dbts_error_and_a_retry_begins_anew(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    bolt_simulator.clock.speed = 60
    failing = SimulatedCommand("dbt run", return_code=(1, 0), stdout=ORDERS_FAIL, resources={})
    bolt_simulator.add_schedule("daily", commands=[failing, "dbt test"], setup_commands=False)
    result = await arun_schedule("daily", credentials, retries=1, retry_delay_seconds=0, **QUICK)
    found = await timeline_of((await latest_flow_run("run-schedule")).id, all_ended("archive"))
    first, second = (attempt.run_id for attempt in result.attempts)
    assert shown(found) == [
        ("trigger daily", "Completed"),
        (f"wait for {first}", "Failed"),
        ("1 dbt run", "Failed"),
        (f"retry {first}", "Completed"),
        (f"wait for {second}", "Completed"),
        ("1 dbt retry", "Completed"),
        ("2 dbt test", "Completed"),
        ("archive", "Completed"),
    ]
    state = found[2].state
    assert state is not None
    assert state.message == "Database Error in model orders (models/orders.sql) no such table: raw"
    log = "\n".join(await messages_of(found[2]))
    assert "Database Error in model orders" in log
    assert "Traceback" not in log


async def test_a_commands_task_run_lasts_as_long_as_the_command(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A cancel of the flow run ends the running command's task run, and the wait's."""
    running = asyncio.create_task(arun_schedule("endless", credentials, return_state=True, **QUICK))
    await asyncio.to_thread(workspace.wait_for, lambda bolt: bolt.count("boltRunStatus") >= 2, 30)
    flow_run = await latest_flow_run("run-schedule")
    found = await timeline_of(flow_run.id, lambda found: ("1 dbt run", "Running") in shown(found))
    assert [name for name, state in shown(found) if state == "Running"] == [found[1].name, "1 dbt run"]
    async with get_client() as client:
        await client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
    await running
    found = await timeline_of(flow_run.id, all_ended("1 dbt run"))
    assert [state for _, state in shown(found)] == ["Completed", "Cancelled", "Cancelled"]


async def test_a_time_limit_ends_the_task_runs(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The flow run's state and its log have the error, and no traceback."""
    with pytest.raises(BoltRunTimedOut):
        await arun_schedule("endless", credentials, timeout_seconds=1, **QUICK)
    flow_run = await latest_flow_run("run-schedule")
    assert flow_run.state is not None
    assert str(flow_run.state.message).startswith("Schedule 'endless': The Bolt run did not end within 1 s; ")
    await APILogHandler.aflush()
    assert not [message for message in await logs_of(flow_run.id) if "Traceback" in message]
    found = await timeline_of(flow_run.id, all_ended("archive"))
    assert [state for _, state in shown(found)] == ["Completed", "Failed", "Cancelled", "Completed"]


async def test_a_skipped_trigger_is_shown_as_skipped(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    workspace.start_run("endless")
    await arun_schedule("endless", credentials, on_already_running="skip", return_state=True, **QUICK)
    found = await timeline_of((await latest_flow_run("run-schedule")).id, all_ended("trigger endless"))
    assert shown(found) == [("trigger endless", "Skipped")]


async def test_the_timeline_of_a_retry_names_the_retried_run(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    failed = workspace.start_run("once")
    workspace.finish(failed, "FAILED")
    await aretry_run(failed, credentials, schedule_name="once", **QUICK)
    found = await timeline_of((await latest_flow_run("retry-run")).id, all_ended("archive"))
    assert shown(found)[0] == (f"retry {failed}", "Completed")


async def test_the_task_that_waits_shows_the_commands(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    @flow
    async def nightly() -> None:
        run_id = await atrigger_bolt_run("failing", credentials)
        await await_for_bolt_run(run_id, credentials, **QUICK)

    with pytest.raises(BoltRunFailed):
        await nightly()
    found = await timeline_of((await latest_flow_run("nightly")).id, all_ended("1 dbt run"))
    assert [name.split()[0] for name, _ in shown(found)] == ["trigger", "wait", "1"]
    assert [state for _, state in shown(found)] == ["Completed", "Failed", "Failed"]
    assert any("dbt" in message for message in await messages_of(found[2]))


async def test_an_archived_run_shows_its_commands_and_their_past(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    run_id = workspace.start_run("failing")
    workspace.finish(run_id, "FAILED")
    await aarchive_run(run_id, credentials, schedule_name="failing")
    found = await timeline_of((await latest_flow_run("archive-run")).id, all_ended("archive"))
    assert [name for name, _ in shown(found)] == ["1 dbt run", "archive"]
    assert [state for _, state in shown(found)][1] == "Completed"


async def test_the_flows_for_one_operation_show_it(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    triggered = await atrigger_only("endless", credentials)
    found = await timeline_of((await latest_flow_run("trigger-only")).id, all_ended("trigger endless"))
    assert shown(found) == [("trigger endless", "Completed")]
    await acancel_run(triggered.run_id, credentials, schedule_name="endless")
    found = await timeline_of((await latest_flow_run("cancel-run")).id, all_ended("archive"))
    assert shown(found) == [(f"cancel {triggered.run_id}", "Completed"), ("archive", "Completed")]


async def test_dbts_nodes_can_be_shown_failed_and_slowest_first(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    bolt_simulator.clock.speed = 60
    bolt_simulator.add_schedule("daily", commands=recorded_commands("failure"), setup_commands=False)
    with pytest.raises(BoltRunFailed):
        await arun_schedule("daily", credentials, node_task_runs=4, **QUICK)
    found = await timeline_of((await latest_flow_run("run-schedule")).id, all_ended("archive"))
    nodes = found[-4:]
    assert [state for _, state in shown(nodes)] == ["Failed", "Failed", "Failed", "Warned"]
    assert shown(nodes)[0][0].startswith("model revenue ")


@pytest.mark.parametrize(
    "ended, then", [(Failed(), "Running"), (Crashed(), "Crashed")], ids=["failed", "crashed"]
)
async def test_the_hook_ends_no_task_run_of_a_flow_run_that_failed(ended: State[Any], then: str) -> None:
    """Prefect may still show as Running what the flow run has ended: the states of task runs arrive later."""
    async with get_client() as client:
        flow_run = await client.create_flow_run(run_schedule, parameters={"schedule_name": "daily"})
        task_run = await client.create_task_run(show_work, flow_run.id, dynamic_key="1", state=Running())
        await client.set_flow_run_state(flow_run.id, ended, force=True)
        await cancel_owned_runs(run_schedule, flow_run, ended)
        assert (await client.read_task_run(task_run.id)).state_name == then


async def test_task_runs_cost_no_request(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect gets the states of task runs as events. A busy machine may send a few more polls and heartbeats."""
    commands = 12
    bolt_simulator.clock.speed = 1000
    bolt_simulator.add_schedule("daily", commands=["dbt run"] * commands, setup_commands=False)
    sent: list[str] = []
    send = PrefectHttpxAsyncClient.send

    async def counted(
        self: PrefectHttpxAsyncClient, request: httpx.Request, *args: Any, **kwargs: Any
    ) -> Any:
        sent.append(f"{request.method} {request.url.path}")
        return await send(self, request, *args, **kwargs)

    monkeypatch.setattr(PrefectHttpxAsyncClient, "send", counted)
    counts = []
    for command_task_runs in (False, True, False):
        del sent[:]
        await arun_schedule(
            "daily",
            credentials,
            live_logs="off",
            one_at_a_time=False,
            command_task_runs=command_task_runs,
            **QUICK,
        )
        assert not [each for each in sent if "task_runs" in each]
        counts.append(len(sent))
    # The first flow run also opens connections and creates the flow.
    assert counts[1] < counts[2] + commands / 2
    found = await timeline_of((await latest_flow_run("run-schedule")).id, all_ended("archive"))
    assert [name.split()[0] for name, _ in shown(found)] == ["trigger", "wait", "archive"]


async def test_a_cancelled_task_ends_the_task_runs_of_the_commands(
    workspace: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    @flow
    async def nightly() -> None:
        run_id = await atrigger_bolt_run("endless", credentials)
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        flow_run_id = context.flow_run.id

        async def cancel() -> None:
            await timeline_of(flow_run_id, lambda found: ("1 dbt run", "Running") in shown(found))
            async with get_client() as client:
                await client.set_flow_run_state(flow_run_id, Cancelling(), force=True)

        cancelling = asyncio.create_task(cancel())
        with pytest.raises(CancelledRun):
            await await_for_bolt_run(run_id, credentials, **QUICK)
        await cancelling

    await nightly(return_state=True)
    found = await timeline_of((await latest_flow_run("nightly")).id, all_ended("1 dbt run"))
    assert shown(found)[-1] == ("1 dbt run", "Cancelled")
