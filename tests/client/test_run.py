"""The handle of a run: its reports on time limits, outages at the end, and runs that did not succeed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

import anyio.lowlevel
import pytest

from paradime_blocks import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltClient,
    BoltRun,
    BoltRunCanceled,
    BoltRunFailed,
    BoltRunState,
    BoltRunTimedOut,
    BoltSchedule,
    BoltUnavailable,
)
from paradime_blocks.polling import Clock
from paradime_blocks.testing import SimulatedCommand, faults
from paradime_blocks.testing.reply import Reply


class FakeClock:
    """A clock that moves when it sleeps; `at` does something at a given time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.at: dict[float, object] = {}

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        for moment in [each for each in self.at if each <= self.now]:
            self.at.pop(moment)()
        await anyio.lowlevel.checkpoint()

    @property
    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, wall=time.time, sleep=self.sleep)


@dataclass(frozen=True)
class EndedWell(faults.Fault):
    """The run is reported as ERROR, but each of its commands as 0."""

    def answer(self, exchange) -> Reply:
        data = json.loads(bytes(exchange.act().body))["data"]
        status = data["boltRunStatus"]
        status["state"] = "ERROR"
        for command in status["commands"]:
            command.update(returnCode=0, endDttm=command["startDttm"])
        return Reply.of_json({"data": data})


@pytest.fixture
def time_of_day() -> FakeClock:
    return FakeClock()


@pytest.fixture
def run(simulator, credentials, time_of_day) -> BoltRun:
    """Another client's run of two commands, which is active."""
    simulator.add_schedule("daily", commands=["dbt seed", "dbt run"], setup_commands=False)
    run_id = simulator.start_run("daily")
    return BoltRun(run_id, credentials, timeout_seconds=900, clock=time_of_day.clock)


@pytest.mark.parametrize(
    "arguments, message, waited",
    [
        pytest.param({}, "within 900 s", 900, id="the handle's own"),
        pytest.param({"timeout_seconds": 0.5}, "within 0.5 s", 0.5, id="the caller's"),
        pytest.param({"timeout_seconds": 12.3456}, "within 12.3 s", 12.3456, id="rounded for people"),
        pytest.param({"timeout_seconds": 0}, "within 0 s", 0, id="none"),
        pytest.param({"timeout_seconds": 0, "whole_seconds": 3600}, "within 3600 s", 3600, id="used up"),
    ],
)
async def test_a_time_out_names_the_limit_that_was_reached(run, time_of_day, arguments, message, waited):
    """The caller must know which limit to raise."""
    with pytest.raises(BoltRunTimedOut, match=message) as caught:
        await run.await_for_completion(**arguments)
    assert caught.value.waited_seconds == waited
    assert time_of_day.now == pytest.approx(arguments.get("timeout_seconds", 900))


async def test_a_time_limit_of_zero_allows_one_poll(simulator, run):
    """A run resumed after its deadline may have ended well in the meantime."""
    simulator.clock.advance(600)
    assert await run.await_for_completion(0) is BoltRunState.SUCCESS
    assert simulator.count("boltRunStatus") == 1


async def test_a_success_survives_an_outage_at_its_end(simulator, run, time_of_day):
    """The outage may be as long as one during the run."""
    simulator.clock.advance(600)
    simulator.inject(faults.Status(503, times=None))
    time_of_day.at[60] = simulator.clear_faults
    assert (await run.afetch_result()).state is BoltRunState.SUCCESS
    assert 60 <= time_of_day.now < 90


async def test_an_outage_at_the_end_that_is_too_long_is_an_error(simulator, credentials, time_of_day):
    """`max_outage_seconds` limits it; the error is that of the outage."""
    run = BoltRun(1, credentials, max_outage_seconds=40, clock=time_of_day.clock)
    simulator.inject(faults.Status(503, times=None))
    with pytest.raises(BoltUnavailable, match="503"):
        await run.afetch_result()
    assert 40 <= time_of_day.now < 60


async def test_a_result_says_that_it_has_not_read_dbts_files(simulator, run):
    """No list of failed tests is taken for complete that nobody has filled in."""
    simulator.clock.advance(600)
    result = await run.afetch_result()
    paths = {resource.path for resource in result.resources}
    assert result.dbt.counts == {}
    assert {line.partition(":")[0] for line in result.dbt.unread} == {
        path for path in paths if path.endswith(("run_results.json", "sources.json"))
    }
    assert len(result.dbt.unread) == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.Status(503, operation="boltCommand", times=None), id="outage"),
        pytest.param(faults.MissingData("not_ok", operation="boltCommand", times=None), id="refused"),
        pytest.param(faults.Status(403, operation="boltCommand", times=None), id="not allowed"),
    ],
)
async def test_a_success_without_its_files_is_a_success(simulator, run, fault, caplog):
    """The list of files is an extra; if it is missing, the log says so."""
    simulator.clock.advance(600)
    simulator.inject(fault)
    result = await run.afetch_result()
    assert (result.state, result.resources, len(result.commands)) == (BoltRunState.SUCCESS, [], 2)
    assert f"The files of Bolt run {run.run_id} could not be listed" in caplog.text


async def test_a_command_without_a_list_of_files_fails_no_run(
    simulator, credentials, time_of_day, monkeypatch
):
    """The run has succeeded; the files of its other commands are listed."""
    commands = [SimulatedCommand(f"dbt {n}", resources={f"{n}.json": "{}"}) for n in range(2)]
    simulator.add_schedule("daily", commands=commands, setup_commands=False)
    run = BoltRun(simulator.start_run("daily"), credentials, clock=time_of_day.clock)
    simulator.clock.advance(600)
    asked_for = BoltClient.get_bolt_command_resources

    async def with_a_stranger(client: BoltClient, ids: list[int], **options: Any) -> Any:
        return await asked_for(client, [999_999, *ids[1:]], **options)

    monkeypatch.setattr(BoltClient, "get_bolt_command_resources", with_a_stranger)
    result = await run.afetch_result()
    assert result.state is BoltRunState.SUCCESS
    assert [resource.path for resource in result.resources] == ["1.json"]


async def test_a_refused_result_is_not_retried_for_long(credentials, time_of_day):
    """A missing run does not appear later."""
    run = BoltRun(424_242, credentials, clock=time_of_day.clock)
    with pytest.raises(Exception, match="424242"):
        await run.afetch_result()
    assert time_of_day.now < 10


async def test_a_cancel_waits_as_long_as_bolt_asks(simulator, run, time_of_day):
    """`Retry-After` of the cancel itself counts, too: there is neither cancel nor poll in the meantime."""
    simulator.inject(faults.Status(429, operation="cancelBoltRun", retry_after=20))
    assert await run.acancel() is BoltRunState.CANCELED
    assert time_of_day.slept[0] == 20
    assert simulator.count("cancelBoltRun") == 2


async def test_a_run_that_ends_before_its_delayed_cancel_is_noticed(simulator, run, time_of_day):
    """Bolt accepts no cancel in time, but the last poll still comes."""
    simulator.inject(faults.Status(429, operation="cancelBoltRun", retry_after=20, times=None))
    time_of_day.at[40] = lambda: simulator.clock.advance(600)
    assert await run.acancel() is BoltRunState.SUCCESS
    assert time_of_day.slept == [20, 20, 20]


@pytest.mark.guarantee(
    "Bolt is unreachable, busy, or refuses us",
    "Bolt refuses the credentials while a run is waited for (a firewall's 403, say)",
    prefect="Running",
    bolt="The run keeps running",
    result=(
        "The wait continues for a minute, or `max_outage_seconds` if that is less. After that: `BoltAuthError` "
        "with the run's link"
    ),
)
@pytest.mark.parametrize("status", [401, 403])
async def test_a_temporary_refusal_does_not_end_the_wait(simulator, run, time_of_day, status):
    """A firewall blocks a few polls of a run that these credentials could read: later polls work again."""
    block = faults.Status(
        status, body="<html>Request blocked</html>", operation="boltRunStatus", nth=3, times=4
    )
    simulator.inject(block)
    time_of_day.at[100] = lambda: simulator.clock.advance(600)
    assert await run.await_for_completion() is BoltRunState.SUCCESS
    assert simulator.pending_faults == ()


async def test_a_refusal_at_the_end_does_not_hide_a_success(simulator, run):
    """The read of the result follows the same rule as the polls before it."""
    simulator.clock.advance(600)
    simulator.inject(faults.Status(403, operation="boltRunStatus"))
    assert (await run.afetch_result()).state is BoltRunState.SUCCESS


@pytest.mark.guarantee(
    "Bolt is unreachable, busy, or refuses us",
    "Bolt refuses the credentials while a run is waited for (a firewall's 403, say)",
)
@pytest.mark.parametrize("longest_outage, least, most", [(600, 60, 90), (20, 20, 40), (0, 0, 2)])
@pytest.mark.parametrize("status", [401, 403])
async def test_a_lasting_refusal_names_the_run_that_is_left(
    simulator, run, time_of_day, status, longest_outage, least, most
):
    """It lasts a minute, or as long as an outage may. The run was not cancelled, and reading needs no other rights."""
    run = replace(run, max_outage_seconds=longest_outage)
    simulator.inject(faults.Status(status, operation="boltRunStatus", nth=3, times=None))
    with pytest.raises(BoltAuthError, match="not cancelled and may still be running") as caught:
        await run.await_for_completion()
    assert least <= time_of_day.now < most
    assert (caught.value.run_id, caught.value.url, caught.value.state) == (run.run_id, run.url, "RUNNING")
    assert "Bolt Schedules Admin" not in str(caught.value)
    assert simulator.run(run.run_id).is_active


async def test_credentials_refused_at_the_first_poll_are_an_error_at_once(simulator, run, time_of_day):
    """They have never read anything, so the refusal is not treated as temporary."""
    simulator.inject(faults.Status(403, operation="boltRunStatus"))
    with pytest.raises(BoltAuthError, match="may still be running"):
        await run.await_for_completion()
    assert (simulator.count("boltRunStatus"), time_of_day.slept) == (1, [])


@pytest.mark.parametrize(
    "state, kind",
    [
        pytest.param("CANCELED", BoltRunCanceled, id="canceled"),
        pytest.param("ERROR", BoltRunFailed, id="error"),
    ],
)
async def test_an_interrupted_run_names_its_running_command(simulator, run, state, kind):
    """No command has a return code other than 0; the running command is what a person wants to know."""
    while len(simulator.run(run.run_id).commands) < 2:
        simulator.clock.advance(0.5)
    simulator.clock.advance(0.5)
    simulator.finish(run.run_id, state)
    with pytest.raises(kind, match="dbt run") as caught:
        await run.afetch_result()
    assert (caught.value.command, caught.value.return_code) == ("dbt run", None)


async def test_an_error_without_a_failed_command_says_so(simulator, run):
    """The log of the last command shows no error, so it is not quoted."""
    while len(simulator.run(run.run_id).commands) < 2:
        simulator.clock.advance(0.5)
    simulator.inject(EndedWell(operation="boltRunStatus"))
    with pytest.raises(BoltRunFailed, match="none of its commands failed") as caught:
        await run.afetch_result()
    assert (caught.value.command, caught.value.log_tail) == (None, None)
    assert "page in Paradime" in str(caught.value)
    assert "log says" not in str(caught.value)
    assert f"run_id/{run.run_id}" in str(caught.value)


async def test_a_blocks_already_running_error_says_what_to_do(credentials, run):
    """A block has no `on_already_running`."""
    block = BoltSchedule(credentials=credentials, schedule_name="daily")
    with pytest.raises(BoltAlreadyRunning, match=r"attach\(run_id\)\.wait_for_completion\(\)") as caught:
        await block.atrigger()
    assert "run_schedule's on_already_running" not in str(caught.value)


@pytest.mark.parametrize(
    "code, end, error", [(0, BoltRunState.SUCCESS, None), (1, BoltRunState.FAILED, BoltRunFailed)]
)
async def test_an_end_with_an_unknown_name_is_recognised_by_the_commands(
    simulator, credentials, caplog, code, end, error
):
    """It ends well before the time limit, with a warning when no command is running, and one at the end."""
    command = SimulatedCommand("dbt run", duration_seconds=20, return_code=code)
    simulator.add_schedule("daily", [command], setup_commands=False, final_state="PETRIFIED")
    run_id = simulator.start_run("daily")
    time_of_both = FakeClock()

    async def sleep(seconds: float) -> None:
        simulator.clock.advance(seconds)
        await time_of_both.sleep(seconds)

    clock = replace(time_of_both.clock, sleep=sleep)
    run = BoltRun(run_id, credentials, timeout_seconds=86_400, clock=clock)
    with caplog.at_level("WARNING"):
        assert await run.await_for_completion() == end
    assert 120 < time_of_both.now < 200
    warned = [record.getMessage() for record in caplog.records if "an unknown state" in record.getMessage()]
    assert ["If this state lasts for 2 minutes" in text for text in warned] == [True, False]
    assert all("PETRIFIED" in text and str(end) in text for text in warned)
    if error is None:
        assert (await run.afetch_result()).state == end
    else:
        with pytest.raises(error, match="dbt run"):
            await run.afetch_result()
