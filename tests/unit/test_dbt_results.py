"""Real dbt files are read, merged, summed up and shown; older, newer and hostile files do no harm."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from recorded import RECORDED
from support.properties import fewer_examples

from paradime_blocks.dbt.artifacts import (
    FreshnessResult,
    Manifest,
    NodeResult,
    RunResults,
    node_name,
    parse_freshness,
    parse_manifest,
    parse_run_results,
)
from paradime_blocks.dbt.json import DbtArtifactError
from paradime_blocks.dbt.results import cause, failures_first, merge, summarise
from paradime_blocks.text.rendering import clean, one_line
from paradime_flows.reporting.dbt_markdown import Bounds, render_freshness, render_results

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def artifact(case: str, command: str, name: str) -> bytes:
    """A recorded artifact."""
    (folder,) = RECORDED.joinpath(case).glob(f"*-{command}")
    return folder.joinpath("resources", "target", name).read_bytes()


def results(case: str, command: str) -> RunResults:
    """A recorded command's results, read with its manifest."""
    manifest = parse_manifest(artifact(case, command, "manifest.json"))
    return parse_run_results(artifact(case, command, "run_results.json"), manifest)


def failed_build() -> dict[str, NodeResult]:
    """The nodes of the failing build by name."""
    return {node.name: node for node in results("failure", "dbt-build").nodes}


def edited(edit: Callable[[dict[str, Any]], None]) -> bytes:
    """The failing build's run_results.json, changed."""
    document = json.loads(artifact("failure", "dbt-build", "run_results.json"))
    edit(document)
    return json.dumps(document).encode()


def tokens(markdown: str) -> list[Token]:
    """All tokens of a rendered text, including those within lines."""
    found = []
    for token in MARKDOWN.parse(markdown):
        found += [token, *(token.children or [])]
    return found


# --- reading
# ---------------------------------------------------------------------------------------------------------


def test_a_failed_model_is_read_with_all_its_details() -> None:
    """Status, times, message, file, compiled file, relation and command of a failed model."""
    node = failed_build()["revenue"]
    assert (node.unique_id, node.resource_type, node.status) == ("model.shop.revenue", "model", "error")
    assert node.message is not None
    assert "Conversion Error: Could not convert string 'card'" in node.message
    assert node.path == "models/marts/revenue.sql"
    assert node.compiled_path == "target/compiled/shop/models/marts/revenue.sql"
    assert node.relation_name == '"shop"."main"."revenue"'
    assert node.command == "dbt build"
    assert node.started_at is not None
    assert node.completed_at is not None
    assert node.started_at.tzinfo is not None
    assert node.started_at < node.completed_at
    assert node.seconds is not None
    assert 0 < node.seconds < 10


def test_each_outcome_is_read() -> None:
    """Each node of the project is read with its intended outcome."""
    nodes = failed_build()
    assert {name: node.status for name, node in nodes.items() if node.status not in {"success", "pass"}} == {
        "revenue": "error",
        "broken_query": "error",
        "accepted_values_customers_country__GB__US": "fail",
        "relationships_orders_customer_id__id__ref_customers_": "warn",
        "revenue_by_month": "skipped",
    }
    assert nodes["raw_orders"].rows_affected == 5
    assert nodes["accepted_values_customers_country__GB__US"].failures == 1
    assert nodes["revenue_by_month"].started_at is None
    assert {node.resource_type for node in nodes.values()} == {
        *("model", "seed", "snapshot", "test", "unit_test", "operation")
    }


def test_every_recorded_file_is_read_in_full() -> None:
    """No entry of any recorded artifact is lost."""
    files = sorted(RECORDED.glob("*/*/resources/target/run_results.json"))
    assert len(files) > 10
    for file in files:
        content = file.read_bytes()
        read = parse_run_results(content)
        assert [node.unique_id for node in read.nodes] == [
            entry["unique_id"] for entry in json.loads(content)["results"]
        ]
        assert read.dbt_version is not None
        assert read.generated_at is not None


def test_without_a_manifest_paths_come_from_the_message() -> None:
    """dbt's own message names the file, so a failure can be located without the manifest."""
    read = parse_run_results(artifact("failure", "dbt-build", "run_results.json"))
    node = next(node for node in read.nodes if node.name == "revenue")
    assert node.path == "models/marts/revenue.sql"
    assert node.compiled_path is None
    assert node.relation_name == '"shop"."main"."revenue"'


def test_the_command_in_bolt_is_preferred() -> None:
    """The file of a retry calls itself a run; the command in Bolt is the better name."""
    content = artifact("retry", "dbt-retry-vars-without-notes-true", "run_results.json")
    assert parse_run_results(content).command == "dbt run"
    read = parse_run_results(content, command="dbt retry")
    assert {read.command, *(node.command for node in read.nodes)} == {"dbt retry"}


def test_version_4_of_the_schema_is_read() -> None:
    """dbt 1.6 wrote this for the same failing build, with its manifest."""
    content = artifact("dbt_1_6", "dbt-build", "run_results.json")
    assert "run-results/v4.json" in json.loads(content)["metadata"]["dbt_schema_version"]
    read = results("dbt_1_6", "dbt-build")
    assert (read.command, read.dbt_version, len(read.nodes)) == ("dbt build", "1.6.19", 17)
    nodes = {node.name: node for node in read.nodes}
    revenue = nodes["revenue"]
    assert (revenue.status, revenue.relation_name) == ("error", '"shop"."main"."revenue"')
    assert revenue.message is not None
    assert "Conversion Error: Could not convert string 'card'" in revenue.message
    assert revenue.path == "models/marts/revenue.sql"
    assert revenue.compiled_path == "target/compiled/shop/models/marts/revenue.sql"
    assert nodes["revenue_by_month"].status == "skipped"
    assert nodes["relationships_orders_customer_id__id__ref_customers_"].status == "warn"
    assert "2 more failed; 1 node skipped" in (cause(read.nodes) or "")


def test_files_of_dbt_before_1_6_are_read() -> None:
    """They have no relation and no `which`, and the compiled file is in the message.

    Made by hand from dbt 1.11's files, following the published schema.
    """

    def to_version_4(document: dict[str, Any]) -> None:
        document["metadata"]["dbt_schema_version"] = "https://schemas.getdbt.com/dbt/run-results/v4.json"
        document["metadata"]["dbt_version"] = "1.5.1"
        document["args"] = {"rpc_method": "build", "which": None}
        for entry in document["results"]:
            for key in ("compiled", "compiled_code", "relation_name", "batch_results"):
                del entry[key]
            if entry["status"] == "error":
                entry["message"] += "\n  compiled Code at target/run/shop/x.sql"

    read = parse_run_results(edited(to_version_4))
    node = next(node for node in read.nodes if node.name == "revenue")
    assert (read.command, read.dbt_version, len(read.nodes)) == ("dbt build", "1.5.1", 20)
    assert (node.status, node.relation_name, node.compiled_path) == ("error", None, "target/run/shop/x.sql")


def test_fusion_files_are_read() -> None:
    """dbt Fusion leaves out message, compiled code and failures, and has its own statuses.

    Made by hand from dbt 1.11's files: the fixtures have no files of Fusion's.
    """

    def to_fusion(document: dict[str, Any]) -> None:
        document["metadata"]["dbt_version"] = "2.0.0-preview.145"
        document["args"] = {"command": "build", "which": "build", "__other__": {"command": "build"}}
        del document["elapsed_time"]
        for entry in document["results"]:
            for key in (
                "message",
                "compiled",
                "compiled_code",
                "batch_results",
                "failures",
                "execution_time",
            ):
                del entry[key]
            entry["adapter_response"] = {"rows_affected": "12"}
        document["results"][0]["status"] = "reused"

    read = parse_run_results(edited(to_fusion))
    node = next(node for node in read.nodes if node.name == "revenue")
    assert node.seconds is not None
    assert node.seconds > 0
    assert (node.message, node.rows_affected, read.elapsed_seconds) == (None, 12, None)
    assert read.nodes[0].status == "reused"
    assert cause(read.nodes) == "dbt build: model revenue failed; 2 more failed; 1 node skipped"


def test_an_unknown_status_is_kept_and_shown() -> None:
    """A status of a future dbt is neither a failure nor a success, and comes before the successes."""
    read = parse_run_results(edited(lambda document: document["results"][-1].update(status="Deferred_Later")))
    assert read.nodes[-1].status == "deferred later"
    ordered = [node.status for node in failures_first(read.nodes)]
    assert ordered.index("deferred later") == 5
    assert "❔ deferred later" in render_results(read.nodes)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>expired</html>", id="html"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"\xff\xfe\xff", id="no-text"),
        pytest.param(b"[" * 200_000, id="nested-too-deep"),
        pytest.param(b'{"results": ' + b"9" * 5000, id="cut-off"),
    ],
)
def test_a_file_that_is_not_an_artifact_raises_one_error(content: bytes) -> None:
    """A file that is not a JSON object raises one error, which survives pickling."""
    for parse in (parse_run_results, parse_freshness, parse_manifest):
        with pytest.raises(DbtArtifactError) as caught:
            parse(content)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own bytes


FIELD = st.sampled_from(
    [
        *("results", "metadata", "args", "unique_id", "status"),
        *("timing", "started_at", "message", "criteria", "adapter_response"),
        *("rows_affected", "execution_time", "nodes", "depends_on", "resource_type"),
        *("which", "warn_after", "count", "period", "generated_at"),
        *("failures", "max_loaded_at", "sources"),
    ]
)
SCALAR = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("2026-01-01")
)


def json_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """JSON, one level deeper than its parts."""
    return st.one_of(SCALAR, st.lists(inner, max_size=3), st.dictionaries(FIELD, inner, max_size=4))


# With counted levels: `st.recursive` takes several times as long.
JSON = json_of(json_of(json_of(SCALAR)))
ENTRY = st.dictionaries(
    st.sampled_from([*sorted(NodeResult.__dataclass_fields__), "timing", "error"]), JSON, max_size=4
)


@fewer_examples
@given(st.lists(ENTRY, max_size=3))
def test_any_entries_can_be_read_and_rendered(entries: list[dict[str, Any]]) -> None:
    """Whatever JSON is in dbt's fields, the rest of the page is still made."""
    good = {"unique_id": "model.shop.good", "status": "success"}
    content = json.dumps({"results": [*entries, good], "metadata": entries, "args": 3}).encode()
    read = parse_run_results(content)
    assert read.nodes[-1].name == "good"
    assert "| good |" in render_results([replace(node, unique_id="x") for node in read.nodes[-1:]])
    render_results(read.nodes)
    render_freshness(parse_freshness(content))
    assert cause(read.nodes) is None or len(cause(read.nodes) or "") <= 300


@given(JSON)
def test_any_manifest_can_be_read(content: Any) -> None:
    """A manifest of any shape yields a manifest, or that one error."""
    try:
        manifest = parse_manifest(json.dumps(content).encode())
    except DbtArtifactError:
        # A node is an object, but not a manifest.
        assert not isinstance(content, dict) or "unique_id" in content
        return
    assert isinstance(manifest, Manifest)


def test_invalid_numbers_are_absent() -> None:
    """NaN, infinity and the -1 of databases that do not count are not shown as numbers."""

    def spoil(document: dict[str, Any]) -> None:
        entry = document["results"][0]
        entry.update(
            execution_time=float("nan"), failures=float("inf"), adapter_response={"rows_affected": -1}
        )
        entry.update(timing="never")

    node = parse_run_results(edited(spoil)).nodes[0]
    assert (node.seconds, node.failures, node.rows_affected, node.started_at) == (None, None, None, None)


def test_times_without_a_zone_are_utc() -> None:
    """A time without a zone, or with nine digits after the point, is read as dbt means it."""

    def older(document: dict[str, Any]) -> None:
        document["results"][0]["timing"] = [
            {"started_at": "2026-01-02T03:04:05.123456789", "completed_at": "soon"}
        ]

    node = parse_run_results(edited(older)).nodes[0]
    assert node.started_at == datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=timezone.utc)
    assert node.completed_at is None


@pytest.mark.parametrize(
    "unique_id,expected",
    [
        ("model.shop.orders", "orders"),
        ("model.shop.orders.v2", "orders.v2"),
        ("test.shop.unique_orders_id.beb6e97f2f", "unique_orders_id"),
        ("test.shop.no_negative_orders", "no_negative_orders"),
        ("source.shop.app.orders", "app.orders"),
        ("unit_test.shop.orders.is_empty", "is_empty"),
        ("odd", "odd"),
        ("", ""),
    ],
)
def test_nodes_have_the_names_that_people_use(unique_id: str, expected: str) -> None:
    """The name comes from the id, without package and hash."""
    assert node_name(unique_id) == expected


def test_the_needed_parts_of_the_manifest_are_read() -> None:
    """Nodes, sources and unit tests with their files, relations and parents; the adapter for asset keys."""
    manifest = parse_manifest(artifact("failure", "dbt-build", "manifest.json"))
    document = json.loads(artifact("failure", "dbt-build", "manifest.json"))
    assert set(manifest.nodes) == {*document["nodes"], *document["sources"], *document["unit_tests"]}
    assert (manifest.adapter_type, manifest.project_name) == ("duckdb", "shop")
    node = manifest.nodes["model.shop.revenue_by_month"]
    assert set(node.depends_on) == {"model.shop.orders", "model.shop.revenue"}
    assert (node.resource_type, node.package) == ("model", "shop")
    assert manifest.nodes["source.shop.app.orders"].relation_name == '"shop"."main"."raw_orders"'


def test_an_older_manifest_is_read() -> None:
    """Version 7 had no unit tests and no project name, and contained its own macros."""
    document = json.loads(artifact("failure", "dbt-build", "manifest.json"))
    for key in ("unit_tests", "semantic_models", "saved_queries", "group_map", "functions"):
        del document[key]
    del document["metadata"]["project_name"]
    document["macros"] = {
        "macro.shop.x": {"unique_id": "macro.shop.x", "resource_type": "macro", "macro_sql": "..."}
    }
    for node in document["nodes"].values():
        node["root_path"] = "/usr/src/dbt"
        del node["config"]
    manifest = parse_manifest(json.dumps(document).encode())
    assert manifest.nodes["model.shop.revenue"].path == "models/marts/revenue.sql"
    assert "macro.shop.x" not in manifest.nodes
    assert manifest.project_name is None


# --- freshness
# -------------------------------------------------------------------------------------------------------


def test_freshness_is_read() -> None:
    """Each source's status, age and limits."""
    sources = {
        source.name: source
        for source in parse_freshness(artifact("stale_sources", "dbt-source-freshness", "sources.json"))
    }
    assert {name: source.status for name, source in sources.items()} == {
        "app.customers": "error",
        "app.payments": "warn",
        "app.orders": "pass",
    }
    assert sources["app.customers"].age_seconds == 3 * 86400
    assert (sources["app.customers"].warn_after, sources["app.customers"].error_after) == (
        "6 hours",
        "12 hours",
    )
    assert sources["app.customers"].max_loaded_at is not None


def test_older_and_fusion_freshness_is_read() -> None:
    """The schema's entry for a failed query; Fusion's capital letters and resource types."""
    content = {
        "results": [
            {"unique_id": "source.shop.app.refunds", "status": "runtime error", "error": "no such table"},
            {
                "unique_id": "model.shop.orders",
                "resource_type": "model",
                "status": "Warn",
                "max_loaded_at_time_ago_in_s": 90000,
                "criteria": {"warn_after": {"count": 1, "period": "day"}, "error_after": None},
            },
            {"status": "pass"},
        ]
    }
    sources = parse_freshness(json.dumps(content).encode())
    assert [(source.name, source.status) for source in sources] == [
        ("app.refunds", "runtime error"),
        ("orders", "warn"),
    ]
    assert (sources[1].warn_after, sources[1].error_after) == ("1 day", None)
    assert cause([], sources) == (
        "dbt source freshness: the freshness of source app.refunds could not be checked: no such table"
    )


# --- merging and summing up
# ------------------------------------------------------------------------------------------


def test_a_retry_replaces_the_nodes_it_ran_again() -> None:
    """After a failed run and a successful retry, nothing counts as failed, and nothing is missing."""
    first, second = results("retry", "dbt-run"), results("retry", "dbt-retry-vars-without-notes-true")
    merged = merge([first, second])
    assert {node.status for node in summarise(first.nodes).failed} == {"error"}
    assert {node.status for node in merged.nodes} == {"success"}
    assert {node.unique_id for node in merged.nodes} == {node.unique_id for node in first.nodes}
    assert merged.elapsed_seconds == pytest.approx(
        (first.elapsed_seconds or 0) + (second.elapsed_seconds or 0)
    )


def test_models_and_tests_of_separate_commands_all_stay() -> None:
    """`dbt run` and `dbt test` have different nodes; the merged result has both."""
    run, test = (
        results("success", "dbt-run-exclude-tag-broken"),
        results("success", "dbt-test-exclude-tag-broken"),
    )
    merged = merge([run, test])
    assert {node.unique_id for node in merged.nodes} == {node.unique_id for node in (*run.nodes, *test.nodes)}
    assert merged.command is None


def test_generating_docs_does_not_hide_a_failure() -> None:
    """`dbt docs generate` reports "success" for each node that compiles; that must not hide a failure."""
    build, docs = results("failure", "dbt-build"), results("success", "dbt-docs-generate")
    assert any(node.name == "revenue" and node.status == "success" for node in docs.nodes)
    merged = merge([build, docs])
    assert merged.nodes == build.nodes
    assert merge([docs]).nodes == ()


def test_a_failure_to_compile_counts() -> None:
    """A failure in `dbt docs generate` counts like any other."""
    docs = results("success", "dbt-docs-generate")
    broken = replace(docs.nodes[0], status="error")
    assert merge([replace(docs, nodes=(broken, *docs.nodes[1:]))]).nodes == (broken,)


def test_nothing_merges_to_nothing() -> None:
    """A run whose commands left no results has none."""
    assert merge([]) == RunResults()
    assert render_results([]) == ""
    assert cause([]) is None


def test_the_summary_counts_and_sorts() -> None:
    """Counts by type and status, failures with models before tests, the slowest first."""
    summary = summarise(results("failure", "dbt-build").nodes, slowest=3)
    assert summary.counts["model"] == {"error": 1, "skipped": 1, "success": 5}
    assert summary.counts["test"] == {"fail": 1, "error": 1, "warn": 1, "pass": 4}
    assert summary.failed[0].name == "revenue"
    assert summarise(reversed(results("failure", "dbt-build").nodes)).failed[0].name == "revenue"
    assert len(summary.failed) == 3
    assert [node.name for node in summary.skipped] == ["revenue_by_month"]
    times = [node.seconds or 0 for node in summary.slowest]
    assert len(times) == 3
    assert times == sorted(times, reverse=True)
    assert max(node.seconds or 0 for node in results("failure", "dbt-build").nodes) == times[0]


def test_the_cause_is_one_sentence() -> None:
    """The command, the first failed node, its error, and the number of others."""
    message = cause(results("failure", "dbt-build").nodes)
    assert message == (
        "dbt build: model revenue failed: Runtime Error in model revenue (models/marts/revenue.sql) "
        "Conversion Error: Could not convert string 'card' to INT32 when casting from source column note; "
        "2 more failed; 1 node skipped"
    )
    assert cause(results("success", "dbt-build-exclude-tag-broken").nodes) is None


def test_the_cause_keeps_its_counts_when_it_is_cut() -> None:
    """A message of a megabyte is cut, but the counts after it stay."""
    nodes = [replace(node, message="x" * 1_000_000) for node in results("failure", "dbt-build").nodes]
    message = cause(nodes, command="dbt build --select a", limit=120)
    assert message is not None
    assert len(message) == 120
    assert message.startswith("dbt build --select a: model revenue failed: xxx")
    assert message.endswith("x…; 2 more failed; 1 node skipped")


def test_a_stale_source_is_a_cause() -> None:
    """`dbt source freshness` fails without any node result."""
    sources = parse_freshness(artifact("stale_sources", "dbt-source-freshness", "sources.json"))
    assert (
        cause([], sources) == "dbt source freshness: source app.customers is stale (more than 12 hours old)"
    )


# --- rendering
# -------------------------------------------------------------------------------------------------------


def test_a_page_shows_failures_first() -> None:
    """Counts, then failures with their errors, then the rest; all of it can be parsed again."""
    page = render_results(results("failure", "dbt-build").nodes)
    found = tokens(page)
    headings = [found[at + 1].content for at, token in enumerate(found) if token.type == "heading_open"]
    assert headings == ["Failures", "Warnings", "Slowest", "All nodes"]
    fences = [token.content for token in found if token.type == "fence"]
    assert len(fences) == 3
    assert "Conversion Error: Could not convert string 'card'" in fences[0]
    assert "compiled: target/compiled/shop/models/marts/revenue.sql" in page
    names = [
        line.split(" | ")[2] for line in page.split("#### All nodes")[1].splitlines() if line.startswith("| ")
    ]
    assert names[2:4] == ["revenue", "accepted_values_customers_country__GB__US"]
    assert len(names) == 2 + 20


def test_a_page_without_failures_has_no_section_for_them() -> None:
    """A good run's page is short."""
    page = render_results(results("success", "dbt-run-exclude-tag-broken").nodes)
    assert "Failures" not in page
    assert "Warnings" not in page
    assert "| model | 5 |" in page


def test_a_long_warning_keeps_its_rows_and_its_file() -> None:
    """They are enough to find the test, and the message is cut."""
    message = "Got many rows. " * 40
    node = NodeResult("test.shop.t", "test", "t", "warn", failures=1234, message=message, path="a/b.yml")
    (line,) = [line for line in render_results([node]).splitlines() if line.startswith("- ")]
    assert line.startswith("- **t**: (rows: 1,234, file: a/b.yml) Got many rows. ")
    assert line.endswith("…")


def test_a_page_is_bounded_and_says_what_is_missing() -> None:
    """Six hundred nodes with three megabytes of text make a page of the requested size."""
    nodes = [
        NodeResult(
            f"model.shop.m{n}",
            f"kind{n}",
            f"m{n}" + "&" * 500,
            f"error{n}" if n % 2 else "error",
            message="<" * 5000,
        )
        for n in range(600)
    ]
    page = render_results(nodes, Bounds(page_bytes=100_000))
    assert 80_000 < len(page.encode()) < 100_000
    shown = page.count("\n```text\n")
    assert shown > 10
    assert f"… and {300 - shown:,} more failures" in page
    assert len(re.findall("… and [0-9]{3} more nodes", page)) == 1
    assert page.splitlines()[0].count("|") == 13
    assert "| all |" in page
    assert "bytes left out" in page


def test_bounds_are_kept() -> None:
    """With almost no room, it shows the first failure, a row or two, and the number of missing ones."""
    page = render_results(results("failure", "dbt-build").nodes, Bounds(page_bytes=100, slowest=1))
    assert page.count("```") == 2
    assert "… and 2 more failures" in page
    assert "more nodes" in page
    assert len(page) < 3000
    assert len(page.split("#### Slowest")[1].split("####")[0].strip().splitlines()) == 3


def test_each_of_many_failures_has_its_error_and_its_compiled_path() -> None:
    """Each of three hundred failed tests is shown in full, and so is each of five hundred nodes."""
    nodes = [
        NodeResult(
            f"test.shop.t{n}",
            "test",
            f"t{n}",
            "fail",
            message=f"Got {n} results, " + "x" * 300 + f" END{n}.",
            compiled_path=f"target/compiled/t{n}.sql",
        )
        for n in range(300)
    ] + [NodeResult(f"model.shop.m{n}", "model", f"m{n}", "success", seconds=1.0) for n in range(200)]
    page = render_results(nodes)
    assert [n for n in range(300) if f"compiled: target/compiled/t{n}.sql" not in page] == []
    assert [n for n in range(300) if f" END{n}.\n" not in page] == []
    table = page.split("#### All nodes")[1]
    assert [node.name for node in nodes if f" | {node.name} | " not in table] == []
    assert "more" not in page
    assert len(page.encode()) < 500_000


def test_a_thousand_failures_share_the_room_for_their_messages() -> None:
    """Each message is cut to its share, so that the later ones are not left out."""
    nodes = [NodeResult(f"model.s.m{n}", "model", f"m{n}", "error", message="é" * 500) for n in range(700)]
    page = render_results(nodes)
    assert "more failures" not in page
    assert len(page.encode()) < 500_000


def test_freshness_is_rendered_stale_first() -> None:
    """The stale source is the first row."""
    page = render_freshness(
        parse_freshness(artifact("stale_sources", "dbt-source-freshness", "sources.json"))
    )
    rows = page.splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["app.customers", "app.payments", "app.orders"]
    assert "| 3d 0h |" in rows[0]


def test_the_error_of_a_source_stands_below_the_table() -> None:
    """A source whose query failed has no age."""
    source = FreshnessResult(
        unique_id="source.s.app.gone", name="app.gone", status="runtime error", error="no such relation"
    )
    page = render_freshness([source])
    cells = [cell.strip() for cell in page.splitlines()[2].split("|")[1:-1]]
    assert cells[2] == ""
    assert page.endswith("\n\n- **app.gone**: no such relation")


HOSTILE = st.lists(
    st.sampled_from(
        [
            "|",
            "\\",
            "`",
            "```",
            "````",
            "~~~",
            "**",
            "_",
            "\n",
            "\r",
            "\n\n",
            " ",
            "<b>",
            "</td>",
            "<script>",
            "<!--",
            "[x](javascript:alert(1))",
            "![x](http://a.b/c)",
            "](",
            "http://a.b",
            "# ",
            "- ",
            "1. ",
            "> ",
            "---",
            "===",
            "\x1b[31m",
            "\x1b]0;t\x07",
            "\x00",
            "\u202e",
            "�",
            "stg_orders",
            "| --- |",
            "&lt;",
            "é",
        ]
    ),
    max_size=6,
).map("".join)


@fewer_examples
@given(
    st.lists(
        st.builds(
            NodeResult,
            unique_id=HOSTILE,
            resource_type=HOSTILE,
            name=HOSTILE,
            status=st.one_of(HOSTILE, st.sampled_from(["error", "fail", "warn", "skipped", "success"])),
            message=HOSTILE,
            path=HOSTILE,
            compiled_path=HOSTILE,
            relation_name=HOSTILE,
            command=HOSTILE,
            seconds=st.floats(),
            failures=st.integers(),
        ),
        min_size=1,
        max_size=2,
    )
)
def test_hostile_results_can_not_change_the_page(nodes: list[NodeResult]) -> None:
    """Whatever dbt's strings contain, the page has our headings, tables and fences, and no tag or link."""
    found = tokens(render_results(nodes))
    kinds = {token.type for token in found}
    assert kinds.isdisjoint({"html_block", "html_inline", "link_open", "image", "code_inline", "code_block"})
    assert kinds.isdisjoint({"em_open", "s_open", "hr", "blockquote_open", "ordered_list_open"})
    items = [token.type for token in found].count("list_item_open")
    assert items == sum(node.status == "warn" for node in nodes)
    headings = {found[at + 1].content for at, token in enumerate(found) if token.type == "heading_open"}
    assert headings <= {"Failures", "Warnings", "Slowest", "All nodes"}
    failed = [node for node in nodes if node.status in {"error", "fail"}]
    assert [token.type for token in found].count("fence") == sum(
        1 for node in failed if clean(node.message or "").strip()
    )
    # The last table has all nodes: six cells a row, and each name in its place.
    last = max(at for at, token in enumerate(found) if token.type == "tbody_open")
    cells = [
        "".join(child.content for child in token.children or [])
        for token in found[last:]
        if token.type == "inline"
    ]
    assert len(cells) == 6 * len(nodes)
    assert cells[2::6] == [one_line(node.name, 120) for node in failures_first(nodes)]


@fewer_examples
@given(
    st.builds(
        FreshnessResult, HOSTILE, HOSTILE, HOSTILE, st.floats(), st.datetimes(), HOSTILE, HOSTILE, HOSTILE
    )
)
def test_hostile_freshness_can_not_change_the_page(source: FreshnessResult) -> None:
    """One source makes one table of one row, and one line with the source's error."""
    kinds = [token.type for token in tokens(render_freshness([source]))]
    assert kinds.count("tr_open") == 2
    assert kinds.count("td_open") == 6
    assert kinds.count("list_item_open") == bool(source.error)
    assert set(kinds).isdisjoint({"html_block", "html_inline", "link_open", "image", "code_inline", "fence"})
