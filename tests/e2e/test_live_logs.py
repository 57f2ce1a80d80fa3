"""Live logs and progress of `run_schedule`, read back through Prefect's API."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.logging.handlers import APILogHandler
from support.prefect_api import artifacts_of, latest_flow_run

from paradime_blocks import BoltRunFailed
from paradime_blocks.testing import SimulatedCommand, faults
from paradime_flows.run_schedule import arun_schedule, run_schedule

if TYPE_CHECKING:
    from prefect.client.schemas.objects import Log

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

RECORDED = Path(__file__).parent.parent / "fixtures" / "dbt" / "recorded"
QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5}
BACKENDS = [pytest.param((), id="cursors"), pytest.param(("boltCommandLogs",), id="run-status")]


def numbered(count: int, word: str = "line") -> str:
    return "".join(f"{word} {n} of the output\n" for n in range(count))


async def records_of(flow_run_id: Any) -> list[Log]:
    """All log records of a flow run, by time."""
    # Prefect's own records may still be on their way.
    await APILogHandler.aflush()
    found: list[Log] = []
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
    async with get_client() as client:
        while page := await client.read_logs(log_filter=wanted, limit=200, offset=len(found)):
            found += page
    return sorted(found, key=lambda log: log.timestamp)


async def lines_of(flow_run_id: Any, word: str) -> list[str]:
    """The lines of the log that begin so."""
    lines = [line for record in await records_of(flow_run_id) for line in record.message.split("\n")]
    return [line for line in lines if line.startswith(word)]


@pytest.mark.parametrize("lacking", BACKENDS)
async def test_each_line_reaches_the_flow_runs_log_once_and_in_order(bolt_simulator, credentials, lacking):
    """Two commands with both streams, while the run goes on; stderr is a warning."""
    bolt_simulator.lacks(operations=lacking)
    bolt_simulator.clock.speed = 5
    first, second, err = numbered(1500, "first"), numbered(40, "second"), numbered(30, "err")
    commands = [
        SimulatedCommand("dbt seed", duration_seconds=8, stdout=first),
        SimulatedCommand("dbt run", duration_seconds=8, stdout=second, stderr=err),
    ]
    bolt_simulator.add_schedule("live", commands=commands, setup_commands=False)
    await arun_schedule("live", credentials, **QUICK)
    flow_run = await latest_flow_run("run-schedule")
    assert await lines_of(flow_run.id, "first") == first.splitlines()
    assert await lines_of(flow_run.id, "second") == second.splitlines()
    assert await lines_of(flow_run.id, "err") == err.splitlines()
    records = await records_of(flow_run.id)
    assert {record.level for record in records if record.message.startswith("err ")} == {logging.WARNING}
    places = [
        n for n, record in enumerate(records) for word in ("first 0 ", "second 0 ") if word in record.message
    ]
    ended = next(n for n, record in enumerate(records) if "is SUCCESS" in record.message)
    # It was there before the end, in the order of the commands.
    assert places == sorted(places)
    assert places[0] < ended


async def test_real_dbt_output_keeps_its_levels_and_moves_the_progress(bolt_simulator, credentials):
    """A recorded build that failed: its errors are errors; the artifact moved, and stays short of 100."""
    bolt_simulator.clock.speed = 5
    stdout = (RECORDED / "failure/4-dbt-build/stdout.txt").read_text(encoding="utf-8")
    command = SimulatedCommand("dbt build", duration_seconds=15, return_code=1, stdout=stdout)
    bolt_simulator.add_schedule("recorded", commands=[command, "dbt docs generate"])
    with pytest.raises(BoltRunFailed):
        await arun_schedule("recorded", credentials, **QUICK)
    flow_run = await latest_flow_run("run-schedule")
    records = await records_of(flow_run.id)
    level = {line: record.level for record in records for line in record.message.split("\n")}
    assert next(level[line] for line in level if "10 of 19 ERROR" in line) == logging.ERROR
    assert next(level[line] for line in level if "18 of 19 WARN" in line) == logging.WARNING
    assert next(level[line] for line in level if "1 of 19 START" in line) == logging.INFO
    assert not any("\x1b" in line for line in level)
    artifact = (await artifacts_of(flow_run.id))["paradime-progress-recorded"]
    assert artifact.type == "progress"
    assert artifact.data == 50.0
    (run,) = bolt_simulator.runs("recorded")
    assert str(run.id) in artifact.description
    assert "dbt build" in artifact.description


async def test_the_progress_artifact_is_created_once_and_ends_at_100(
    bolt_simulator, credentials, monkeypatch
):
    """It moves while the run goes on, without ever going back."""
    from prefect.client.orchestration import PrefectClient

    created: list[Any] = []
    updated: list[Any] = []
    create, update = PrefectClient.create_artifact, PrefectClient.update_artifact

    async def count_create(self: Any, artifact: Any) -> Any:
        if artifact.type == "progress":
            created.append(artifact.data)
        return await create(self, artifact)

    async def count_update(self: Any, artifact_id: Any, artifact: Any) -> Any:
        if isinstance(artifact.data, float):
            updated.append(artifact.data)
        return await update(self, artifact_id, artifact)

    monkeypatch.setattr(PrefectClient, "create_artifact", count_create)
    monkeypatch.setattr(PrefectClient, "update_artifact", count_update)
    bolt_simulator.clock.speed = 1
    stdout = "".join(f"12:00:00  {n} of 40 OK created m{n} [OK in 0.1s]\n" for n in range(1, 41))
    bolt_simulator.add_schedule(
        "progress",
        commands=[SimulatedCommand("dbt run", duration_seconds=6, stdout=stdout)],
        setup_commands=False,
    )
    await arun_schedule("progress", credentials, **QUICK)
    flow_run = await latest_flow_run("run-schedule")
    artifact = (await artifacts_of(flow_run.id))["paradime-progress-progress"]
    assert artifact.data == 100.0
    assert len(created) == 1
    assert updated == sorted(updated)
    # A run of six seconds, an update every two seconds at most, and one at the end.
    assert 2 <= len(updated) <= 4
    assert 0 < updated[0] < 100


async def test_a_retry_of_the_flow_run_takes_the_log_up_where_it_was(
    bolt_simulator, credentials, monkeypatch
):
    """The first attempt breaks off; the second logs what is left, and moves the same artifact."""
    from paradime_flows import lifecycle

    stdout = numbered(1000)
    bolt_simulator.clock.speed = 4
    bolt_simulator.add_schedule(
        "retried",
        commands=[SimulatedCommand("dbt run", duration_seconds=20, stdout=stdout)],
        setup_commands=False,
    )
    wait, waits = lifecycle.RunLifecycle.wait, []

    async def crash_once(self: Any, run: Any) -> Any:
        waits.append(run.run_id)
        if len(waits) > 1:
            return await wait(self, run)
        waiting = asyncio.create_task(wait(self, run))
        await asyncio.sleep(3)
        waiting.cancel()
        await asyncio.wait({waiting})
        raise ConnectionError("this attempt is over")

    monkeypatch.setattr(lifecycle.RunLifecycle, "wait", crash_once)
    flow = run_schedule.with_options(retries=1, retry_delay_seconds=0)
    await asyncio.to_thread(lambda: flow("retried", credentials, on_interrupt="leave", **QUICK))
    assert len(waits) == 2
    assert len(set(waits)) == 1
    flow_run = await latest_flow_run("run-schedule")
    assert await lines_of(flow_run.id, "line") == stdout.splitlines()
    artifacts = await artifacts_of(flow_run.id)
    assert artifacts["paradime-progress-retried"].data == 100.0


async def test_a_log_out_of_reach_never_ends_the_wait(bolt_simulator, credentials):
    """It is told once, and made up for as soon as the log can be fetched."""
    bolt_simulator.clock.speed = 3
    stdout = numbered(500)
    bolt_simulator.add_schedule(
        "faulty",
        commands=[SimulatedCommand("dbt run", duration_seconds=12, stdout=stdout)],
        setup_commands=False,
    )
    bolt_simulator.inject(faults.Status(503, operation="boltCommandLogs", times=4))
    result = await arun_schedule("faulty", credentials, **QUICK)
    assert result.state == "SUCCESS"
    flow_run = await latest_flow_run("run-schedule")
    assert await lines_of(flow_run.id, "line") == stdout.splitlines()
    assert len(await lines_of(flow_run.id, "The output of Bolt run")) == 1


async def test_a_log_that_hangs_delays_the_end_by_seconds_only(bolt_simulator, credentials):
    """The state goes on being looked at while a fetch of the log hangs."""
    bolt_simulator.clock.speed = 2
    bolt_simulator.add_schedule(
        "hanging", commands=[SimulatedCommand("dbt run", duration_seconds=8, stdout=numbered(10))]
    )
    bolt_simulator.inject(faults.Hang(30, operation="boltCommandLogs", times=1))
    await arun_schedule("hanging", credentials, **QUICK)
    flow_run = await latest_flow_run("run-schedule")
    assert await lines_of(flow_run.id, "line") == numbered(10).splitlines()
    states = [request for request in bolt_simulator.requests if "boltRunStatus" in request.operations]
    # Looks at most every two seconds or so, though the fetch took five.
    assert len(states) >= 3


async def test_off_logs_nothing_and_asks_for_nothing(bolt_simulator, credentials):
    """No request for the log, no line of it; the progress ends at 100 all the same."""
    bolt_simulator.clock.speed = 20
    bolt_simulator.add_schedule("off", commands=[SimulatedCommand("dbt run", stdout=numbered(10))])
    await arun_schedule("off", credentials, live_logs="off", **QUICK)
    flow_run = await latest_flow_run("run-schedule")
    assert await lines_of(flow_run.id, "line") == []
    assert bolt_simulator.count("boltCommandLogs") == 0
    assert (await artifacts_of(flow_run.id))["paradime-progress-off"].data == 100.0


async def test_a_run_cancelled_by_the_time_limit_has_its_last_lines_logged(bolt_simulator, credentials):
    """The end is not seen by the wait, so what is left is fetched afterwards."""
    from paradime_blocks import BoltRunTimedOut

    bolt_simulator.clock.speed = 1
    bolt_simulator.add_schedule(
        "long",
        commands=[SimulatedCommand("dbt run", duration_seconds=1000, stdout=numbered(10_000))],
        setup_commands=False,
    )
    with pytest.raises(BoltRunTimedOut):
        await arun_schedule("long", credentials, timeout_seconds=4, **QUICK)
    (run,) = bolt_simulator.runs("long")
    flow_run = await latest_flow_run("run-schedule")
    assert await lines_of(flow_run.id, "line") == run.commands[-1].stdout.splitlines()


async def test_a_hundred_thousand_lines_reach_prefect(bolt_simulator, credentials):
    """In a few hundred records, each short enough for Prefect Cloud, in order and complete."""
    stdout = numbered(100_000)
    bolt_simulator.clock.speed = 10
    bolt_simulator.add_schedule(
        "huge",
        commands=[SimulatedCommand("dbt run", duration_seconds=20, stdout=stdout)],
        setup_commands=False,
    )
    await arun_schedule("huge", credentials, **QUICK)
    flow_run = await latest_flow_run("run-schedule")
    records = await records_of(flow_run.id)
    assert await lines_of(flow_run.id, "line") == stdout.splitlines()
    assert len(records) < 250
    assert max(len(record.message) for record in records) <= 25_000
