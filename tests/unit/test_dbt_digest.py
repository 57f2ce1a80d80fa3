"""What a flow returns of dbt's results: counts, failures, cost; the file's own numbers, bounded, without secrets."""

from __future__ import annotations

import json
from typing import Any

from recorded import RECORDED

from paradime_blocks.dbt import RunResults, digest, merge, parse_freshness, parse_run_results
from paradime_blocks.dbt.digest import ENTRIES_AT_MOST
from paradime_blocks.models import BoltDbtResult
from paradime_blocks.text import Redactor
from paradime_flows.reporting.dbt_failures import cost_text, render_failed, rows_text

NO_SECRETS = Redactor([])


def recorded(case: str, command: str, name: str = "run_results.json") -> bytes:
    (folder,) = RECORDED.joinpath(case).glob(f"*-{command}")
    return folder.joinpath("resources", "target", name).read_bytes()


def run_results(*entries: dict[str, Any]) -> RunResults:
    return parse_run_results(json.dumps({"results": list(entries)}).encode(), command="dbt build")


def failed(unique_id: str, **facts: Any) -> dict[str, Any]:
    return {"unique_id": unique_id, "status": "fail" if unique_id.startswith("test") else "error", **facts}


def test_counts_and_failures_are_those_of_the_file() -> None:
    """A failed build of a real dbt: each node of the file is counted, and each failure is named."""
    content = recorded("failure", "dbt-build")
    entries = json.loads(content)["results"]
    found = digest(parse_run_results(content), [], NO_SECRETS)
    assert found.count() == len(entries)
    for status in {entry["status"] for entry in entries}:
        assert found.count(status) == sum(entry["status"] == status for entry in entries)
    assert [(node.resource_type, node.name, node.failures) for node in found.failed_tests] == [
        ("test", "accepted_values_customers_country__GB__US", 1),
        ("test", "broken_query", None),
    ]
    (model,) = found.failed_nodes
    own = next(entry for entry in entries if entry["unique_id"] == model.unique_id)
    assert (model.resource_type, model.name, model.status) == ("model", "revenue", "error")
    assert model.seconds == own["execution_time"]
    assert "Could not convert string 'card' to INT32" in (model.message or "")
    assert "\n" not in (model.message or "")
    assert found.elapsed_seconds == json.loads(content)["elapsed_time"]
    assert found.rows_affected == sum(entry["adapter_response"].get("rows_affected", 0) for entry in entries)
    assert found.slowest[0].seconds == max(entry["execution_time"] for entry in entries)
    assert (found.bytes_processed, found.slot_ms) == (None, None)


def test_stale_sources_are_counted_and_named() -> None:
    """The sources of a real freshness check."""
    content = recorded("stale_sources", "dbt-source-freshness", "sources.json")
    found = digest(RunResults(), parse_freshness(content), NO_SECRETS)
    entries = json.loads(content)["results"]
    assert found.count(resource_type="source") == len(entries)
    assert [source.unique_id for source in found.stale_sources] == [
        entry["unique_id"] for entry in entries if entry["status"] in {"error", "runtime error"}
    ]
    assert all(source.age_seconds for source in found.stale_sources)


def test_a_retried_node_counts_with_its_last_result() -> None:
    """As dbt itself would merge a run and its retry."""
    first = run_results(failed("model.shop.a", adapter_response={"rows_affected": 1}))
    again = run_results(
        {"unique_id": "model.shop.a", "status": "success", "adapter_response": {"rows_affected": 2}}
    )
    found = digest(merge([first, again]), [], NO_SECRETS)
    assert found.counts == {"model": {"success": 1}}
    assert (found.failed_nodes, found.rows_affected) == ([], 2)


def test_cost_is_what_the_adapter_says() -> None:
    """BigQuery's names, Snowflake's, Athena's; a sum is None only where no node says anything."""
    bigquery = {"bytes_processed": 2048, "bytes_billed": 10_485_760, "slot_ms": 1500, "job_id": "job-1"}
    found = digest(
        run_results(
            failed("model.shop.a", adapter_response={"rows_affected": 7, **bigquery}),
            failed("model.shop.b", adapter_response={"rows_affected": -1, "query_id": "01b2-3"}),
            failed("model.shop.c", adapter_response={"data_scanned_in_bytes": 2048, "slot_ms": "n/a"}),
        ),
        [],
        NO_SECRETS,
    )
    assert [node.query_id for node in found.failed_nodes] == ["job-1", "01b2-3", None]
    assert [node.rows_affected for node in found.failed_nodes] == [7, None, None]
    assert (found.rows_affected, found.bytes_processed) == (7, 4096)
    assert (found.bytes_billed, found.slot_ms) == (10_485_760, 1500)
    assert rows_text(found) == "7 affected"
    assert cost_text(found) == "4.0 kB processed, 10 MB billed, 1.5 s of slot time"
    assert rows_text(BoltDbtResult()) == cost_text(BoltDbtResult()) == ""


def test_secrets_are_removed_before_text_is_cut() -> None:
    """A secret that lies across the cut would otherwise be left in half."""
    secret = "s3cret-" + "x" * 60
    text = "m" * 270 + secret
    found = digest(run_results(failed("model.shop.a", message=text)), [], Redactor([secret]), [text])
    told = found.model_dump_json()
    assert "[removed]" in told
    assert "s3cret" not in told


def test_the_result_stays_small() -> None:
    """Many failures with long messages; the counts are whole, and failed tests are not crowded out."""
    entries = [failed(f"model.shop.m{n}", message="m" * 1000) for n in range(200)]
    entries += [failed(f"test.shop.t{n}", message="t" * 1000) for n in range(200)]
    entries += [{"unique_id": f"kind{n}.shop.a", "status": f"status {n}" * 20} for n in range(100)]
    found = digest(run_results(*entries), [], NO_SECRETS, ["u" * 1000] * 100)
    assert found.counts["model"] == {"error": 200}
    assert len(found.failed_tests) == len(found.failed_nodes) == ENTRIES_AT_MOST
    told = found.model_dump_json()
    assert len(told) < 100_000
    assert BoltDbtResult.model_validate_json(told) == found


def test_the_summary_lists_failures_with_their_text_escaped() -> None:
    """Models first, then tests and sources; no more than 20."""
    results = run_results(
        *(failed(f"test.shop.t{n}") for n in range(30)), failed("model.shop.a", message="a | b\n<b>c</b>")
    )
    entries, more = render_failed(digest(results, [], NO_SECRETS))
    rows = entries.splitlines()
    assert len(rows) == 20
    assert rows[0].startswith("- **model a**: a ")
    assert "<b>" not in rows[0]
    assert more == "… and 11 more failures"
    assert render_failed(BoltDbtResult()) == []
