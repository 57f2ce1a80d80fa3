"""Operations of newer backends, what an older backend gets instead, and the latest artifacts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from unittest.mock import AsyncMock

import pytest

from paradime_blocks import BoltRequestError, BoltRunState, BoltUnsupported
from paradime_blocks.models import BoltRunRecord
from paradime_blocks.testing import SimulatedCommand

if TYPE_CHECKING:
    from paradime_blocks.testing import BoltSimulator

MANIFEST = {"metadata": {"dbt_version": "1.9.4"}, "nodes": {}}


def add_daily(simulator: BoltSimulator, return_code: int | tuple[int, ...] = 0) -> None:
    """A schedule that writes a manifest and then runs tests."""
    simulator.add_schedule(
        "daily",
        commands=[
            SimulatedCommand("dbt run", resources={"target/manifest.json": json.dumps(MANIFEST)}),
            SimulatedCommand(
                "dbt test", return_code=return_code, resources={"target/run_results.json": "{}"}
            ),
        ],
    )


async def test_a_schedule_is_retried_from_its_latest_failure(simulator, client_of):
    """By `retryBoltRunFromFailure`."""
    add_daily(simulator, (1, 0))
    failed = simulator.start_run("daily")
    simulator.clock.advance(60)
    async with client_of(simulator) as client:
        run_id = await client.retry_bolt_schedule("daily")
    assert simulator.run(run_id).parent_run_id == failed
    assert simulator.count("retryBoltRunFromFailure") == 1


async def test_an_older_backend_retries_the_failed_run_by_id(simulator, client_of):
    """If the operation is missing, the newest failed run is retried by its id."""
    add_daily(simulator, (1, 0))
    failed = simulator.start_run("daily")
    simulator.clock.advance(60)
    simulator.lacks(operations=["retryBoltRunFromFailure"])
    async with client_of(simulator) as client:
        run_id = await client.retry_bolt_schedule("daily")
    assert simulator.run(run_id).parent_run_id == failed


async def test_a_schedule_without_a_failure_is_not_retried(simulator, client_of):
    """Neither a newer nor an older backend retries it, and nothing is started."""
    add_daily(simulator)
    simulator.start_run("daily")
    simulator.clock.advance(60)
    async with client_of(simulator) as client:
        with pytest.raises(BoltRequestError):
            await client.retry_bolt_schedule("daily")
        simulator.lacks(operations=["retryBoltRunFromFailure"])
        with pytest.raises(BoltRequestError, match="no failed run"):
            await client.retry_bolt_schedule("daily")
    assert len(simulator.runs()) == 1


async def test_a_backend_that_cannot_retry_says_what_it_lacks(simulator, client_of):
    """The error names the operation."""
    add_daily(simulator, 1)
    simulator.start_run("daily")
    simulator.clock.advance(60)
    simulator.lacks(operations=["retryBoltRunFromFailure", "retryBoltRun"])
    async with client_of(simulator) as client:
        with pytest.raises(BoltUnsupported, match="retryBoltRun"):
            await client.retry_bolt_schedule("daily")


async def test_a_schedule_is_suspended_and_resumed(simulator, client_of):
    """The timer's state shows in the schedule, and in filtered lists."""
    add_daily(simulator)
    simulator.add_schedule("other")
    async with client_of(simulator) as client:
        for suspend in (True, False):
            assert await client.suspend_bolt_schedule("daily", suspend=suspend)
            assert (await client.get_bolt_schedule("daily")).suspended is suspend
            page = await client.list_bolt_schedules(suspended=True)
            assert [schedule.name for schedule in page.schedules] == (["daily"] if suspend else [])


async def test_a_backend_that_cannot_filter_says_so(simulator, client_of):
    """An unfiltered page would look like a filtered one."""
    simulator.lacks(arguments=["listBoltSchedules.filter"])
    async with client_of(simulator) as client:
        with pytest.raises(BoltUnsupported, match="filter"):
            await client.list_bolt_schedules(suspended=True)


@pytest.mark.parametrize("older", [pytest.param(False, id="newer"), pytest.param(True, id="older backend")])
async def test_a_log_is_streamed_line_by_line_to_its_end(simulator, client_of, older):
    """Each line comes once and in order. The cursor is Bolt's or, on an older backend, our own."""
    out = "".join(f"line {number}\n" for number in range(10))
    simulator.add_schedule(
        "daily",
        commands=[SimulatedCommand("dbt run", duration_seconds=10, stdout=out, stderr="warn\n")],
        setup_commands=False,
    )
    run_id = simulator.start_run("daily")
    simulator.clock.advance(5)
    if older:
        simulator.lacks(operations=["boltCommandLogs"])
    seen = []
    async with client_of(simulator) as client:
        (command,) = (await client.get_bolt_run(run_id)).commands
        stream = client.stream_bolt_command_logs(command.id)
        async for line in stream:
            seen.append((line.stream, line.line))
            if len(seen) == 3:
                simulator.clock.advance(60)
    assert seen == [*(("STDOUT", f"line {number}\n") for number in range(10)), ("STDERR", "warn\n")]


async def test_an_invalid_cursor_is_refused(simulator, client_of):
    """Otherwise it would return the wrong part of the log."""
    simulator.lacks(operations=["boltCommandLogs"])
    add_daily(simulator)
    run_id = simulator.start_run("daily")
    simulator.clock.advance(60)
    async with client_of(simulator) as client:
        command = (await client.get_bolt_run(run_id)).commands[-1]
        with pytest.raises(BoltRequestError, match="cursor"):
            await client.get_bolt_command_logs(command.id, "lines:x")


async def test_the_latest_artifact_is_found_in_few_requests(simulator, client_of):
    """It takes three requests for any number of commands; the vendor's SDK sends one for each command."""
    add_daily(simulator)
    for _ in range(3):
        run_id = simulator.start_run("daily")
        simulator.clock.advance(60)
    async with client_of(simulator) as client:
        found = await client.find_latest_artifact("daily", "target/manifest.json")
        assert found.run_id == run_id
        assert len(simulator.requests) == 3
        assert await client.latest_manifest("daily") == MANIFEST
        assert await client.latest_artifact("daily", "target/run_results.json") == b"{}"
        assert (await client.latest_artifact_url("daily", "target/manifest.json")).startswith("http")


async def test_the_latest_artifact_may_be_from_an_older_run(simulator, client_of):
    """Failed commands and runs without the file are skipped."""
    simulator.add_schedule(
        "daily", commands=[SimulatedCommand("dbt run", return_code=(0, 1), resources={"target/a.json": "{}"})]
    )
    first = simulator.start_run("daily")
    simulator.clock.advance(60)
    for _ in range(5):
        simulator.start_run("daily")
        simulator.clock.advance(60)
    async with client_of(simulator) as client:
        assert (await client.find_latest_artifact("daily", "target/a.json")).run_id == first
        with pytest.raises(BoltRequestError, match="has the file"):
            await client.find_latest_artifact("daily", "target/a.json", max_runs=5)


async def test_the_latest_artifact_is_found_although_a_run_is_missing(simulator, client_of, monkeypatch):
    """A missing run is skipped; if nothing is found, the error says that this run was not searched."""
    add_daily(simulator)
    run_id = simulator.start_run("daily")
    simulator.clock.advance(60)
    async with client_of(simulator) as client:
        gone = BoltRunRecord(id=999_999, state=BoltRunState.SUCCESS)
        runs = [gone, *await client.latest_bolt_runs("daily")]
        monkeypatch.setattr(client, "latest_bolt_runs", AsyncMock(return_value=runs))
        assert (await client.find_latest_artifact("daily", "target/manifest.json")).run_id == run_id
        with pytest.raises(BoltRequestError, match=r"1 of the runs could not be read.*999999"):
            await client.find_latest_artifact("daily", "target/nothing.json")


@pytest.mark.parametrize(
    "index, found",
    [
        pytest.param(2, True, id="the command"),
        pytest.param(-2, True, id="counted from the last"),
        pytest.param(3, False, id="another"),
        pytest.param(9, False, id="none"),
    ],
)
async def test_the_search_can_be_limited_to_one_command(simulator, client_of, index, found):
    """`command_index` counts all commands of a run, including Bolt's own two."""
    add_daily(simulator)
    simulator.start_run("daily")
    simulator.clock.advance(60)
    async with client_of(simulator) as client:
        call = client.find_latest_artifact("daily", "target/manifest.json", command_index=index)
        if found:
            assert (await call).path == "target/manifest.json"
        else:
            with pytest.raises(BoltRequestError):
                await call


async def test_an_older_backend_shows_the_latest_runs_artifact(simulator, client_of):
    """Without a list of runs it uses `latestRunId`; without aliases, single queries."""
    add_daily(simulator)
    run_id = simulator.start_run("daily")
    simulator.clock.advance(60)
    simulator.lacks(operations=["listBoltRuns"], aliases=True)
    async with client_of(simulator) as client:
        assert (await client.find_latest_artifact("daily", "target/manifest.json")).run_id == run_id
        runs = await client.latest_bolt_runs("daily")
    assert [(run.id, run.state) for run in runs] == [(run_id, BoltRunState.SUCCESS)]


async def test_a_schedule_without_a_run_has_no_artifact(simulator, client_of):
    """The error says so."""
    add_daily(simulator)
    async with client_of(simulator) as client:
        with pytest.raises(BoltRequestError, match="no run"):
            await client.latest_manifest("daily")


@pytest.mark.parametrize("older", [pytest.param(False, id="newer"), pytest.param(True, id="older backend")])
async def test_the_schedule_of_a_run_is_found(simulator, client_of, older):
    """Bolt does not return it with a run; sixty schedules take two requests."""
    for number in range(60):
        simulator.add_schedule(f"s{number}")
    run_id = simulator.start_run("s42")
    if older:
        simulator.lacks(operations=["listBoltRuns"])
    async with client_of(simulator) as client:
        assert await client.find_schedule_of_run(run_id) == "s42"
        if not older:
            assert len(simulator.requests) == 2
        assert await client.find_schedule_of_run(1) is None


async def test_the_newest_runs_of_all_schedules_are_one_request(simulator, client_of):
    """A run does not say to which schedule it belongs; newest first, as for one schedule."""
    simulator.add_schedule("daily")
    simulator.add_schedule("hourly")
    ids = [simulator.start_run(name) for name in ("daily", "hourly", "daily")]
    async with client_of(simulator) as client:
        page = await client.list_bolt_runs(None, limit=2)
        rest = await client.list_bolt_runs(None, offset=2)
    assert [run.id for run in page.runs] == ids[:0:-1]
    assert [run.id for run in rest.runs] == ids[:1]
    assert simulator.count("listBoltRuns") == 2


async def test_the_runs_of_each_schedule_are_read_together(simulator, client_of):
    """One request for the schedules, and one for their runs."""
    for name in ("daily", "hourly", "idle"):
        simulator.add_schedule(name)
    first, second = simulator.start_run("daily"), simulator.start_run("hourly")
    async with client_of(simulator) as client:
        found = await client.runs_of_schedules(limit=5)
    assert {name: [run.id for run in runs] for name, runs in found.items()} == {
        "daily": [first],
        "hourly": [second],
        "idle": [],
    }
    assert len(simulator.requests) == 2


async def test_a_backend_without_a_list_of_runs_shows_the_latest_of_each_schedule(simulator, client_of):
    """Its state is not known then: `boltScheduleName` has only the id."""
    simulator.add_schedule("daily")
    run_ids = [simulator.start_run("daily") for _ in range(2)]
    simulator.lacks(operations=["listBoltRuns"])
    async with client_of(simulator) as client:
        (run,) = (await client.runs_of_schedules(limit=5))["daily"]
    assert (run.id, run.state.is_terminal) == (run_ids[-1], False)


async def test_the_runs_of_many_commands_cost_one_request(simulator, client_of):
    """A webhook names only commands. A command that Bolt does not know hides no other."""
    add_daily(simulator)
    run_ids = [simulator.start_run("daily"), simulator.start_run("daily")]
    simulator.clock.advance(60)
    commands = {simulator.run(run_id).commands[-1].id: run_id for run_id in run_ids}
    async with client_of(simulator) as client:
        assert await client.get_runs_of_commands([*commands]) == commands
        assert simulator.count("boltCommand") == 1
        errors = {}
        assert await client.get_runs_of_commands([*commands, 987654], errors=errors) == commands
        assert [*errors] == [987654]
        with pytest.raises(BoltRequestError, match="987654"):
            await client.get_runs_of_commands([987654])
