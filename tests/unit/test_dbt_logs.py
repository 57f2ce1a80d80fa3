"""dbt's log lines, in each of its formats, are read with the meaning that dbt gives them."""

from __future__ import annotations

import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import RECORDED
from support.properties import fewer_examples

from paradime_blocks.dbt.logs import LogLine, first_error, last_line, parse_line

REVENUE_ERROR = (
    "Runtime Error in model revenue (models/marts/revenue.sql) Conversion Error: "
    "Could not convert string 'card' to INT32 when casting from source column note"
)


def output(case: str, command: str) -> str:
    """The standard output of one recorded command."""
    (folder,) = RECORDED.joinpath(case).glob(f"*-{command}")
    return folder.joinpath("stdout.txt").read_text(encoding="utf-8")


def lines(case: str, command: str) -> list[LogLine]:
    """The same, with each line parsed."""
    return [parse_line(line) for line in output(case, command).splitlines()]


def finished(parsed: list[LogLine]) -> list[tuple[str, int]]:
    """The nodes that ended, with their levels; sorted, since threads end in any order."""
    return sorted(
        (re.sub(r"^[0-9]+ of |\.{3,}.*", "", line.message), line.level)
        for line in parsed
        if line.progress and line.status != "START"
    )


def test_text_lines_get_the_level_of_the_same_json_lines() -> None:
    """The same failing build, logged as text and as JSON, has the same levels for nodes and for errors."""
    as_text, as_json = lines("failure", "dbt-build"), lines("json_logs", "dbt-log-format-json-build")
    assert finished(as_text) == finished(as_json)
    assert len(finished(as_text)) == 20
    # In the text log, each line of a multi-line JSON event is a line.
    stated = {part.strip(): event.level for event in as_json for part in event.message.split("\n")}
    # dbt wraps one warning over three lines; only the first one says so in text.
    wrapped = {"There are 1 unused configuration paths:", "- models.shop.intermediate"}
    compared = [line for line in as_text if line.message.strip() in stated.keys() - wrapped]
    assert {line.level for line in compared} == {logging.INFO, logging.WARNING, logging.ERROR}
    assert [line for line in compared if stated[line.message.strip()] != line.level] == []


def test_debug_lines_state_their_level() -> None:
    """With --log-format debug, the level in brackets counts; the level and the thread are not shown."""
    parsed = lines("debug_logs", "dbt-log-format-debug-run-select-stg-payments-revenue")
    errors = [line.message for line in parsed if line.level == logging.ERROR and line.progress]
    assert len(errors) == 1
    assert errors[0].startswith("2 of 2 ERROR creating sql table model main.revenue ..")
    assert not any("[info" in line.message or "MainThread" in line.message for line in parsed)


def test_progress_runs_from_first_to_last() -> None:
    """Every node of a build starts once and ends once, whatever its outcome."""
    parsed = [line for line in lines("failure", "dbt-build") if line.progress and line.progress[1] == 19]
    started = sorted(line.progress[0] for line in parsed if line.progress and line.status == "START")
    ended = sorted(line.progress[0] for line in parsed if line.progress and line.status != "START")
    # A node that is skipped never starts.
    assert started == list(range(1, 19))
    assert ended == list(range(1, 20))
    assert {line.status for line in parsed} == {"START", "OK", "PASS", "ERROR", "FAIL", "WARN", "SKIP"}


def test_json_and_text_count_alike() -> None:
    """A JSON event has the same progress as its text."""
    as_text = {line.progress for line in lines("failure", "dbt-build")}
    as_json = {line.progress for line in lines("json_logs", "dbt-log-format-json-build")}
    assert as_text == as_json


@pytest.mark.parametrize(
    "line,expected",
    [
        pytest.param(
            "12:01:02  1 of 5 ERROR creating sql view model a.b .... [ERROR in 0.10s]",
            LogLine(40, "1 of 5 ERROR creating sql view model a.b .... [ERROR in 0.10s]", (1, 5), "ERROR"),
            id="text",
        ),
        pytest.param("12:01:02  [WARNING]: Deprecated", LogLine(30, "[WARNING]: Deprecated"), id="warning"),
        pytest.param("12:01:02  [WARN] x", LogLine(30, "[WARN] x"), id="warn"),
        pytest.param("12:01:02  [ERROR]: x", LogLine(40, "[ERROR]: x"), id="error"),
        pytest.param(
            "12:01:02  Encountered an error:", LogLine(40, "Encountered an error:"), id="encountered"
        ),
        pytest.param("12:01:02  ", LogLine(20, ""), id="empty-with-time"),
        pytest.param("", LogLine(20, ""), id="empty"),
        pytest.param(
            "fatal: could not read from remote", LogLine(40, "fatal: could not read from remote"), id="git"
        ),
        pytest.param(
            "    Failed [  1.74s] test  a.b", LogLine(40, "    Failed [  1.74s] test  a.b"), id="fusion-node"
        ),
        pytest.param(
            "error: dbt1005: no such column", LogLine(40, "error: dbt1005: no such column"), id="fusion"
        ),
        pytest.param(
            "warning: dbt1065: unused", LogLine(30, "warning: dbt1065: unused"), id="fusion-warning"
        ),
        pytest.param(
            '{"code": "Q012", "data": {"index": 3, "total": 7}, "level": "info", "log_version": 1, "msg": '
            '"12:01:02  3 of 7 OK created view model x ... [OK in 0.1s]"}',
            LogLine(20, "12:01:02  3 of 7 OK created view model x ... [OK in 0.1s]", (3, 7), "OK"),
            id="json-of-dbt-1.0",
        ),
        pytest.param(
            '{"timestamp": "2020-11-24T09:09:04Z", "message": "\\u001b[33mWarning in test x", '
            '"level": "WARNING"}',
            LogLine(30, "Warning in test x"),
            id="json-of-dbt-0.x",
        ),
        pytest.param(
            '{"info": {"level": "info", "msg": "hook"}, "data": {"index": 1, "total": 2}}',
            LogLine(20, "hook", (1, 2)),
            id="json-progress-in-data",
        ),
        pytest.param(
            '{"info": {"level": "info", "msg": "x"}, "data": {"index": 3, "total": 2}}',
            LogLine(20, "x"),
            id="json-progress-impossible",
        ),
        pytest.param("Warning: no packages", LogLine(30, "Warning: no packages"), id="plain-warning"),
        pytest.param('{"level": "error"}', LogLine(20, '{"level": "error"}'), id="json-without-message"),
        pytest.param('{"info": {"msg": 3}}', LogLine(20, '{"info": {"msg": 3}}'), id="json-of-another-shape"),
        pytest.param('{"info": ', LogLine(20, '{"info": '), id="json-cut-off"),
        pytest.param("{" * 10, LogLine(20, "{" * 10), id="braces"),
        pytest.param("7 of 5 OK x", LogLine(20, "7 of 5 OK x"), id="impossible-progress"),
        pytest.param("5 of us ERROR", LogLine(20, "5 of us ERROR"), id="no-progress"),
        pytest.param("No Error occurred", LogLine(20, "No Error occurred"), id="error-as-a-word"),
        pytest.param("select 'ERROR: x'", LogLine(20, "select 'ERROR: x'"), id="error-within"),
    ],
)
def test_a_line_is_parsed(line: str, expected: LogLine) -> None:
    """Level, message and progress of one line, from any dbt."""
    assert parse_line(line) == expected


def test_json_that_is_nested_too_deep_is_text() -> None:
    """A line that exhausts the JSON parser is treated as text."""
    line = '{"a":' * 100_000
    assert parse_line(line) == LogLine(logging.INFO, line)


@given(st.one_of(st.text(), st.text(alphabet='{}[]":,0123456789 of\x1bERORTSKIP'), st.binary().map(repr)))
def test_every_line_comes_back_as_a_line(line: str) -> None:
    """Whatever a command prints, the result is a log level and a clean message."""
    parsed = parse_line(line)
    assert parsed.level in {10, 20, 30, 40, 50}
    assert "\x1b" not in parsed.message
    assert parsed.progress is None or 0 < parsed.progress[0] <= parsed.progress[1]


@fewer_examples
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
        lambda inner: st.one_of(
            st.lists(inner),
            st.dictionaries(st.sampled_from(["info", "data", "level", "msg", "index", "total"]), inner),
        ),
        max_leaves=5,
    )
)
def test_every_json_comes_back_as_a_line(content: object) -> None:
    """JSON like dbt's, with any values in its fields, is parsed or treated as text."""
    assert parse_line(json.dumps(content)).level in {10, 20, 30, 40, 50}


@pytest.mark.parametrize(
    "case,command,expected",
    [
        pytest.param(
            "compilation_error",
            "dbt-run-vars-break-parsing-true",
            "Compilation Error in model stg_payments (models/staging/stg_payments.sql) "
            "the variable break_parsing was given",
            id="before-any-node",
        ),
        pytest.param(
            "failure",
            "dbt-build",
            REVENUE_ERROR,
            id="node",
        ),
        pytest.param(
            "json_logs",
            "dbt-log-format-json-build",
            REVENUE_ERROR,
            id="json",
        ),
        pytest.param("success", "dbt-build-exclude-tag-broken", None, id="no-error"),
    ],
)
def test_the_first_error_is_found_in_the_output(case: str, command: str, expected: str | None) -> None:
    """The error is read from the output, with the lines that belong to it."""
    assert first_error(output(case, command)) == expected


FRAMES = '  File "upload.py", line 3, in main\n    send()\n    ^^^^^^\n' * 20
CHAINED = "\nDuring handling of the above exception, another exception occurred:\n\n"


@pytest.mark.parametrize(
    "text, expected",
    [
        pytest.param(
            "Usage: dbt [OPTIONS] COMMAND [ARGS]...\nTry 'dbt -h' for help.\n\nError: No such command 'foo'.\n",
            "Error: No such command 'foo'.",
            id="dbt's command line",
        ),
        pytest.param("bash: foo: command not found\n", "bash: foo: command not found", id="bash"),
        pytest.param("/bin/sh: 1: foo: not found\n", "/bin/sh: 1: foo: not found", id="sh"),
        pytest.param(
            "bash: ./x.sh: Permission denied", "bash: ./x.sh: Permission denied", id="no permission"
        ),
        pytest.param(
            "./x.sh: line 3: foo: command not found", "./x.sh: line 3: foo: command not found", id="a script"
        ),
        pytest.param("make: *** [all] Error 2\n", "make: *** [all] Error 2", id="make"),
        pytest.param("bash: warning: setlocale: cannot change locale", None, id="a shell's warning"),
        pytest.param(
            f"begin\nTraceback (most recent call last):\n{FRAMES}botocore.ClientError: bucket is gone\ndone\n",
            "botocore.ClientError: bucket is gone",
            id="traceback",
        ),
        pytest.param(
            f"Traceback (most recent call last):\n{FRAMES}KeyError: 'a'\n{CHAINED}"
            f"Traceback (most recent call last):\n{FRAMES}ValueError: no a\n",
            "ValueError: no a",
            id="chained tracebacks",
        ),
        pytest.param(
            json.dumps(
                {"info": {"level": "error", "msg": f"Traceback (most recent call last):\n{FRAMES}E: x"}}
            ),
            "E: x",
            id="traceback as JSON",
        ),
        pytest.param(
            "Traceback (most recent call last):\n  File",
            "Traceback (most recent call last):",
            id="traceback that is cut off",
        ),
    ],
)
def test_the_first_error_of_other_tools_is_found(text: str, expected: str | None) -> None:
    """A schedule also runs shells, make and Python. For a traceback, the exception is reported, not the frames."""
    assert first_error(text) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        pytest.param("a\nb\n\n\x1b[0m \n", "b", id="blank lines"),
        pytest.param("12:00:00  Done.\n", "Done.", id="dbt's time"),
        pytest.param("x" * 100_000, "x" * 299 + "…", id="long"),
        pytest.param(" \n", None, id="nothing"),
    ],
)
def test_the_last_line_of_a_commands_output_is_found(text: str, expected: str | None) -> None:
    """If no line looks like an error, it is the best information."""
    assert last_line(text) == expected


def test_the_first_error_is_bounded() -> None:
    """An error of a megabyte is cut."""
    message = first_error("fatal: " + "x" * 1_000_000, limit=100)
    assert message is not None
    assert len(message) == 100
    assert message.endswith("…")
