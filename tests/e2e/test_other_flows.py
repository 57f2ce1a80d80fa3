"""The flows for people: `trigger_only`, `retry_run`, `cancel_run`, `inspect_run`, `list_schedules`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from prefect import tags
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow_async
from prefect.states import Cancelled, Crashed
from support.prefect_api import artifacts_of, latest_flow_run

from paradime_blocks import (
    BoltAlreadyRunning,
    BoltRequestError,
    BoltRunFailed,
    BoltRunState,
    ParadimeCredentials,
)
from paradime_blocks.testing import SimulatedCommand, faults
from paradime_flows.cancel_run import acancel_run, cancel_run
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.inspect_run import ainspect_run, inspect_run
from paradime_flows.ledger.record import read_records
from paradime_flows.list_schedules import alist_schedules, list_schedules
from paradime_flows.prefect_api.labels import FLOW_RUN_TAG
from paradime_flows.retry_run import aretry_run, retry_run
from paradime_flows.run_schedule import arun_schedule, run_schedule
from paradime_flows.sweep_orphans import asweep_orphans
from paradime_flows.trigger_only import atrigger_only, trigger_only

if TYPE_CHECKING:
    from paradime_blocks.testing import BoltSimulator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5, "live_logs": "off"}
LONG = SimulatedCommand("dbt run", duration_seconds=100_000)


def broken(
    simulator: BoltSimulator, code: int | tuple[int, ...] = (1, 0), log: str = "Database Error"
) -> None:
    """A schedule whose second command fails the first time."""
    simulator.clock.speed = 60
    simulator.add_schedule(
        "broken",
        commands=["dbt seed", SimulatedCommand("dbt run", return_code=code, stdout=f"{log}\n"), "dbt test"],
    )


@pytest.mark.parametrize(
    "given, name",
    [
        ("Month's end", "Month's end"),
        ("report-7", "report-7"),
        ("brave-otter", "daily"),
        ("chi779-dalton", "daily"),
        ("Small-Central Ranges Taipan", "daily"),
    ],
)
async def test_a_flow_run_keeps_the_name_that_a_person_has_given(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, given: str, name: str
) -> None:
    """If Prefect or one of its forms has made up the name, the flow run gets the name of its schedule."""
    bolt_simulator.clock.speed = 1000
    bolt_simulator.add_schedule("daily", commands=["dbt run"], setup_commands=False)
    parameters = {"schedule_name": "daily", "credentials": credentials, **QUICK}
    async with get_client() as client:
        flow_run = await client.create_flow_run(run_schedule, name=given)
        await run_flow_async(run_schedule, flow_run=flow_run, parameters=parameters)
        assert (await client.read_flow_run(flow_run.id)).name == name


# trigger_only


async def test_a_run_of_trigger_only_is_never_cancelled(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, swept_tag: str
) -> None:
    """Neither the hook nor the sweeper cancels it, whatever happens to the flow run."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    with tags(swept_tag):
        found = await atrigger_only("daily", credentials, branch="dev")
    (run,) = bolt_simulator.active_runs()
    assert (found.run_id, found.schedule_name, found.started) == (run.id, "daily", True)
    assert run.branch == "dev"
    flow_run = await latest_flow_run("trigger-only")
    (record,) = read_records(flow_run)
    assert (record.run_id, record.is_open) == (run.id, False)
    assert {FLOW_RUN_TAG, swept_tag} <= set(flow_run.tags)
    for state in (Crashed(), Cancelled()):
        await cancel_owned_runs(trigger_only, flow_run, state)
    async with get_client() as client:
        await client.set_flow_run_state(flow_run.id, Crashed(), force=True)
    await asweep_orphans(credentials, older_than_seconds=0)
    assert bolt_simulator.run(run.id).is_active


async def test_trigger_only_searches_for_the_run_of_a_lost_answer(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The run is found, and no second run is started."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    bolt_simulator.inject(faults.CutConnection(operation="triggerBoltRun", after_acting=True))
    found = await atrigger_only("daily", credentials)
    assert [run.id for run in bolt_simulator.runs()] == [found.run_id]


async def test_trigger_only_while_the_schedule_is_running(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """It fails by default, and returns that run with `attach`."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    with pytest.raises(BoltAlreadyRunning):
        await atrigger_only("daily", credentials)
    for policy in ("attach", "skip"):
        found = await atrigger_only("daily", credentials, on_already_running=policy)
        assert (found.run_id, found.started) == (run_id, False)


def test_sync_code_triggers_only(bolt_simulator: BoltSimulator, credentials: ParadimeCredentials) -> None:
    """The schedule can also be named by its slug."""
    bolt_simulator.add_schedule("Daily run", slug="daily-run", commands=[LONG])
    assert trigger_only("daily-run", credentials).started


# The other options of a trigger


async def test_the_reason_names_the_flow_run_that_triggers(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The reason names it, unless another reason is given; the other options arrive unchanged."""
    bolt_simulator.add_schedule("daily", commands=["dbt run", "dbt test"], already_running="allow")
    await atrigger_only("daily", credentials)
    name = (await latest_flow_run("trigger-only")).name
    await atrigger_only(
        "daily",
        credentials,
        reason="because",
        pr_number=7,
        commands=[{"command": "dbt test", "continue_on_error": True}],
    )
    first, second = bolt_simulator.runs()
    assert first.reason is not None
    assert f"flow run {name}" in first.reason
    assert (second.reason, second.pr_number, second.planned_commands[-1]) == ("because", 7, "dbt test")


async def test_an_older_backend_is_triggered_without_a_reason(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A validation error proves that nothing ran, so the trigger is sent again without the reason: one run."""
    bolt_simulator.lacks(arguments=["triggerBoltRun.reason"])
    bolt_simulator.add_schedule("daily", commands=[LONG])
    await atrigger_only("daily", credentials)
    (run,) = bolt_simulator.runs()
    assert run.reason is None


# Retries


async def test_a_failure_that_a_person_must_fix_is_not_retried(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """These are compilation errors and the like by default, or those in `non_retryable_errors`."""
    broken(bolt_simulator, log="Compilation Error in model orders")
    with pytest.raises(BoltRunFailed):
        await arun_schedule("broken", credentials, retries=2, retry_delay_seconds=0, **QUICK)
    assert len(bolt_simulator.runs()) == 1
    result = await arun_schedule(
        "broken", credentials, retries=2, retry_delay_seconds=0, non_retryable_errors=["quota"], **QUICK
    )
    assert result.state == BoltRunState.SUCCESS


@pytest.mark.parametrize("older", [pytest.param(False, id="newer"), pytest.param(True, id="older backend")])
async def test_a_run_is_retried_from_its_failure(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, older: bool
) -> None:
    """`retry_run` finds the schedule. On an older backend it triggers the failed command and those after it."""
    broken(bolt_simulator)
    failed = bolt_simulator.start_run("broken", reason="first")
    bolt_simulator.clock.advance(60)
    if older:
        bolt_simulator.lacks(operations=["retryBoltRun", "retryAllBoltRun"])
    result = await aretry_run(failed, credentials, **QUICK)
    run = bolt_simulator.run(result.run_id)
    assert (result.state, result.schedule_name) == (BoltRunState.SUCCESS, "broken")
    assert run.parent_run_id == (None if older else failed)
    commands = [command.command for command in run.commands]
    assert commands[-2:] == (["dbt run", "dbt test"] if older else ["dbt retry", "dbt test"])
    assert "dbt seed" not in commands


async def test_a_run_is_retried_as_a_whole(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """`everything` runs all commands again, even those of a successful run."""
    broken(bolt_simulator, code=0)
    done = bolt_simulator.start_run("broken")
    bolt_simulator.clock.advance(60)
    result = await aretry_run(done, credentials, everything=True, **QUICK)
    commands = [command.command for command in bolt_simulator.run(result.run_id).commands]
    assert commands == ["dbt seed", "dbt run", "dbt test"]


def test_a_run_without_a_known_schedule_is_not_retried(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The error asks for the schedule's name; nothing is sent."""
    broken(bolt_simulator)
    with pytest.raises(BoltRequestError, match="Give the schedule_name"):
        retry_run(1, credentials, **QUICK)
    assert bolt_simulator.count("retryBoltRun") == 0


# Inspecting and cancelling


@pytest.mark.parametrize("sync", [False, True])
async def test_a_run_is_cancelled_and_archived(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, sync: bool
) -> None:
    """The flow ends when the run has ended; a second cancel reports that it had already ended."""
    import asyncio

    bolt_simulator.add_schedule("daily", commands=[LONG])
    run_id = bolt_simulator.start_run("daily")
    if sync:
        result = await asyncio.to_thread(cancel_run, run_id, credentials)
    else:
        result = await acancel_run(run_id, credentials)
    assert result.state == BoltRunState.CANCELED
    assert bolt_simulator.active_runs() == []
    assert "paradime-daily" in await artifacts_of((await latest_flow_run("cancel-run")).id)
    state = await cancel_run(run_id, credentials, return_state=True)
    assert (state.name, (await state.aresult()).state) == ("AlreadyEnded", BoltRunState.CANCELED)


async def test_inspect_run_shows_the_present_state(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """One page has its state, its commands, the ends of their logs and their files. A failed run fails no flow."""
    broken(bolt_simulator, log="Database Error ```")
    run_id = bolt_simulator.start_run("broken")
    bolt_simulator.clock.advance(60)
    result = await ainspect_run(run_id, credentials)
    assert (result.state, result.schedule_name) == (BoltRunState.FAILED, "broken")
    assert [command.return_code for command in result.commands][-1] == 1
    artifacts = await artifacts_of((await latest_flow_run("inspect-run")).id)
    page = str(artifacts[f"paradime-inspect-{run_id}"].data)
    assert "dbt run" in page
    assert "Database Error ```" in page


async def test_a_run_is_shown_without_secrets_and_within_bounds(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """No page and no result has tokens or signatures; of a long log it shows the end; files are listed."""
    secret = bolt_simulator.api_secret
    log = (
        f"SECRET={secret}\nhttps://s3.test/x?X-Amz-Signature=abcdef\n" + "y" * 300_000 + "\nERROR: it broke\n"
    )
    clone = SimulatedCommand("git clone https://bot:hunter2-token@git.example.com/x.git", stdout=secret)
    copy = SimulatedCommand("copy", return_code=1, stdout=log, resources={"target/manifest.json": b"{}"})
    bolt_simulator.add_schedule("hush", commands=[clone, copy], setup_commands=False)
    run_id = bolt_simulator.start_run("hush")
    bolt_simulator.clock.advance(1000)
    bolt_simulator.inject(faults.GraphQLError(f"no {secret}", operation="listBoltSchedules", times=None))
    result = await ainspect_run(run_id, credentials)
    artifacts = await artifacts_of((await latest_flow_run("inspect-run")).id)
    page = str(artifacts[f"paradime-inspect-{run_id}"].data)
    shown = page + result.model_dump_json()
    assert [part for part in (secret, "abcdef", "hunter2") if part in shown] == []
    assert "ERROR: it broke" in page.split("\n\n")[1]
    assert "the end of 300," in page
    assert len(page) < 50_000
    # A failed search for the schedule's name hides nothing else.
    assert "target/manifest.json" in page.split("## Files")[1]
    assert [resource.path for resource in result.resources] == ["target/manifest.json"]
    assert "the schedule: Bolt could not answer" in page


def test_sync_code_inspects_a_run(bolt_simulator: BoltSimulator, credentials: ParadimeCredentials) -> None:
    """An active run can be inspected too."""
    bolt_simulator.add_schedule("daily", commands=[LONG])
    assert inspect_run(bolt_simulator.start_run("daily"), credentials).state == BoltRunState.RUNNING


async def test_schedules_are_listed_with_those_that_need_a_look_first(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """The table artifact has overdue schedules first, then failing ones, then the rest by name."""
    bolt_simulator.add_schedule("fine", cron="*/15 * * * *", owner="ann@example.com")
    bolt_simulator.add_schedule("bad", commands=[SimulatedCommand("dbt run", return_code=1)])
    bolt_simulator.add_schedule("resting", suspended=True)
    bolt_simulator.start_run("bad")
    bolt_simulator.clock.advance(60)
    found = await alist_schedules(credentials)
    assert [schedule.name for schedule in found] == ["bad", "fine", "resting"]
    assert (found[0].failing, found[1].timer, found[2].suspended) == (
        True,
        "Every 15th minute of every hour",
        True,
    )
    artifacts = await artifacts_of((await latest_flow_run("list-schedules")).id)
    rows = json.loads(str(artifacts["paradime-schedules"].data))
    assert rows[0]["Schedule"] == "bad"
    assert rows[0]["Last state"] == "FAILED"
    assert rows[1]["Owner"] == "ann@example.com"
    assert [schedule.name for schedule in await alist_schedules(credentials, suspended=True)] == ["resting"]


def test_sync_code_lists_schedules(bolt_simulator: BoltSimulator, credentials: ParadimeCredentials) -> None:
    """An overdue schedule comes first: its next run is in the past."""
    bolt_simulator.add_schedule("a")
    (found,) = list_schedules(credentials, owner="data-team")
    assert not found.overdue
    assert list_schedules(credentials, owner="nobody") == []
