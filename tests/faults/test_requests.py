"""How many requests to Prefect and to Bolt a run costs."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx
import pytest
from faults.bench import SCHEDULE, bolt, credentials_for, run_flow
from faults.engine import in_flow_run
from faults.prefect_in_memory import PrefectInMemory, Process, in_place_of_prefect, process
from prefect.client.schemas.objects import StateType
from support.in_process import BoltInProcess

from paradime_blocks.testing.commands import SimulatedCommand
from paradime_flows.prefect_api import read_flow_run
from paradime_flows.time_limits import times

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.filters import FlowRunFilter

# What the archive writes, and what it logs.
_SHOWN = {"create_artifact", "update_artifact", "create_logs", "read_logs"}


async def requests_of_a_run(levels: int) -> list[str]:
    """Return the requests of a run of `run_schedule` that ends at once, as a subflow of so many flow runs."""
    from paradime_flows.run_schedule import run_schedule

    prefect = PrefectInMemory()
    above: UUID | None = None
    for _ in range(levels):
        above = prefect.new_flow_run(parent=above)
        prefect.set_state(above, StateType.RUNNING)
    flow_run_id = prefect.new_flow_run(parent=above)
    options: dict[str, Any] = {"one_at_a_time": False, "live_logs": "off", "command_task_runs": False}
    with bolt("success", speed=1000) as simulator, in_place_of_prefect(prefect, archive=True):
        credentials = credentials_for(simulator)
        state, _, error = await in_flow_run(
            prefect, flow_run_id, run_schedule, SCHEDULE, credentials, **options
        )
        assert state.is_completed(), error
    return prefect.requests


@pytest.mark.parametrize("levels, most", [(0, 10), (2, 15)])
async def test_the_requests_of_a_run(levels, most) -> None:
    """Each read answers all that is asked of the flow run then; each write is read back once."""
    requests = [each for each in await requests_of_a_run(levels) if each not in _SHOWN]
    assert len(requests) <= most, " ".join(requests)


async def test_each_page_of_a_run_that_succeeded_is_written_once() -> None:
    """The summary, the logs of the commands, the files, and dbt's results."""
    requests = Counter(await requests_of_a_run(0))
    assert requests["create_artifact"] == 5
    assert requests["update_artifact"] == 0


@pytest.mark.parametrize("commands, files", [(2, 3), (12, 60)])
async def test_a_short_run_needs_five_requests_to_bolt_beside_its_polls(commands, files):
    """However many commands and files: the schedule, the trigger, the details, the list of runs, the URLs."""
    paths = [f"target/{n}.bin" for n in range(files - 2)]
    resources = dict.fromkeys(["target/manifest.json", "target/run_results.json", *paths], "{}")
    with BoltInProcess(speed=1000) as simulator:
        last = SimulatedCommand("dbt build", resources=resources)
        simulator.add_schedule(SCHEDULE, commands=[*(f"dbt run -s m{n}" for n in range(commands)), last])
        outcome = await run_flow(simulator)
    assert outcome.state.is_completed(), outcome
    requests = outcome.requests
    assert requests.pop("boltRunStatus") <= 4
    assert requests.pop("resource") >= 2
    assert requests == {
        "boltScheduleName": 1,
        "triggerBoltRun": 1,
        "boltCommand": 1,
        "listBoltRuns": 1,
        "boltResourceUrl": 1,
    }
    assert len(outcome.result.commands) == commands + 3
    assert len(outcome.result.resources) == files + 2 * commands
    assert any("2 of 2 OK customers" in text for text in outcome.artifacts.values())
    assert not any("progress" in key for key in outcome.artifacts)


@pytest.mark.parametrize("page_lines, most", [(500, 80), (5000, 32)])
async def test_live_logs_are_fetched_with_pauses(page_lines, most):
    """Half a minute with 3 MB of logs: all full pages, and else one or two pages every two seconds."""
    line = "12:00:00  {n} of 27000 OK created sql table model analytics.some_model_name ........... [OK in 0.10s]\n"
    text = "".join(line.format(n=n) for n in range(27_000))
    with BoltInProcess(log_batch_lines=page_lines) as simulator:
        command = SimulatedCommand("dbt build", 30, stdout=text, resources={"target/run_results.json": "{}"})
        simulator.add_schedule(SCHEDULE, commands=[command])
        outcome = await run_flow(simulator)
    assert outcome.state.is_completed(), outcome
    assert outcome.requests["boltCommandLogs"] <= most
    others = sum(outcome.requests.values()) - outcome.requests["boltCommandLogs"]
    assert others <= 47
    # Beside each line, a page has the name of its stream. The archive asks for no log again.
    assert sum(each.bytes for each in simulator.requests) < 1.4 * len(text)


async def test_the_log_shows_the_end_of_a_command():
    """A long run is polled rarely, but at once when the log of a command ends; and no log is fetched twice."""
    commands = [
        SimulatedCommand(f"dbt run {n}", 1000, stdout="".join(f"line {n}\n" for n in range(5000)))
        for n in range(2)
    ]
    with BoltInProcess() as simulator:
        simulator.add_schedule(SCHEDULE, commands=commands, setup_commands=False)
        outcome = await run_flow(simulator)
        (run,) = simulator.runs()
    assert outcome.state.is_completed(), outcome
    assert any("progress" in key for key in outcome.artifacts)
    polls = [each.at for each in simulator.requests if "boltRunStatus" in each.operations]
    for command in run.commands:
        late = min((at - command.ended_at).total_seconds() for at in polls if at >= command.ended_at)
        assert late < 2.5
    assert len(polls) < 200
    pages = [each for each in simulator.requests if "boltCommandLogs" in each.operations]
    assert len(pages) < 2000 / 2 * 1.1
    assert len({(each.variables["commandId"], each.variables["cursor"]) for each in pages}) > 0.95 * len(
        pages
    )
    for command in run.commands:
        after = [
            each for each in pages if each.variables["commandId"] == command.id and each.at > command.ended_at
        ]
        assert len(after) <= 1


@pytest.mark.parametrize("attempts, begun", [(1, []), (2, ["read_artifacts"])])
async def test_the_progress_costs_a_request_for_each_change(attempts: int, begun: list[str]) -> None:
    """Only a later attempt first asks for the artifact of an earlier one."""
    from paradime_flows.live.progress import ProgressArtifact

    prefect = PrefectInMemory()
    flow_run_id = prefect.new_flow_run()
    for _ in range(attempts):
        prefect.set_state(flow_run_id, StateType.RUNNING)
    clock = SimpleNamespace(now=0.0)
    with in_place_of_prefect(prefect):
        for run_id in (1, 2):
            stored = await prefect.read_flow_run(flow_run_id)
            prefect.requests.clear()
            clock.now = 0.0
            shown = ProgressArtifact(flow_run_id, "progress", run_id, stored=stored, clock=lambda: clock.now)
            for clock.now in (5.0, 20.0, 30.0, 60.0, 70.0):
                await shown.show(clock.now, "of daily")
            await shown.show(100.0, "of daily", final=True)
            assert prefect.requests == [*begun, "create_artifact", "update_artifact", "update_artifact"]
        again = ProgressArtifact(flow_run_id, "progress", 1, clock=lambda: clock.now)
        await again.show(0.0, "of daily")
    assert again.percent == 100.0
    assert len(prefect.artifacts) == 2


async def test_who_asks_for_flow_runs_at_the_same_time_shares_a_request() -> None:
    """An answer is never older than the question, and a caller that is cancelled takes no answer from others."""
    prefect = PrefectInMemory()
    ids = [prefect.new_flow_run() for _ in range(20)]
    with in_place_of_prefect(prefect):
        first = asyncio.create_task(read_flow_run(prefect, ids[0]))
        cancelled = asyncio.create_task(read_flow_run(prefect, ids[0]))
        await asyncio.sleep(0.001)
        cancelled.cancel()
        for flow_run_id in ids:
            prefect.set_state(flow_run_id, StateType.CANCELLING)
        found = await asyncio.gather(*(read_flow_run(prefect, flow_run_id) for flow_run_id in ids))
    assert (await first).id == ids[0]
    assert [each.id for each in found] == ids
    assert all(each.state.is_cancelling() for each in found)
    assert prefect.requests == ["read_flow_runs"] * 2


async def test_a_flow_run_that_prefect_cannot_read_does_not_keep_others_from_being_read() -> None:
    """Prefect's server answers 500 to each request that includes such a flow run."""
    prefect = PrefectInMemory()
    ids = [prefect.new_flow_run() for _ in range(3)]
    read = prefect.read_flow_runs

    async def refuse(flow_run_filter: FlowRunFilter) -> Any:
        assert flow_run_filter.id is not None
        if ids[0] in (flow_run_filter.id.any_ or []):
            request = httpx.Request("POST", "http://prefect.example")
            raise httpx.HTTPStatusError("500", request=request, response=httpx.Response(500, request=request))
        return await read(flow_run_filter=flow_run_filter)

    with in_place_of_prefect(prefect), mock.patch.object(prefect, "read_flow_runs", refuse):
        asked = (read_flow_run(prefect, flow_run_id) for flow_run_id in ids)
        bad, *good = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(bad, httpx.HTTPStatusError)
    assert [each.id for each in good] == ids[1:]


@pytest.mark.parametrize("count", [1, 20])
async def test_flow_runs_that_wait_in_one_process_are_read_together(count) -> None:
    """Without an event stream, one request every few seconds reads all of them and their parents, however many."""
    from paradime_flows.supervision.watch import unless_stopped

    prefect = PrefectInMemory()
    above = prefect.new_flow_run()
    waiting = [prefect.new_flow_run(parent=above) for _ in range(count)]
    for flow_run_id in [above, *waiting]:
        prefect.set_state(flow_run_id, StateType.RUNNING)
    process.set(Process())

    async def wait(flow_run_id: UUID) -> None:
        await unless_stopped(partial(asyncio.sleep, 61), flow_run_id)

    with in_place_of_prefect(prefect):
        await asyncio.gather(*map(wait, waiting))
    requests = Counter(prefect.requests)
    # The first read of a flow run asks for its parent.
    assert requests.pop("read_task_run") == count
    assert requests == {"read_flow_runs": count + 60 / times().watch_interval_seconds}


async def test_a_cancel_of_the_parent_stops_all_that_wait() -> None:
    """The parent is read once for all of them."""
    from paradime_flows.supervision.watch import StoppedByPrefect, unless_stopped

    prefect = PrefectInMemory()
    above = prefect.new_flow_run()
    waiting = [prefect.new_flow_run(parent=above) for _ in range(3)]
    process.set(Process())
    asyncio.get_running_loop().call_later(10, prefect.set_state, above, StateType.CANCELLING)
    with in_place_of_prefect(prefect):
        works = (unless_stopped(partial(asyncio.sleep, 100), each) for each in waiting)
        stopped = await asyncio.gather(*works, return_exceptions=True)
    assert [type(each) for each in stopped] == [StoppedByPrefect] * 3
