"""What the page shows of real runs: each failure with its reason, and no tick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paradime_blocks.dbt.artifacts import parse_run_results
from paradime_blocks.dbt.reasons import LogReasons, explain, reasons_in
from paradime_blocks.dbt.results import command_asked, summarise
from paradime_blocks.models import BoltRunStatus
from paradime_flows.reporting.dbt_results import DbtStory
from paradime_flows.reporting.failure_cause import cause_of

CASES = Path(__file__).parents[1] / "dbt_cases"
GONE = 'relation "gone" does not exist'


def results(*nodes: dict[str, Any], which: Any = "build", **metadata: Any) -> bytes:
    """A run_results.json."""
    return json.dumps({"metadata": metadata, "args": {"which": which}, "results": list(nodes)}).encode()


def node(name: str, status: Any = "error", **fields: Any) -> dict[str, Any]:
    """The entry of a node in it."""
    return {"unique_id": name if "." in name else f"model.depot.{name}", "status": status, **fields}


def story_of(command: str, log: str = "", code: int = 1, **files: bytes) -> tuple[DbtStory, str | None]:
    """A run of one command for a page, and the cause in its summary."""
    status = BoltRunStatus.model_validate(
        {
            "state": "FAILED" if code else "SUCCESS",
            "commands": [{"id": 1, "command": command, "returnCode": code}],
        }
    )
    story = DbtStory()
    for kind, content in files.items():
        story.read(kind, content, command)  # type: ignore[arg-type]
    reasons = reasons_in([log])
    if code:
        story.explain(status.commands[0], reasons)
    return story, cause_of(status, story, reasons.errors[0] if reasons.errors else None, None)


def case(name: str, command: str, code: int = 1, log: str | None = None) -> tuple[DbtStory, str | None]:
    """The same from a case's files."""
    kinds = {"results": "run_results", "freshness": "sources"}
    files = {
        kind: path.read_bytes()
        for kind, file in kinds.items()
        if (path := CASES / f"{name}.{file}.json").exists()
    }
    path = CASES / f"{log or name}.log"
    return story_of(command, path.read_text(encoding="utf-8") if path.exists() else "", code, **files)


def title(story: DbtStory) -> str:
    """The first line of the page."""
    return story.render("a run", None).split("\n")[0]


@pytest.mark.parametrize(
    "name, command, expected",
    [
        (
            "02_freshness_in_selector",
            "dbt test --select x_freshness_check",
            (
                "dbt test --select x_freshness_check: test pallets_freshness_check failed: "
                "Got 4 results, configured to fail if != 0"
            ),
        ),
        (
            "03_hook_failed_1_7",
            "dbt run",
            'dbt run: operation on-run-end failed: relation "gone" does not exist LINE 2: select * from gone',
        ),
        (
            "04_run_operation_failed",
            "dbt run-operation clean_up",
            (
                "dbt run-operation clean_up: macro clean_up failed: Encountered an error while running operation: "
                'Database Error relation "gone" does not exist LINE 3: select * from gone'
            ),
        ),
        (
            "04_fusion_no_message",
            "dbt build",
            (
                "dbt build: model crates failed: error: dbt1308: Conversion Error: cannot cast 'abc' to INT "
                "--> models/crates.sql:3:7"
            ),
        ),
        (
            "07_microbatch",
            "dbt run",
            (
                "dbt run: model events succeeded in part: 1 of 2 batches (2024-01-01) failed: Unhandled error while "
                "executing Exception on worker thread. Database Error division by zero"
            ),
        ),
        (
            "16_source_missing_and_stale",
            "dbt source freshness",
            "dbt source freshness: source yard.crates is stale (more than 2 days old); 1 more failed",
        ),
    ],
)
def test_the_failure_is_named_with_its_reason(name, command, expected) -> None:
    """They are in the summary and at the top of the page, which has no tick."""
    story, message = case(name, command)
    assert message == expected
    assert title(story).startswith("# ❌ ")
    assert story.cause() == expected


def test_a_source_whose_query_failed_is_shown_beside_the_stale_one() -> None:
    """dbt 1.9 and newer leave it out of sources.json."""
    story, _ = case("16_source_missing_and_stale", "dbt source freshness")
    assert [(source.name, source.status) for source in story.freshness] == [
        ("yard.crates", "error"),
        ("yard.missing", "runtime error"),
    ]
    assert 'relation "depot.missing" does not exist' in story.render("a run", None)
    assert story.counts() == "1 source stale, 1 source not checked"


def test_failed_batches_are_listed_without_invented_rows() -> None:
    """The file's 0 failures of the model are not rows."""
    page = case("07_microbatch", "dbt run")[0].render("a run", None)
    assert "batches that failed: 1 of 2 batches (2024-01-01)" in page
    assert "rows: 0" not in page


def test_a_model_with_only_failed_batches_has_a_reason() -> None:
    """dbt's own message only repeats the status."""
    batches = {"successful": [], "failed": [["2024-01-01T06:00:00Z", "2024-01-01T07:00:00Z"]]}
    content = results(node("events", message="ERROR", batch_results=batches))
    _, told = story_of("dbt build", "10:00:00  Unhandled error while executing \nno disk", results=content)
    assert told == (
        "dbt build: model events failed: 1 of 1 batches (2024-01-01T06:00:00Z) failed: "
        "Unhandled error while executing no disk"
    )


def test_a_hook_in_the_results_is_reported_once() -> None:
    """From dbt 1.9 on, the hook has an entry."""
    message = f"depot.on-run-end.0 failed, error:\n {GONE}"
    content = results(
        node("operation.depot.depot-on-run-end-0", message=message), node("a", "success", message="SELECT 1")
    )
    log = (CASES / "03_hook_failed_1_9.log").read_text(encoding="utf-8")
    story, shown = story_of("dbt build", log, results=content)
    assert (
        shown == f"dbt build: operation depot-on-run-end-0 failed: depot.on-run-end.0 failed, error: {GONE}"
    )
    assert story.counts() == "1 failed, 1 succeeded"


def test_a_hook_that_fails_in_a_check_of_sources_is_named() -> None:
    """From dbt 1.10 on, hooks also run there; the check writes no results."""
    log = (CASES / "03_hook_failed_1_9.log").read_text(encoding="utf-8")
    fresh = json.dumps({"results": [{"unique_id": "source.a.b.c", "status": "pass"}]}).encode()
    story, told = story_of("dbt source freshness", log, freshness=fresh)
    assert told == f"dbt source freshness: operation depot.on-run-end.0 failed: {GONE}"
    assert story.counts() == "1 failed"
    assert title(story).startswith("# ❌ ")


def test_each_failure_has_its_own_reason() -> None:
    """dbt Fusion writes no messages: the path, or the name after kind or dot, links errors to nodes."""
    log = (
        "error: dbt1308: cannot cast\n  --> models/b.sql:3:7\nerror: dbt1501: no such column\n  --> models/a.sql:1:1\n"
        "error: dbt9999: a and b\n"
    )
    story, _ = story_of("dbt build", log, results=results(node("a"), node("b"), node("c")))
    message = {each.name: each.message for each in story.results.nodes}
    assert message == {
        "a": "error: dbt1501: no such column\n  --> models/a.sql:1:1",
        "b": "error: dbt1308: cannot cast\n  --> models/b.sql:3:7",
        "c": "error: dbt9999: a and b",
    }


def test_a_reason_is_not_guessed() -> None:
    """Two errors without a node's name cannot be assigned; a node with a message keeps it."""
    content = results(node("a"), node("b"), node("c", message="its own"))
    log = LogReasons(("error: one", "error: two"))
    assert [each.message for each in explain(parse_run_results(content), log).nodes] == [
        None,
        None,
        "its own",
    ]


@pytest.mark.parametrize("status", ["cancelled", None, " ", "Deferred", 3])
def test_an_unknown_status_has_no_tick(status) -> None:
    """The status is missing, blank, or unknown."""
    story, _ = story_of("dbt run", code=0, results=results(node("a", status), node("b", "success")))
    assert story.counts() == "1 succeeded, 1 unknown"
    assert title(story).startswith("# ❔ ")


def test_the_case_of_an_unknown_status() -> None:
    """A real file had it."""
    story, _ = case("12_unknown_status", "dbt run", code=0)
    assert (story.counts(), title(story)[:4]) == ("1 succeeded, 1 unknown", "# ❔ ")


@pytest.mark.parametrize(
    "status, mark, message",
    [
        ("warn", "⚠️", "1 source warned"),
        ("pass", "✅", "1 source checked"),
        ("odd", "❔", "1 source unknown"),
        ("runtime error", "❌", "1 source not checked"),
    ],
)
def test_the_mark_of_a_page_includes_its_sources(status, mark, message) -> None:
    """A source with a warning makes it a warning."""
    content = json.dumps({"results": [{"unique_id": "source.a.b.c", "status": status}]}).encode()
    story, _ = story_of("dbt source freshness", code=0, freshness=content)
    assert (title(story).split(" ")[1], story.counts()) == (mark, message)


def test_a_failed_command_without_a_failed_node_has_no_tick() -> None:
    """dbt stopped before it wrote them, or the failure is only in the log."""
    good = results(node("a", "success", message="SELECT 1"))
    story, message = story_of(
        "dbt build", "10:00:00  Encountered an error:\nRuntime Error\n  no disk", results=good
    )
    assert message == "dbt build: Runtime Error no disk"
    assert "**dbt build: Runtime Error no disk**" in story.render("a run", None)
    assert title(story).startswith("# ❌ ")
    silent, message = story_of("dbt build", results=good)
    assert message == "Command dbt build ended with return code 1"
    assert title(silent).startswith("# ❌ ")


def test_numbers_are_the_files_own() -> None:
    """A test shows failures, not the adapter's rows; another node shows rows, not failures."""
    rows = {"rows_affected": 5}
    story, _ = story_of(
        "dbt build",
        results=results(
            node("test.depot.t", "fail", failures=3, adapter_response=rows),
            node("unit_test.depot.a.u", "pass", failures=0, adapter_response=rows),
            node("test.depot.unknown", "warn", failures=None, adapter_response=rows),
            node("a", "success", failures=7, adapter_response=rows),
            node("b", "success", failures=1, adapter_response={"rows_affected": True}),
        ),
    )
    table = story.render("a run", None).split("#### All nodes")[1]
    shown = {
        cells[3]: cells[5]
        for line in table.splitlines()
        if len(cells := [cell.strip() for cell in line.split("|")]) == 8
    }
    assert {name: shown[name] for name in ("t", "u", "unknown", "a", "b")} == {
        "t": "3",
        "u": "0",
        "unknown": "",
        "a": "5",
        "b": "",
    }


def test_skipped_nodes_are_not_among_the_slowest() -> None:
    """dbt Fusion gives skipped nodes a duration."""
    nodes = [
        node(name, status, execution_time=0.001)
        for name, status in [("a", "skipped"), ("b", "reused"), ("c", "no-op"), ("d", "success")]
    ]
    assert [each.name for each in summarise(parse_run_results(results(*nodes)).nodes).slowest] == ["d"]


@pytest.mark.parametrize(
    "content, note",
    [
        pytest.param(
            {"results": [{"node": {"name": "a"}, "error": None}]}, "1 of 1 results without an id", id="0.18"
        ),
        pytest.param({"sources": {"source.a.b.c": {}}}, "has no list of results", id="sources of dbt 0.19"),
        pytest.param({"results": None}, "has no list of results", id="null"),
        pytest.param(
            {
                "metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v9.json"},
                "results": [],
            },
            "schema v9, a newer one than is known",
            id="newer",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["results", "freshness"])
def test_the_page_names_unreadable_files(kind, content, note) -> None:
    """The file is too old, too new, or odd; the page has no tick."""
    content = {"metadata": {"dbt_version": "0.18.1"}, **content}
    story, _ = story_of("dbt run", code=0, **{kind: json.dumps(content).encode()})
    assert not story.is_empty
    assert note in story.render("a run", None)
    assert title(story).startswith("# ❔ ")


@pytest.mark.parametrize("which", [None, "", "  ", 3, ["run"], {"a": 1}, "build_of_tomorrow"])
def test_a_blank_missing_or_odd_kind_of_command_breaks_nothing(which) -> None:
    """The results still count."""
    story, message = story_of("dbt build", results=results(node("a", message="boom"), which=which))
    assert message == "dbt build: model a failed: boom"
    assert len(story.built.nodes) == 1


def test_results_that_only_compile_are_recognised_by_their_shape() -> None:
    """This is for files without the kind of the command."""
    compiled = node("a", "success", message=None, adapter_response={}, failures=None)
    assert parse_run_results(results(compiled, which=None)).compile_only
    assert not parse_run_results(results(compiled, which="run")).compile_only
    assert not parse_run_results(results({**compiled, "message": "SELECT 1"}, which=None)).compile_only


@pytest.mark.parametrize(
    "command, expected",
    [
        ("dbt test --select x_freshness_check", "test"),
        ("dbt --target test --debug run --select retry", "run"),
        ("dbt run --vars '{mode: source}'", "run"),
        ("dbt source freshness --select build", "freshness"),
        ("poetry run /opt/bin/dbt ls", "list"),
        ("dbt docs generate", "generate"),
        ("dbt --version", None),
        ("make dbt-run", None),
    ],
)
def test_the_command_is_the_word_in_its_place(command, expected) -> None:
    """A word in a selector, in a variable, or in the value of an option does not count."""
    assert command_asked(command) == expected


@pytest.mark.parametrize(
    "command", ["dbt test --select x_freshness_check", "dbt build --select source:a retry", "dbt run -s docs"]
)
def test_the_sources_of_an_earlier_check_do_not_explain_another_command(command) -> None:
    """They are not counted twice either: the folder still has their file."""
    stale = json.dumps({"results": [{"unique_id": "source.a.b.c", "status": "error"}]}).encode()
    which = command.split()[1]
    story = DbtStory()
    story.read("freshness", stale, "dbt source freshness")
    story.read("freshness", stale, command)
    story.read("results", results(node("a", message="boom"), which=which), command)
    assert story.cause_in(command) == (f"{command}: model a failed: boom", 1)
