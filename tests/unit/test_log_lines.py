"""A command's output as lines: levels, records, positions, limits, and the progress of a run."""

from __future__ import annotations

import logging
import random
import tracemalloc
from collections import Counter

import pytest
from recorded import RECORDED

from paradime_blocks.models import BoltRunStatus
from paradime_blocks.text.redaction import Redactor
from paradime_flows.live.log_lines import (
    CommandLog,
    LevelReader,
    LineSplitter,
    NodeCount,
    Position,
    Record,
)
from paradime_flows.live.log_records import RECORD_CHARACTERS, join_lines
from paradime_flows.live.progress import percent_done

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR


def numbered(count: int, word: str = "line") -> str:
    return "".join(f"{word} {n}\n" for n in range(count))


@pytest.mark.parametrize("mode", ["all", "head_and_tail"])
def test_resuming_at_any_waiting_line_logs_each_line_once(mode):
    """However many lines a batch took, the next one continues from there, including the note on omitted lines."""
    text = {"STDOUT": numbered(150, "out"), "STDERR": numbered(140, "err")}

    def read(position: Position | None) -> CommandLog:
        log = CommandLog(1, position, mode)
        for stream, whole in text.items():
            log.feed(stream, whole)
        log.end()
        return log

    expected = [record.text for record in read(None).take()[0]]
    for most in range(50, 4000, 370):
        lines, position = read(None).take(most)
        rest, end = read(position).take()
        assert [record.text for record in [*lines, *rest]] == expected
        assert end.done


def test_resuming_in_the_middle_of_a_line_logs_the_whole_line():
    """The next process reads the part again that was held back when the first one died."""
    log = CommandLog(1)
    log.feed("STDOUT", "one\ntwo ")
    log.set_cursor("cursor-in-the-middle")
    lines, position = log.take()
    assert [line.text for line in lines] == ["one"]
    assert position.cursor is None
    again = CommandLog(1, position)
    again.feed("STDOUT", "one\ntwo and")
    again.feed("STDOUT", " a half")
    again.end()
    assert [line.text for line in again.take()[0]] == ["two and a half"]


def test_the_lines_do_not_depend_on_where_the_text_is_split():
    """The lines are the same for any pieces; a line without an end is split at the same places."""
    rng = random.Random(4)  # noqa: S311 - no secret
    text = "".join(rng.choice(["a", "é", " ", "\n", "\r\n", "x" * 700_000]) for _ in range(60))
    whole = LineSplitter()
    expected = whole.feed(text) + whole.end()
    for _ in range(5):
        splitter, lines, at = LineSplitter(), [], 0
        while at < len(text):
            size = rng.choice([1, 50, 10_000_000, 3_000_000])
            lines += splitter.feed(text[at : at + size])
            at += size
        assert lines + splitter.end() == expected
    assert "".join(expected) == text.replace("\n", "")


def _levels(path: str) -> list[Record]:
    reader = LevelReader("STDOUT")
    text = (RECORDED / path / "stdout.txt").read_text(encoding="utf-8")
    return [reader.read(line)[0] for line in text.splitlines()]


def test_levels_of_real_dbt_output():
    """In the failing build, errors and warnings have their levels, and an error's second line belongs to it."""
    found = _levels("failure/4-dbt-build")
    level = {record.text: record.level for record in found}

    def of(part: str) -> set[int]:
        return {level for text, level in level.items() if part in text}

    assert of("10 of 19 ERROR") == {ERROR}
    assert of("13 of 19 FAIL 1") == {ERROR}
    assert of("18 of 19 WARN 1") == {WARNING}
    assert of("7 of 19 OK created") == {INFO}
    assert of("Conversion Error: Could not convert") == {ERROR}
    assert of("- models.shop.intermediate") == {WARNING}
    assert not any("\x1b" in text for text in level)
    # Joined, they make far fewer records than lines, and no line is lost.
    records = join_lines(found)
    assert "\n".join(record.text for record in records).split("\n") == [record.text for record in found]
    assert len(records) < len(found) / 2


def test_json_and_debug_lines_of_real_dbt_have_their_own_level():
    """JSON lines become their message with the time; text and JSON agree on failures."""
    found = _levels("json_logs/3-dbt-log-format-json-build")
    assert not any(record.text.startswith("{") for record in found)
    assert Counter(record.level for record in found)[ERROR] >= 1
    failed = [record for record in found if "10 of 19 ERROR" in record.text]
    assert [record.level for record in failed] == [ERROR]
    assert failed[0].text[2] == ":"
    debug = _levels("debug_logs/3-dbt-log-format-debug-run-select-stg-payments-revenue")
    assert {record.level for record in debug} >= {INFO, ERROR}
    said, _ = LevelReader("STDERR").read("12:01:02.123456 [debug] [MainThread]: Acquiring new connection")
    assert said.level == logging.DEBUG


def test_nodes_done_are_counted_and_hooks_left_out():
    """The real build has 19 nodes; the hook that starts a new count after them changes nothing."""
    reader, count = LevelReader("STDOUT"), NodeCount()
    for line in (RECORDED / "failure/4-dbt-build/stdout.txt").read_text(encoding="utf-8").splitlines():
        count = count.after(reader.read(line)[1])
    assert count == (19, 19)


def test_a_command_log_does_not_grow_with_the_lines_already_logged():
    """A command that prints for days holds only what has not been taken yet."""
    log = CommandLog(1)
    piece = numbered(50)
    held = []
    tracemalloc.start()
    try:
        for n in range(30):
            log.feed("STDOUT", piece)
            log.set_cursor(f"{n}:0")
            log.take()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # A piece has 0.4 kB of text, and needs several times that as lines.
    assert max(held[15:]) < held[10] + 3000


def test_levels_that_keep_changing_do_not_flood():
    """Lines of alternating levels share records of the highest level once there are too many."""
    lines = [Record(WARNING if n % 2 else INFO, f"line {n}") for n in range(10_000)]
    records = join_lines(lines)
    assert len(records) < 60
    assert "\n".join(record.text for record in records).split("\n") == [line.text for line in lines]


def test_a_megabyte_in_one_line_is_several_records():
    """Each fits Prefect Cloud's limit."""
    records = join_lines([Record(INFO, "x" * 1_000_000)])
    assert max(len(record.text) for record in records) <= RECORD_CHARACTERS
    assert "".join(record.text for record in records) == "x" * 1_000_000


@pytest.mark.parametrize(
    "text", ["://" * 300_000, "a" * 1_000_000, "https://a:b@" * 40_000, "x?sig=" * 100_000]
)
def test_redaction_of_hostile_text_is_quick(text):
    """No text takes more than a moment: the test's time limit checks that."""
    assert Redactor(["secret-of-ours"])(text)


def _status(state: str, *commands: tuple[str, int | None]) -> BoltRunStatus:
    listed = [
        {
            "id": n,
            "command": command,
            "returnCode": code,
            "endDttm": "2026-01-01 00:00:00" if code is not None else "",
        }
        for n, (command, code) in enumerate(commands, 1)
    ]
    return BoltRunStatus.model_validate({"ok": True, "state": state, "commands": listed})


PLAN = ["dbt seed", "dbt run", "dbt test", "dbt docs generate"]


@pytest.mark.parametrize(
    "status,planned,nodes,expected",
    [
        pytest.param(_status("RUNNING"), PLAN, {}, 0, id="nothing-yet"),
        pytest.param(_status("RUNNING", ("git clone x", 0), ("dbt deps", None)), PLAN, {}, 0, id="setup"),
        pytest.param(_status("RUNNING", ("git clone x", 0), ("dbt seed", 0)), PLAN, {}, 25, id="one-of-four"),
        pytest.param(
            _status("RUNNING", ("dbt seed", 0), ("dbt run", None)),
            PLAN,
            {2: (5, 10)},
            37.5,
            id="within-a-command",
        ),
        pytest.param(_status("RUNNING", ("dbt retry", 0), ("dbt test", None)), PLAN, {}, 100 / 3, id="retry"),
        pytest.param(_status("RUNNING", ("make", None)), [], {1: (1, 2)}, 25, id="unknown-plan"),
        pytest.param(_status("RUNNING", *[(text, 0) for text in PLAN]), PLAN, {}, 99, id="not-yet-success"),
        pytest.param(_status("SUCCESS", ("dbt seed", 0)), PLAN, {}, 100, id="success"),
        pytest.param(_status("FAILED", ("dbt seed", 0), ("dbt run", 1)), PLAN, {}, 50, id="failed"),
    ],
)
def test_percent_done(status, planned, nodes, expected):
    """Commands count equally, set-up does not count, and only success is 100."""
    assert percent_done(status, planned, nodes) == pytest.approx(expected)


def test_the_details_of_a_warning_are_in_its_record():
    """dbt prints the path of the compiled code after an empty line: one message is one record, and not two."""
    path = RECORDED / "failure/4-dbt-build/stdout.txt"
    reader = LevelReader("STDOUT")
    pieces = [piece.record for piece in reader.read_all(path.read_text(encoding="utf-8").splitlines())]
    for lines in (pieces, _levels("failure/4-dbt-build")):
        (found,) = [
            record for record in join_lines(lines) if "  Warning in test relationships" in record.text
        ]
        assert found.level == WARNING
        told = [line[10:] for line in found.text.splitlines() if line[10:]]
        assert told[:1] == [
            "Warning in test relationships_orders_customer_id__id__ref_customers_ (models/schema.yml)"
        ]
        assert told[1] == "Got 1 result, configured to warn if != 0"
        assert told[2].startswith("  compiled code at ")
        (after,) = [record for record in join_lines(lines) if "Done. PASS" in record.text]
        assert after.level == INFO
