"""Each line has dbt's own level, in every dialect; an error has exactly its lines."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from recorded import RECORDED
from support.properties import fewer_examples

from paradime_blocks.dbt.log_levels import LevelReader
from paradime_blocks.dbt.logs import errors_in, first_error
from paradime_flows.live.log_lines import CommandLog, NodeCount

CASES = Path(__file__).parents[1] / "dbt_cases"
LETTERS = {"D": logging.DEBUG, "I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR}


def case(name: str) -> str:
    """The log of a case."""
    return (CASES / f"{name}.log").read_text(encoding="utf-8")


def levels(text: str, stream: str = "STDOUT") -> str:
    """The levels of a text's lines, by their first letters."""
    reader = LevelReader(stream)  # type: ignore[arg-type]
    return "".join(
        logging.getLevelName(reader.read(line)[0].level)[0] for line in text.removesuffix("\n").split("\n")
    )


@pytest.mark.parametrize(
    "name, expected, error",
    [
        (
            "02_freshness_in_selector",
            "IEI",
            "1 of 1 FAIL 4 pallets_freshness_check ........ [FAIL 4 in 0.10s]",
        ),
        (
            "03_hook_failed_1_7",
            "IIIIIIIIIIEEEII",
            'on-run-end failed, error: relation "gone" does not exist LINE 2: select * from gone',
        ),
        (
            "03_hook_failed_1_9",
            "IEIIIEE",
            'depot.on-run-end.0 failed, error: relation "gone" does not exist',
        ),
        (
            "04_fusion_no_message",
            "IIEEEI",
            "error: dbt1308: Conversion Error: cannot cast 'abc' to INT --> models/crates.sql:3:7",
        ),
        (
            "04_run_operation_failed",
            "IEEE",
            (
                'Encountered an error while running operation: Database Error relation "gone" does not exist '
                "LINE 3: select * from gone"
            ),
        ),
        ("06_nothing_to_do", "IWW", None),
        (
            "07_microbatch",
            "IIEEEEIIIIIII",
            "Unhandled error while executing Exception on worker thread. Database Error division by zero",
        ),
        (
            "08_unit_test_diff",
            "EEEEEEEEEEI",
            "Failure in unit_test adds_up (models/x.yml) actual differs from expected: @@,id,amount → ,1 ,3→2",
        ),
        ("09a_fusion_failed_durations", "IIIEEEEI", "Failed [ 5m42s] model main.b (table)"),
        ("09b_fusion_after_failure", "IIWIEIII", "Failed [ 1.74s] test main.unique_a"),
        (
            "13_dbt_1_5_error_lines",
            "IIEEEII",
            (
                "Database Error in model crates (models/crates.sql) division by zero "
                "compiled Code at target/run/depot/models/crates.sql"
            ),
        ),
        ("15_encountered_then_traceback", "IEEEEEEEE", "AssertionError"),
        (
            "16_source_missing_and_stale",
            "EEIEEI",
            'Database Error in source missing (models/s.yml) relation "depot.missing" does not exist',
        ),
    ],
)
def test_lines_of_real_logs(name: str, expected: str, error: str | None) -> None:
    """Each line's level, and the first error with all its lines."""
    assert (levels(case(name)), first_error(case(name))) == (expected, error)


@pytest.mark.parametrize(
    "text, expected",
    [
        pytest.param(
            "Running with dbt=0.21.0\n10:00:00 | 1 of 2 START table model a.b.... [RUN]\n"
            "10:00:01 | 1 of 2 ERROR creating table model a.b.... [ERROR in 0.1s]\n"
            "10:00:01 | 2 of 2 WARN 3 not_null_a_id.... [WARN 3 in 0.1s]\n10:00:01 | \n"
            "Database Error in model b (models/b.sql)\n  division by zero\n  compiled SQL at x.sql\n\nDone. PASS=0",
            "IIEWIEEEII",
            id="dbt 0.21",
        ),
        pytest.param(
            "2021-10-01 10:00:00.123456 (MainThread): Encountered an error:\n"
            "2021-10-01 10:00:00.123456 (MainThread): Runtime Error\n  no profile\n"
            "2021-10-01 10:00:00.123456 (MainThread): Flushing usage events",
            "EEEI",
            id="dbt 0.21 in full",
        ),
        pytest.param(
            "10:00:00  Warning in test a (m.yml)\n10:00:00  anything that the test says\n10:00:00  \n10:00:00  x",
            "WWII",
            id="the message of a warning",
        ),
        pytest.param(
            "10:00:00  Failure in test a (m.yml)\n10:00:00    Got 3 results, configured to fail if != 0\n"
            "10:00:00  \n10:00:00    compiled code at target/a.sql",
            "EEII",
            id="the message of a failed test",
        ),
        pytest.param(
            "10:00:00  on-run-end failed, error:\n10:00:00   Catalog Error: no table gone\n10:00:00  Did you mean x?\n"
            "10:00:00  \n10:00:00  Done. PASS=1",
            "EEEII",
            id="a hook of dbt 1.5",
        ),
        pytest.param(
            "10:00:00  1 of 1 ERROR creating sql view model a.b .. [ERROR in 0.1s]\nprinted by a macro",
            "EI",
            id="output after a line of progress",
        ),
        pytest.param("10:00:00  Encountered an error while generating catalog: x", "W", id="no catalog"),
        pytest.param("10:00:00  dbt encountered 2 failures while writing the catalog", "E", id="catalog"),
        pytest.param("10:00:00  No nodes selected!", "W", id="no nodes"),
        pytest.param(
            "10:00:00  Batch 3 of 9 SKIP batch 2024-01-03 of a.b ... [SKIP]", "I", id="skipped batch"
        ),
        pytest.param("10:00:00  CANCEL query model.a.b ............ [CANCEL]", "E", id="cancelled query"),
        pytest.param("10:00:00  [WARNING]: a\nb\n\nc\n10:00:00  d", "WWWWI", id="a warning of several lines"),
        pytest.param(
            "10:00:00.1 [debug] [MainThread]: On a:\nselect 1\n10:00:00.1 [error] [Thread-1]: Database Error\n"
            "  x\n10:00:00.1 [info ] [MainThread]: Done.",
            "DDEEI",
            id="debug format",
        ),
        pytest.param(
            '{"info": {"level": "error", "msg": "a\\nb"}}\nprinted\n{"level": "warn", "msg": "x"}\n'
            '{"level": "ERROR", "message": "x"}\n{"severity_text": "WARN", "body": "x", "record_type": "LogRecord"}',
            "EIWEW",
            id="JSON of every version",
        ),
        pytest.param(
            "[error] [DbSqlError (dbt1308)]: cannot cast\n  --> models/a.sql:3:7\n    Warned [  1.2s ] test  a\n"
            " Cancelled [-------] model b\n   Skipped [-------] model c\n  Finished 'build' with 1 error [2s]",
            "EEWWII",
            id="Fusion",
        ),
        pytest.param(
            "Test failed: adds_up\n@@,id\n→ ,1\n\n==== Execution Summary ====",
            "EEEII",
            id="Fusion's unit test",
        ),
        pytest.param(
            "Traceback (most recent call last):\n  File x\n    y()\nAssertionError\ndone",
            "EEEEI",
            id="traceback",
        ),
        pytest.param("    Caused by: x\n    at y", "II", id="an indented word of another program"),
    ],
)
def test_lines_of_other_dialects(text: str, expected: str) -> None:
    """dbt 0.21 to 1.12 as text, in debug format and as JSON, and dbt Fusion."""
    assert levels(text) == expected


def test_an_error_in_two_json_events_is_one() -> None:
    """dbt announces it in the first."""
    events = [("error", "Failure in test a (m.yml)"), ("error", "  Got 3 results"), ("error", "Other")]
    text = "\n".join(json.dumps({"info": {"level": level, "msg": message}}) for level, message in events)
    assert errors_in([text]) == ["Failure in test a (m.yml)\n  Got 3 results", "Other"]


def test_git_progress_on_standard_error_is_not_a_warning() -> None:
    """A healthy run does not start with warnings; other lines there still are warnings."""
    text = (
        "Cloning into 'shop'...\nremote: Enumerating objects: 5, done.\nReceiving objects:  45% (9/20)\n"
        "remote: Counting objects: 100% (5/5)\nFrom https://git.example.com/shop\n * [new branch]      a\n"
        "Note: switching to 'abc1234'.\n\nYou are in 'detached HEAD' state. You can look around\n"
        "a hint of another program\nfatal: could not read\n10:00:00  1 of 1 START test a"
    )
    assert levels(text, "STDERR") == "IIIIIIIWIWEI"


FRAGMENTS = st.sampled_from(
    [
        *(
            line
            for path in sorted(CASES.glob("*.log"))
            for line in path.read_text(encoding="utf-8").split("\n")
        ),
        *("{", '{"info": {"level": "error", "msg": "3 of 4 OK x"}}', "\x1b[31mERROR: x\x1b[0m", "a\rb", "  "),
        *("10:00:00.1 [debug] [x]: y", "During handling of the above exception, another exception occurred:"),
        *(
            "10:00:00",
            "12:00:00  ",
            "5 of 7 OK x",
            "   abc1234..def5678",
            "Receiving objects:   1% (1/9)",
            "\t",
        ),
    ]
)


@example(["10:00:00  1 of 1 START test a"], "STDERR", 1)
@fewer_examples
@given(st.lists(FRAGMENTS, max_size=12), st.sampled_from(["STDOUT", "STDERR"]), st.integers(1, 8))
def test_lines_have_the_same_levels_together_as_one_by_one(lines, stream, size) -> None:
    """Lines without information are skipped at once, which changes nothing."""
    one, many, counts = LevelReader(stream), LevelReader(stream), [NodeCount(), NodeCount()]
    expected, found = [], []
    for line in lines:
        record, parsed = one.read(line)
        counts[0] = counts[0].after(parsed)
        expected.append(tuple(record))
    for at in range(0, len(lines), size):
        for piece in many.read_all(lines[at : at + size]):
            texts = piece.record.text.split("\n") if piece.line is None else [piece.record.text]
            assert len(texts) == piece.lines
            found += [(piece.record.level, text) for text in texts]
            counts[1] = counts[1].after(piece.line) if piece.line else counts[1].after_text(piece.record.text)
    assert found == expected
    assert counts[0] == counts[1]


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*/*/stdout.txt")), ids=lambda path: path.parent.name)
def test_real_logs_have_the_same_levels_however_they_are_read(path: Path) -> None:
    """The logs are those of all recorded commands."""
    lines = path.read_text(encoding="utf-8").split("\n")
    reader = LevelReader("STDOUT")
    expected = [tuple(reader.read(line)[0]) for line in lines]
    found = [
        (piece.record.level, text)
        for piece in LevelReader("STDOUT").read_all(lines)
        for text in (piece.record.text.split("\n") if piece.line is None else [piece.record.text])
    ]
    assert found == expected


def test_batches_and_hooks_do_not_count_as_nodes() -> None:
    """Their counts start again within a model, and after it."""
    log = CommandLog(1)
    log.feed("STDOUT", case("07_microbatch") + "10:00:03  1 of 7 OK hook: depot.on-run-end.0 [OK in 0.1s]\n")
    assert log.nodes == (1, 1)
