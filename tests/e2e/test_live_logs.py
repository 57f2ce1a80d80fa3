"""Live logs and progress of `run_schedule`, read back through Prefect's API."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.logging.handlers import APILogHandler
from prefect.states import AwaitingRetry, Cancelling, Running
from recorded import RECORDED
from support.prefect_api import artifacts_of, every_artifact_of, latest_flow_run

from paradime_blocks import BoltRunFailed
from paradime_blocks.testing import SimulatedCommand, faults
from paradime_flows.live.log_lines import Record
from paradime_flows.live.log_position import FlowRunJournal
from paradime_flows.live.log_stream import LiveLogs
from paradime_flows.run_schedule import arun_schedule, run_schedule
from paradime_flows.time_limits import Timing, use_timing

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from prefect.client.schemas.objects import Log

    from paradime_blocks import ParadimeCredentials

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

# The progress of short runs is shown, too.
SHOWS_PROGRESS = Timing(progress_after_seconds=0.0)
QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5}
BACKENDS = [pytest.param((), id="cursors"), pytest.param(("boltCommandLogs",), id="run-status")]


def numbered(count: int, word: str = "line", more: str = "") -> str:
    return "".join(f"{word} {n} of the output{more}\n" for n in range(count))


# More than two requests can hold.
MUCH = 6_000


def much() -> str:
    return numbered(MUCH, more="." * 80)


async def records_of(flow_run_id: Any) -> list[Log]:
    """All log records of a flow run, by time."""
    # Prefect's own records may not have arrived yet.
    await APILogHandler.aflush()
    found: list[Log] = []
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
    async with get_client() as client:
        while page := await client.read_logs(log_filter=wanted, limit=200, offset=len(found)):
            found += page
    return sorted(found, key=lambda log: log.timestamp)


async def lines_of(flow_run_id: Any, word: str) -> list[str]:
    """The lines of the log with this prefix."""
    lines = [line for record in await records_of(flow_run_id) for line in record.message.split("\n")]
    return [line for line in lines if line.startswith(word)]


def messages_by_task_run(records: list[Log]) -> dict[Any, list[str]]:
    """The messages of each task run, in the order in which Prefect shows them."""
    found: dict[Any, list[str]] = defaultdict(list)
    for record in records:
        if record.task_run_id is not None:
            found[record.task_run_id].append(record.message)
    return found


@pytest.mark.parametrize("lacking", BACKENDS)
async def test_each_line_reaches_the_flow_runs_log_once_and_in_order(bolt_simulator, credentials, lacking):
    """Two commands print on both streams while the run is active; stderr is logged as a warning.

    The task run of a command ends after the command's output.
    """
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
    (ended,) = [n for n, record in enumerate(records) if "ended as SUCCESS" in record.message]
    for name, told in messages_by_task_run(records).items():
        if told[0].startswith("── Command"):
            assert told[-1].startswith("Finished in state Completed("), name
    # The commands come in order, and the end comes last.
    assert places == sorted(places)
    assert places[-1] < ended


async def test_real_dbt_output_keeps_its_levels_and_advances_the_progress(bolt_simulator, credentials):
    """A recorded build failed: its errors are errors; the progress moved, and stays below 100."""
    bolt_simulator.clock.speed = 5
    stdout = (RECORDED / "failure/4-dbt-build/stdout.txt").read_text(encoding="utf-8")
    command = SimulatedCommand("dbt build", duration_seconds=15, return_code=1, stdout=stdout)
    bolt_simulator.add_schedule("recorded", commands=[command, "dbt docs generate"])
    with use_timing(SHOWS_PROGRESS), pytest.raises(BoltRunFailed):
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
    assert artifact.description.endswith(" ended as FAILED")


async def test_the_progress_artifact_is_created_once_and_ends_at_100(
    bolt_simulator, credentials, monkeypatch
):
    """It grows while the run is active, and never goes back."""
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
    with use_timing(Timing(progress_after_seconds=0.0, progress_interval_seconds=2.0)):
        await arun_schedule("progress", credentials, **QUICK)
    flow_run = await latest_flow_run("run-schedule")
    artifact = (await artifacts_of(flow_run.id))["paradime-progress-progress"]
    assert artifact.data == 100.0
    assert str(artifact.description).endswith(" of progress ended as SUCCESS")
    assert len(created) == 1
    assert updated == sorted(updated)
    # A run of six seconds: at most an update every two seconds, and one at the end.
    assert 2 <= len(updated) <= 4
    assert 0 < updated[0] < 100


async def test_the_progress_of_a_cancelled_run_says_how_it_ended(bolt_simulator, credentials):
    """The last poll was before the cancel, so the run is read once more."""
    command = SimulatedCommand("dbt run", duration_seconds=10_000)
    bolt_simulator.add_schedule("stopped", commands=[command], setup_commands=False)

    async def progress() -> Any:
        try:
            found = await artifacts_of((await latest_flow_run("run-schedule")).id)
        except (IndexError, ValueError):
            return None
        return found.get("paradime-progress-stopped")

    async def cancel_when_shown() -> None:
        while await progress() is None:  # noqa: ASYNC110 - the flow run makes it true
            await asyncio.sleep(0.2)
        async with get_client() as client:
            flow_run = await latest_flow_run("run-schedule")
            await client.set_flow_run_state(flow_run.id, Cancelling(), force=True)

    with use_timing(SHOWS_PROGRESS):
        cancel = asyncio.create_task(cancel_when_shown())
        state = await arun_schedule("stopped", credentials, return_state=True, **QUICK)
    await cancel
    assert state.is_cancelled()
    assert str((await progress()).description).endswith(" of stopped ended as CANCELED")


async def test_a_retry_of_the_flow_run_continues_the_log(bolt_simulator, credentials, monkeypatch):
    """The first attempt stops halfway. The second logs the rest, and continues the same artifact."""
    from paradime_flows.runner import lifecycle

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
    with use_timing(SHOWS_PROGRESS):
        await asyncio.to_thread(lambda: flow("retried", credentials, on_interrupt="leave", **QUICK))
    assert len(waits) == 2
    assert len(set(waits)) == 1
    flow_run = await latest_flow_run("run-schedule")
    assert await lines_of(flow_run.id, "line") == stdout.splitlines()
    (progress,) = [each for each in await every_artifact_of(flow_run.id) if each.type == "progress"]
    assert progress.data == 100.0


async def test_an_unreachable_log_never_ends_the_wait(bolt_simulator, credentials):
    """It is reported once, and the log catches up as soon as it can be fetched."""
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
    """The state is still polled while a fetch of the log hangs."""
    bolt_simulator.clock.speed = 2
    bolt_simulator.add_schedule(
        "hanging", commands=[SimulatedCommand("dbt run", duration_seconds=8, stdout=numbered(10))]
    )
    bolt_simulator.inject(faults.Hang(30, operation="boltCommandLogs", times=1))
    await arun_schedule("hanging", credentials, **QUICK)
    flow_run = await latest_flow_run("run-schedule")
    assert await lines_of(flow_run.id, "line") == numbered(10).splitlines()
    states = [request for request in bolt_simulator.requests if "boltRunStatus" in request.operations]
    # Polls come about every two seconds, although the fetch took five.
    assert len(states) >= 3


async def test_off_logs_nothing_and_requests_nothing(bolt_simulator, credentials):
    """The log is not requested, and no line is logged; the progress still ends at 100."""
    bolt_simulator.clock.speed = 20
    bolt_simulator.add_schedule("off", commands=[SimulatedCommand("dbt run", stdout=numbered(10))])
    with use_timing(SHOWS_PROGRESS):
        await arun_schedule("off", credentials, live_logs="off", **QUICK)
    flow_run = await latest_flow_run("run-schedule")
    assert await lines_of(flow_run.id, "line") == []
    assert bolt_simulator.count("boltCommandLogs") == 0
    assert (await artifacts_of(flow_run.id))["paradime-progress-off"].data == 100.0


async def test_a_run_cancelled_by_the_time_limit_has_its_last_lines_logged(bolt_simulator, credentials):
    """The wait does not see the end, so the rest of the log is fetched afterwards."""
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


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.full)])
async def test_many_lines_reach_prefect(bolt_simulator, credentials, count):
    """A record holds some hundred lines and is short enough for Prefect Cloud; they are in order and complete."""
    stdout = numbered(count)
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
    assert len(records) < count / 400
    assert max(len(record.message) for record in records) <= 25_000


@flow
def logged_for() -> None:
    """Stands for a flow run that is not running now; it has no other log records."""


async def new_flow_run() -> UUID:
    async with get_client() as client:
        return (await client.create_flow_run(logged_for)).id


async def log_all(run_id: int, credentials: ParadimeCredentials, flow_run_id: UUID) -> None:
    """Do what one attempt of a flow run does at the end of a Bolt run."""
    async with credentials.get_client() as client:
        status = await client.get_bolt_run(run_id, logs=False)
    await LiveLogs(run_id, credentials, FlowRunJournal(flow_run_id)).drain(status)


def ended_run(bolt_simulator: Any, *outputs: str, duration_seconds: float = 1) -> int:
    bolt_simulator.clock.speed = 0
    commands = [
        SimulatedCommand(f"dbt run {n}", duration_seconds, stdout=text) for n, text in enumerate(outputs)
    ]
    bolt_simulator.add_schedule("ended", commands=commands, setup_commands=False, starting_seconds=0)
    run_id: int = bolt_simulator.start_run("ended")
    bolt_simulator.clock.advance(1000)
    return run_id


@pytest.fixture
def posts(monkeypatch: pytest.MonkeyPatch) -> Posts:
    """The posts of log records in transit."""
    posts = Posts()
    pass_on = httpx.AsyncHTTPTransport.handle_async_request

    async def handle(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        if request.method != "POST" or not request.url.path.endswith("/logs/"):
            return await pass_on(self, request)
        refusal = posts.before(request.content)
        if refusal is not None:
            return refusal
        response = await pass_on(self, request)
        posts.arrived.append(request.content)
        posts.after(request.content)
        return response

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle)
    return posts


class Posts:
    """What happens to posts, and the posts that have arrived."""

    def __init__(self) -> None:
        self.arrived: list[bytes] = []
        self.before: Callable[[bytes], httpx.Response | None] = lambda _: None
        self.after: Callable[[bytes], None] = lambda _: None


class Killed(BaseException):
    """Stands for the end of a process."""


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_attempt_that_ends_around_a_post_loses_and_repeats_nothing(
    bolt_simulator, credentials, posts, when
):
    """It ends when the second batch is announced but not posted, or posted but not recorded."""
    stdout = much()
    run_id = ended_run(bolt_simulator, stdout)
    flow_run_id = await new_flow_run()

    def kill(_: bytes) -> None:
        if len(posts.arrived) == (1 if when == "before" else 2):
            raise Killed

    setattr(posts, when, kill)
    with pytest.raises(Killed):
        await log_all(run_id, credentials, flow_run_id)
    before = await lines_of(flow_run_id, "line")
    assert 0 < len(before) < MUCH
    setattr(posts, when, lambda _: None)
    await log_all(run_id, credentials, flow_run_id)
    assert await lines_of(flow_run_id, "line") == stdout.splitlines()


async def test_a_post_whose_answer_was_lost_is_stored_once(bolt_simulator, credentials, posts):
    """Before Prefect's client repeats it, the log is checked, and the post has arrived."""
    stdout = much()
    run_id = ended_run(bolt_simulator, stdout)
    flow_run_id = await new_flow_run()

    def lose(_: bytes) -> None:
        if len(posts.arrived) == 1:
            raise httpx.ReadError("the connection was reset")

    posts.after = lose
    await log_all(run_id, credentials, flow_run_id)
    assert await lines_of(flow_run_id, "line") == stdout.splitlines()


async def test_every_request_is_small_however_much_output_waits(bolt_simulator, credentials, posts):
    """Much output of several commands, lines of any length, and text that needs many more bytes in JSON."""
    bolt_simulator.lacks(operations=["boltCommandLogs"])
    snow = "\N{SNOWMAN}" * 40
    outputs = [
        much() * 2,
        "line " + "x" * 1_000_000 + "\n",
        "".join(f'line {n} "{snow}" \\\n' for n in range(2_000)),
        *(numbered(20, f"line of command {n},") for n in range(20)),
    ]
    run_id = ended_run(bolt_simulator, *outputs)
    flow_run_id = await new_flow_run()
    await log_all(run_id, credentials, flow_run_id)
    assert max(map(len, posts.arrived)) <= 500_000
    assert len(posts.arrived) < 1.5 * sum(map(len, posts.arrived)) / 250_000
    records = await records_of(flow_run_id)
    assert max(len(record.message) for record in records) <= 25_000
    shown = [line for record in records for line in record.message.split("\n") if not line.startswith("── ")]
    assert "".join(shown) == "".join(outputs).replace("\n", "")


async def test_a_server_with_a_lower_limit_gets_smaller_requests(bolt_simulator, credentials, posts):
    """A request that is refused as too large is sent in parts; later requests stay below that size."""
    stdout = much()
    run_id = ended_run(bolt_simulator, stdout)
    flow_run_id = await new_flow_run()
    refused = []

    def refuse(content: bytes) -> httpx.Response | None:
        if len(content) <= 100_000:
            return None
        refused.append(len(content))
        return httpx.Response(413, text="Request Entity Too Large")

    posts.before = refuse
    await log_all(run_id, credentials, flow_run_id)
    assert await lines_of(flow_run_id, "line") == stdout.splitlines()
    assert len(refused) <= 3


async def test_a_record_that_prefect_refuses_is_reported_and_skipped(
    bolt_simulator, credentials, posts, caplog, monkeypatch
):
    """The record that causes the error is left out, and those around it arrive."""
    monkeypatch.setattr("paradime_flows.live.log_position.run_logger", lambda: logging.getLogger("of-a-run"))
    stdout = numbered(3_000) + "error: poison\n" + numbered(3_000, "more") + "error: poison\n"
    run_id = ended_run(bolt_simulator, stdout)
    flow_run_id = await new_flow_run()
    asked = []

    def refuse(content: bytes) -> httpx.Response | None:
        asked.append(content)
        return httpx.Response(422, text="no such text") if b"poison" in content else None

    posts.before = refuse
    with caplog.at_level(logging.INFO, logger="of-a-run"):
        await log_all(run_id, credentials, flow_run_id)
    assert await lines_of(flow_run_id, "line") == numbered(3_000).splitlines()
    assert await lines_of(flow_run_id, "more") == numbered(3_000, "more").splitlines()
    assert await lines_of(flow_run_id, "error: poison") == []
    warnings = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(warnings) == 1
    assert "422: no such text" in warnings[0]
    assert len(asked) < 20


async def test_an_attempt_with_a_slow_clock_logs_after_the_one_before(monkeypatch):
    """Prefect sorts by time only, so an hour's difference must not mix the two."""
    flow_run_id = await new_flow_run()
    first = FlowRunJournal(flow_run_id)
    assert await first.read(1) is None
    first.show([Record(logging.INFO, "old")])
    await first.write(1, "one")
    async with get_client() as client:
        for state in (Running(), AwaitingRetry(), Running()):
            await client.set_flow_run_state(flow_run_id, state, force=True)

    class Behind(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr("paradime_flows.live.log_position.datetime", Behind)
    second = FlowRunJournal(flow_run_id)
    assert await second.read(1) == "one"
    second.show([Record(logging.INFO, "new"), Record(logging.INFO, "newer")])
    await second.write(1, "two")
    assert [record.message for record in await records_of(flow_run_id)] == ["old", "new", "newer"]


@pytest.mark.parametrize("label", ["nonsense", "{id} kept\nnonsense", "{id} kept\nnonsense 7\tnext"])
async def test_a_label_written_by_others_does_no_harm(label):
    """An unreadable entry counts as missing."""
    flow_run_id = await new_flow_run()
    async with get_client() as client:
        await client.update_flow_run_labels(flow_run_id, {"paradime.logs.1": label.format(id=flow_run_id)})
    assert await FlowRunJournal(flow_run_id).read(1) == ("kept" if "kept" in label else None)
