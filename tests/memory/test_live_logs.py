"""Live logs without Prefect: lines, levels, records, positions, and the log of a simulated run."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from support.credentials import credentials_for
from support.in_process import BoltInProcess

from paradime_blocks import BoltClient, ParadimeCredentials
from paradime_blocks.errors import BoltUnavailable
from paradime_blocks.models import BoltLogPage, BoltRunStatus
from paradime_blocks.testing import SimulatedCommand, faults
from paradime_flows.live.log_lines import (
    END_LINES,
    Record,
)
from paradime_flows.live.log_records import RECORD_CHARACTERS
from paradime_flows.live.log_stream import LiveLogs

if TYPE_CHECKING:
    from collections.abc import Callable

    from paradime_blocks.testing import BoltSimulator
    from paradime_flows.prefect_api import ShownTaskRun

SWITCHES = [("pages", "pages"), ("pages", "whole"), ("whole", "whole")]
BACKENDS = [pytest.param(True, id="cursors"), pytest.param(False, id="run-status")]
INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR


@pytest.fixture(autouse=True)
def _long_runs(request, monkeypatch) -> None:
    """Let no run count as short, except in the tests of short runs."""
    if "short_run" not in request.node.name:
        monkeypatch.setattr("paradime_blocks.models.runs._SHORT_RUN_SECONDS", -1.0)


@dataclass
class Notebook:
    """A journal in memory that can be made to fail."""

    records: list[Record] = field(default_factory=list)
    kept: str | None = None
    failures: int = 0
    writes: int = 0

    async def read(self, run_id: int) -> str | None:
        return self.kept

    def show(self, records: list[Record], shown: ShownTaskRun | None = None) -> None:
        self.records += records

    async def write(self, run_id: int, kept: str) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("Prefect is out of reach")
        self.kept = kept
        self.writes += 1

    @property
    def lines(self) -> list[str]:
        """The lines without the headings."""
        found = [line for record in self.records for line in record.text.split("\n")]
        return [line for line in found if not line.startswith("── ")]


def numbered(count: int, word: str = "line") -> str:
    return "".join(f"{word} {n}\n" for n in range(count))


def start(simulator: BoltSimulator, *commands: SimulatedCommand, cursors: bool = True) -> int:
    if not cursors:
        simulator.lacks(operations=["boltCommandLogs"])
    simulator.add_schedule("daily", commands=list(commands), setup_commands=False, starting_seconds=0)
    return simulator.start_run("daily")


async def status_of(credentials: ParadimeCredentials, run_id: int) -> BoltRunStatus:
    async with credentials.get_client() as client:
        return await client.get_bolt_run(run_id, logs=False)


async def look(logs: LiveLogs) -> None:
    status = await status_of(logs.credentials, logs.run_id)
    await (logs.drain(status) if status.state.is_terminal else logs.catch_up(status))


@pytest.mark.parametrize("cursors", BACKENDS)
async def test_each_line_is_logged_once_and_in_order_as_it_comes(simulator, credentials, cursors):
    """Two commands, polled at intervals, are logged unchanged, each under its heading."""
    first, second = numbered(1200, "first"), numbered(30, "second")
    run_id = start(
        simulator,
        SimulatedCommand("dbt seed", duration_seconds=10, stdout=first),
        SimulatedCommand("dbt run", duration_seconds=10, stdout=second),
        cursors=cursors,
    )
    journal = Notebook()
    logs = LiveLogs(run_id, credentials, journal)
    for seconds in (3, 4, 0, 6, 20):
        simulator.clock.advance(seconds)
        await look(logs)
        if seconds == 3:
            assert journal.lines == first.splitlines()[:360]
    assert journal.lines == (first + second).splitlines()
    headings = [line for record in journal.records for line in record.text.split("\n") if "── " in line]
    assert "Command 1, dbt seed" in headings[0]
    assert "Command 2, dbt run" in headings[-1]
    assert all("(continued)" not in heading for heading in headings)


@pytest.mark.parametrize("mode", ["all", "head_and_tail"])
@pytest.mark.parametrize(
    "switch",
    [pytest.param(switch, id="-then-".join(switch)) for switch in SWITCHES],
)
async def test_a_resumed_log_continues_at_the_labels_position(simulator, credentials, mode, switch):
    """Another process that knows only the stored position logs the rest, even on a backend without cursors."""
    out, err = numbered(700, "out"), numbered(700, "err")
    command = SimulatedCommand("dbt run", duration_seconds=10, stdout=out, stderr=err)
    run_id = start(simulator, command, cursors=switch[0] == "pages")
    journal = Notebook()
    simulator.clock.advance(1 if mode == "head_and_tail" else 6)
    await look(LiveLogs(run_id, credentials, journal, mode))
    kept = json.loads(journal.kept or "")
    assert kept["done"] == []
    if switch == ("pages", "whole"):
        simulator.lacks(operations=["boltCommandLogs"])
    simulator.clock.advance(20)
    await look(LiveLogs(run_id, credentials, journal, mode))
    shown = [line for line in journal.lines if not line.startswith("[…")]
    assert len(set(shown)) == len(shown)
    for word in ("out", "err"):
        of_stream = [int(line.split()[1]) for line in shown if line.startswith(word)]
        assert of_stream == sorted(of_stream)
    if mode == "all":
        assert sorted(shown) == sorted((out + err).splitlines())
    else:
        assert len(shown) == 2 * END_LINES
    assert json.loads(journal.kept or "")["at"] == {}


async def test_a_last_line_without_a_line_break_is_logged_at_the_end(simulator, credentials):
    """It waits for the command's end, not for ever."""
    run_id = start(simulator, SimulatedCommand("echo", duration_seconds=10, stdout="a\nb\nprompt> "))
    journal = Notebook()
    logs = LiveLogs(run_id, credentials, journal)
    simulator.clock.advance(7)
    await look(logs)
    assert journal.lines == ["a", "b"]
    simulator.clock.advance(7)
    await look(logs)
    assert journal.lines == ["a", "b", "prompt> "]


async def test_stderr_is_a_warning_unless_dbt_says_otherwise(simulator, credentials):
    """Plain text there is a warning; an error stays one, and dbt's info stays info."""
    stderr = 'plain\nerror: no such file\n{"info": {"level": "info", "msg": "from dbt"}}\n'
    run_id = start(simulator, SimulatedCommand("x", stdout="fine\n", stderr=stderr))
    simulator.clock.advance(5)
    journal = Notebook()
    await look(LiveLogs(run_id, credentials, journal))
    levels = {line: record.level for record in journal.records for line in record.text.split("\n")}
    assert levels["fine"] == INFO
    assert levels["plain"] == WARNING
    assert levels["error: no such file"] == ERROR
    assert levels["from dbt"] == INFO


async def test_head_and_tail_reports_how_much_was_left_out(simulator, credentials):
    """The first lines come at once, the last at the command's end, and a note between them."""
    run_id = start(simulator, SimulatedCommand("dbt run", duration_seconds=10, stdout=numbered(1000)))
    journal = Notebook()
    logs = LiveLogs(run_id, credentials, journal, "head_and_tail")
    simulator.clock.advance(5)
    await look(logs)
    assert journal.lines == numbered(1000).splitlines()[:END_LINES]
    simulator.clock.advance(10)
    await look(logs)
    assert "800 lines left out" in journal.lines[END_LINES]
    assert journal.lines[END_LINES + 1 :] == numbered(1000).splitlines()[-END_LINES:]


async def test_head_and_tail_shows_a_short_output_whole(simulator, credentials):
    """Nothing is left out if the output fits."""
    run_id = start(simulator, SimulatedCommand("dbt run", stdout=numbered(2 * END_LINES)))
    simulator.clock.advance(5)
    journal = Notebook()
    await look(LiveLogs(run_id, credentials, journal, "head_and_tail"))
    assert journal.lines == numbered(2 * END_LINES).splitlines()


@pytest.mark.parametrize("cursors", BACKENDS)
async def test_a_line_of_any_length_is_logged_whole_in_parts(simulator, credentials, cursors):
    """Prefect Cloud takes 25,000 characters a record: a longer line has several, and no character is lost."""
    stdout = f"before\n{'abcdefghi ' * 150_000}\nafter\n"
    run_id = start(simulator, SimulatedCommand("dbt run", stdout=stdout), cursors=cursors)
    simulator.clock.advance(5)
    journal = Notebook()
    await look(LiveLogs(run_id, credentials, journal))
    assert max(len(record.text) for record in journal.records) <= 25_000
    assert "".join(journal.lines) == stdout.replace("\n", "")


@pytest.fixture
def warnings(caplog, monkeypatch) -> Callable[[], list[str]]:
    """The log records other than the output."""
    monkeypatch.setattr("paradime_flows.live.log_stream.run_logger", lambda: logging.getLogger("of-a-run"))
    caplog.set_level(logging.INFO, "of-a-run")
    return lambda: [
        f"{each.levelname}: {each.getMessage()}" for each in caplog.records if each.name == "of-a-run"
    ]


@pytest.fixture
def lagging(monkeypatch) -> Callable[[int], None]:
    """Makes `boltCommandLogs` hold back the last lines of each page with lines, and never report the end."""
    get = BoltClient.get_bolt_command_logs

    def lag(lines: int) -> None:
        async def get_less(self: BoltClient, command_id: int, cursor: str | None = None) -> BoltLogPage:
            page = await get(self, command_id, cursor)
            shown = page.lines[: len(page.lines) - lines]
            return page.model_copy(update={"lines": shown, "finished": False})

        monkeypatch.setattr(BoltClient, "get_bolt_command_logs", get_less)

    return lag


@pytest.mark.parametrize("behind", [0, 1, 20])
@pytest.mark.parametrize("mode", ["all", "head_and_tail"])
async def test_a_log_that_never_finishes_is_completed_from_the_output(
    simulator, credentials, lagging, warnings, behind, mode
):
    """Before the log is given up, it is compared with the output; missing lines are logged, and nothing twice."""
    outputs = [numbered(90, "first"), numbered(90, "second") + "end"]
    commands = [SimulatedCommand(f"dbt run {n}", stdout=text) for n, text in enumerate(outputs)]
    run_id = start(simulator, *commands)
    simulator.clock.advance(5)
    lagging(behind)
    journal = Notebook()
    await look(LiveLogs(run_id, credentials, journal, mode))
    assert sorted(journal.lines) == sorted("".join(outputs).splitlines())
    (message,) = warnings()
    assert message.startswith("INFO: Bolt did not report the log")


async def test_an_output_shorter_than_the_log_is_reported(
    simulator, credentials, lagging, warnings, monkeypatch
):
    """It is unknown then whether all lines are there: a warning says so, and the line in progress is not lost."""
    run_id = start(simulator, SimulatedCommand("dbt run", stdout=numbered(90) + "end"))
    simulator.clock.advance(5)
    lagging(0)
    get = BoltClient.get_bolt_command

    async def get_less(self: BoltClient, command_id: int) -> Any:
        return (await get(self, command_id)).model_copy(update={"stdout": numbered(80)})

    monkeypatch.setattr(BoltClient, "get_bolt_command", get_less)
    journal = Notebook()
    await look(LiveLogs(run_id, credentials, journal))
    assert journal.lines == (numbered(90) + "end").splitlines()
    (message,) = warnings()
    assert message.startswith(f"WARNING: The log of Bolt run {run_id} may be incomplete")


async def test_lines_that_keep_coming_are_logged_before_the_last(monkeypatch):
    """There is always another full page, and no batch is full for long: the available lines are logged."""
    get = BoltClient.get_bolt_command_logs

    async def get_slowly(self: BoltClient, command_id: int, cursor: str | None = None) -> BoltLogPage:
        await asyncio.sleep(0.3)
        return await get(self, command_id, cursor)

    monkeypatch.setattr(BoltClient, "get_bolt_command_logs", get_slowly)
    with BoltInProcess(speed=0, log_batch_lines=400) as simulator:
        command = SimulatedCommand("dbt run", duration_seconds=10, stdout=numbered(20_000))
        run_id = start(simulator, command)
        credentials = credentials_for(simulator)
        simulator.clock.advance(1)
        status = await status_of(credentials, run_id)
        simulator.clock.speed = 1
        journal = Notebook()
        await LiveLogs(run_id, credentials, journal).catch_up(status)
    assert journal.lines == numbered(20_000).splitlines()
    assert journal.writes > 5


async def test_a_page_that_is_not_full_is_the_last_for_now(simulator, credentials):
    """A command that keeps printing is not asked again at once: the caller makes a pause."""
    run_id = start(simulator, SimulatedCommand("dbt run", duration_seconds=100, stdout=numbered(9000)))
    simulator.clock.advance(20)
    logs = LiveLogs(run_id, credentials, Notebook())
    await look(logs)
    # Three full pages, one with the rest, and one that shows that there is no more.
    assert simulator.count("boltCommandLogs") <= 5
    before = simulator.count("boltCommandLogs")
    for _ in range(10):
        simulator.clock.advance(2)
        await look(logs)
    assert simulator.count("boltCommandLogs") == before + 10


async def test_an_unavailable_command_is_read_from_the_runs_status(simulator, credentials):
    """Neither its log nor its details are available, but the run's status has its output."""
    run_id = start(simulator, SimulatedCommand("dbt run", stdout=numbered(90)), cursors=False)
    simulator.clock.advance(5)
    simulator.inject(faults.GraphQLError("no such command", operation="boltCommand", times=None))
    journal = Notebook()
    await look(LiveLogs(run_id, credentials, journal))
    assert journal.lines == numbered(90).splitlines()


async def test_an_unreachable_output_is_reported(simulator, credentials, lagging, warnings):
    """The log is not finished, and there is nothing to compare it with."""
    run_id = start(simulator, SimulatedCommand("dbt run", stdout=numbered(90)))
    simulator.clock.advance(5)
    lagging(1)
    simulator.inject(faults.Status(503, operation="boltCommand", times=None))
    journal = Notebook()
    await look(LiveLogs(run_id, credentials, journal))
    assert journal.lines == numbered(89).splitlines()
    (message,) = warnings()
    assert message.startswith("WARNING: Not all output")
    assert "503" in message


async def test_without_cursors_only_the_running_command_is_fetched_again(simulator, credentials):
    """An ended command is fetched a last time, and no reply has the output of all."""
    commands = [
        SimulatedCommand(f"dbt run {n}", duration_seconds=10, stdout=numbered(100, str(n))) for n in range(3)
    ]
    run_id = start(simulator, *commands, cursors=False)
    journal = Notebook()
    logs = LiveLogs(run_id, credentials, journal)
    for _ in range(11):
        simulator.clock.advance(3)
        await look(logs)
    assert journal.lines == "".join(numbered(100, str(n)) for n in range(3)).splitlines()
    fetched = [request for request in simulator.requests if request.operations == ("boltCommand",)]
    # Three or four polls while each runs, one after its end, and the client's first try of a page.
    assert max(Counter(request.variables["commandId"] for request in fetched).values()) <= 6
    assert not [r for r in simulator.requests if "boltRunStatus" in r.operations and "stdout" in r.query]


async def test_without_cursors_a_large_output_is_polled_less_often(simulator, credentials):
    """The limit is a number of characters a second, whatever the poll interval; the end is not waited for."""
    stdout = numbered(2_000)
    run_id = start(simulator, SimulatedCommand("dbt run", duration_seconds=1, stdout=stdout), cursors=False)
    simulator.clock.advance(0.5)
    journal = Notebook()
    logs = LiveLogs(run_id, credentials, journal)
    fetched = []
    for _ in range(8):
        await look(logs)
        fetched.append(simulator.count("boltCommand"))
    # The client's first try of a page, and the first poll; then one of the next seven.
    assert fetched[0] == fetched[2] == 2
    assert fetched[-1] == 3
    simulator.clock.advance(1)
    await look(logs)
    assert journal.lines == stdout.splitlines()


@pytest.mark.parametrize(
    "count", [10_000, pytest.param(100_000, marks=pytest.mark.full)], ids=lambda count: f"{count:,}"
)
@pytest.mark.parametrize("cursors", BACKENDS)
async def test_very_many_lines_make_few_records(simulator, credentials, cursors, count):
    """There are about as many records as 20,000 characters each need, none is longer, and nothing is lost."""
    line = "12:00:00  OK created sql table model main.some_model ................ [OK in 0.10s] {}\n"
    text = "".join(line.format(n) for n in range(count))
    run_id = start(simulator, SimulatedCommand("dbt run", stdout=text), cursors=cursors)
    simulator.clock.advance(5)
    journal = Notebook()
    logs = LiveLogs(run_id, credentials, journal)
    await look(logs)
    assert journal.lines == text.splitlines()
    assert len(journal.records) < 1.25 * len(text) / RECORD_CHARACTERS
    assert max(len(record.text) for record in journal.records) <= RECORD_CHARACTERS
    assert journal.writes < 60


FAULTS = [
    pytest.param(lambda: faults.Status(503, operation="boltCommandLogs", times=3), id="503"),
    pytest.param(
        lambda: faults.CutConnection(operation="boltCommandLogs", after_acting=True, times=3), id="cut"
    ),
    pytest.param(lambda: faults.Garbage(operation="boltCommandLogs", times=3), id="garbage"),
    pytest.param(
        lambda: faults.Truncated(operation="boltCommandLogs", mid_transfer=True, times=3), id="truncated"
    ),
    pytest.param(
        lambda: faults.GraphQLError("internal error", operation="boltCommandLogs", times=3), id="error"
    ),
    pytest.param(lambda: faults.MissingData("nulls", operation="boltCommandLogs", times=3), id="nulls"),
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults_of_the_log_neither_lose_nor_repeat_a_line(simulator, credentials, fault: Any):
    """A page that is missing, broken or refused is fetched again from the same position."""
    run_id = start(simulator, SimulatedCommand("dbt run", duration_seconds=10, stdout=numbered(2000)))
    journal = Notebook()
    logs = LiveLogs(run_id, credentials, journal)
    for _ in range(6):
        simulator.clock.advance(1.5)
        if not journal.lines or len(journal.lines) == 300:
            simulator.inject(fault())
        try:
            await look(logs)
        except BoltUnavailable:
            continue
    simulator.clear_faults()
    simulator.clock.advance(10)
    await look(logs)
    assert journal.lines == numbered(2000).splitlines()


async def test_a_failed_drain_leaves_the_rest_to_the_next_attempt(simulator, credentials):
    """The log stays unreachable: the flow continues, and only logged lines count as logged."""
    run_id = start(simulator, SimulatedCommand("dbt run", stdout=numbered(10)))
    simulator.clock.advance(5)
    simulator.inject(faults.Status(503, operation="boltCommandLogs", times=None))
    journal = Notebook()
    await look(LiveLogs(run_id, credentials, journal))
    assert journal.lines == []
    simulator.clear_faults()
    await look(LiveLogs(run_id, credentials, journal))
    assert journal.lines == numbered(10).splitlines()


async def test_a_slow_drain_leaves_the_rest_to_the_next_attempt(simulator):
    """The time limit ends it while pages keep coming: lines not fetched do not count as logged."""
    run_id = start(simulator, SimulatedCommand("dbt run", stdout=numbered(6000)))
    simulator.clock.advance(5)
    simulator.inject(faults.Slow(29, operation="boltCommandLogs", times=None))
    credentials = credentials_for(simulator, request_timeout_seconds=30)
    journal = Notebook()
    await look(LiveLogs(run_id, credentials, journal))
    assert 0 < len(journal.lines) < 6000
    simulator.clear_faults()
    await look(LiveLogs(run_id, credentials, journal))
    assert journal.lines == numbered(6000).splitlines()


async def test_a_command_that_prints_all_the_time_is_logged_in_few_batches(simulator, credentials):
    """Each batch costs two requests to Prefect. So the lines of a long run wait for up to ten seconds."""
    run_id = start(simulator, SimulatedCommand("dbt run", duration_seconds=600, stdout=numbered(600)))
    journal = Notebook()
    logs = LiveLogs(run_id, credentials, journal)
    age = 0
    while not (status := await status_of(credentials, run_id)).state.is_terminal:
        await logs.catch_up(status)
        assert len(journal.lines) >= age - 14
        age += 2
        simulator.clock.advance(2)
        await asyncio.sleep(2)
    assert journal.writes < 90
    await logs.drain(status)
    assert journal.lines == numbered(600).splitlines()


async def test_nothing_accumulates_while_prefect_is_unreachable(simulator, credentials):
    """Nothing is recorded as logged, nothing more is fetched, and later it continues."""
    run_id = start(simulator, SimulatedCommand("dbt run", duration_seconds=10, stdout=numbered(1000)))
    journal = Notebook(failures=3)
    logs = LiveLogs(run_id, credentials, journal)
    simulator.clock.advance(5)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await look(logs)
    asked = simulator.count("boltCommandLogs")
    assert asked <= 2
    assert journal.kept is None
    simulator.clock.advance(10)
    await look(logs)
    assert journal.lines == numbered(1000).splitlines()
    assert journal.kept is not None


@pytest.mark.parametrize(
    "kept",
    [None, "", "x", "[]", "3", '{"done": 1}', '{"at": {"a": 1}}', '{"at": {"%d": [null, 1, 2, 3]}}'],
)
async def test_an_unreadable_label_starts_from_the_beginning(simulator, credentials, kept):
    """Others may have written it: it does no harm."""
    run_id = start(simulator, SimulatedCommand("dbt run", stdout=numbered(10)))
    simulator.clock.advance(5)
    (command,) = simulator.run(run_id).commands
    journal = Notebook(kept=kept and kept.replace("%d", str(command.id)))
    await look(LiveLogs(run_id, credentials, journal))
    assert journal.lines == numbered(10).splitlines()


async def test_credentials_and_signatures_are_not_logged(simulator, credentials):
    """A key, a secret, a link's signature and a password are removed; the rest of the line stays."""
    stdout = (
        f"key {simulator.api_key} secret={simulator.api_secret}!\n"
        "see https://store.test/run.json?X-Amz-Date=1&X-Amz-Signature=abcdef0123 now\n"
        'json {"url": "https://blob.test/a?sv=1&sig=abc%3D"}\n'
        "Cloning https://x-access-token:ghp_1234567890@github.com/acme/shop.git\n"
        "docs https://docs.getdbt.com/a?page=2\n"
    )
    run_id = start(simulator, SimulatedCommand("dbt run", stdout=stdout))
    simulator.clock.advance(5)
    journal = Notebook()
    await look(LiveLogs(run_id, credentials, journal))
    assert journal.lines == [
        "key [removed] secret=[removed]!",
        "see https://store.test/run.json?[removed] now",
        'json {"url": "https://blob.test/a?[removed]"}',
        "Cloning https://[removed]@github.com/acme/shop.git",
        "docs https://docs.getdbt.com/a?page=2",
    ]


@pytest.mark.parametrize("cursors", BACKENDS)
async def test_the_output_of_a_short_run_that_has_ended_needs_one_request(simulator, credentials, cursors):
    """However many commands it has: nothing of it was logged before."""
    commands = [SimulatedCommand(f"dbt run {n}", stdout=numbered(1200, f"of {n},")) for n in range(10)]
    run_id = start(simulator, *commands, cursors=cursors)
    simulator.clock.advance(20)
    journal = Notebook()
    await look(LiveLogs(run_id, credentials, journal))
    assert journal.lines == "".join(command.stdout or "" for command in commands).splitlines()
    assert [each.operations for each in simulator.requests] == [("boltRunStatus",), ("boltCommand",)]


async def test_a_short_run_whose_output_was_logged_in_part_continues(simulator, credentials):
    """What was logged is not requested again with the details."""
    first, second = numbered(100, "first"), numbered(100, "second")
    commands = [
        SimulatedCommand("dbt seed", 10, stdout=first),
        SimulatedCommand("dbt run", 10, stdout=second),
    ]
    run_id = start(simulator, *commands)
    journal = Notebook()
    logs = LiveLogs(run_id, credentials, journal)
    for seconds in (5, 20):
        simulator.clock.advance(seconds)
        await look(logs)
    assert journal.lines == (first + second).splitlines()
    (asked,) = [each for each in simulator.requests if each.operations == ("boltCommand",)]
    assert list(asked.variables) == ["commandId"]
