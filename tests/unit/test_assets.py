"""dbt's nodes as Prefect assets: the keys, properties and outcomes that prefect-dbt 0.7.25 gives them."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.events import Event
from prefect.exceptions import EventTooLarge
from prefect.settings import PREFECT_EVENTS_MAXIMUM_RELATED_RESOURCES, temporary_settings
from pydantic import ValidationError

from paradime_blocks.dbt.artifacts import Manifest, ManifestNode, NodeResult, RunResults
from paradime_flows.reporting.assets import asset_key, emit_assets


def a_node(kind: str, relation: str | None, *depends_on: str, **facts: Any) -> ManifestNode:
    return ManifestNode(kind, "shop", None, None, relation, depends_on, **facts)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events sent to Prefect, in order."""
    told: list[dict[str, Any]] = []

    def emit_event(event: str, resource: dict[str, str], **more: Any) -> Event | None:
        """Like Prefect's own, which logs an invalid event and returns None."""
        try:
            accepted = Event(event=event, resource=resource, **more)
        except ValidationError:
            return None
        if accepted.size_bytes > 50_000:
            raise EventTooLarge(accepted.size_bytes, 50_000)
        told.append({"event": event, "resource": resource, **more})
        return accepted

    monkeypatch.setattr("paradime_flows.reporting.assets.emit_event", emit_event)
    return told


def emitted(
    adapter: str, relation: str, status: str = "success", **facts: Any
) -> tuple[RunResults, Manifest]:
    manifest = Manifest({"model.shop.orders": a_node("model", relation, name="orders", **facts)}, adapter)
    return RunResults((NodeResult("model.shop.orders", "model", "orders", status),)), manifest


# Computed once with `format_resource_id` of prefect-dbt 0.7.25.
@pytest.mark.parametrize(
    "adapter, relation, key",
    [
        pytest.param(
            "snowflake", '"ANALYTICS"."core"."orders"', "snowflake://ANALYTICS/core/orders", id="quoted"
        ),
        pytest.param("snowflake", "DB.core.orders", "snowflake://DB/core/orders", id="not quoted"),
        pytest.param("snowflake", 'DB."My Schema".orders', "snowflake://DB/MySchema/orders", id="space"),
        pytest.param("bigquery", "`my-proj`.`ds`.`orders`", "bigquery://my-proj/ds/orders", id="bigquery"),
        pytest.param("databricks", "`cat`.`core`.`orders`", "databricks://cat/core/orders", id="databricks"),
        pytest.param("spark", "core.`orders`", "spark://core/orders", id="spark"),
        pytest.param("redshift", '"dev"."core"."orders"', "redshift://dev/core/orders", id="redshift"),
        pytest.param("sqlserver", '"db"."dbo"."or[d]ers"', "sqlserver://db/dbo/orders", id="brackets"),
        pytest.param("postgres", '"a"."b"."50% & more?#1"', "postgres://a/b/50more1", id="marks"),
        pytest.param("postgres", '"a"."b"."v1.2"', "postgres://a/b/v1/2", id="a dot in a name"),
        pytest.param("postgres", '"a"."b"."zoë"', "postgres://a/b/zoë", id="letters of other languages"),
        pytest.param("duckdb", f'"{"x" * 600}"', f"duckdb://{'x' * 503}", id="long"),
    ],
)
def test_asset_keys_equal_those_of_prefect_dbt(
    adapter: str, relation: str, key: str, events: list[dict[str, Any]]
) -> None:
    """Adapter, then the relation with slashes, without forbidden characters; Prefect accepts the key."""
    assert asset_key(adapter, relation) == key
    assert emit_assets(*emitted(adapter, relation), {}).succeeded == 1
    assert [event["resource"]["prefect.resource.id"] for event in events] == [key]


def test_an_assets_name_is_its_relation_without_quotes(events: list[dict[str, Any]]) -> None:
    """prefect-dbt uses the same name. Properties missing in the manifest are not sent: that would erase known ones."""
    emit_assets(*emitted("snowflake", '"DB"."My Schema"."orders"'), {})
    emit_assets(*emitted("bigquery", "`p`.`d`.`orders`", description="All orders.", owner="jane"), {})
    assert [event["resource"] for event in events] == [
        {
            "prefect.resource.id": "snowflake://DB/MySchema/orders",
            "prefect.resource.name": "DB.My Schema.orders",
        },
        {
            "prefect.resource.id": "bigquery://p/d/orders",
            "prefect.resource.name": "p.d.orders",
            "prefect.asset.description": "All orders.",
            "prefect.asset.owners": '["jane"]',
        },
    ]


def test_an_asset_links_to_the_run_that_built_it(events: list[dict[str, Any]]) -> None:
    """What it was made from may have been built by another run, and keeps its link."""
    nodes = {
        "model.shop.orders": a_node("model", "d.s.orders", "seed.shop.raw"),
        "seed.shop.raw": a_node("seed", "d.s.raw"),
    }
    results = RunResults((NodeResult("model.shop.orders", "model", "orders", "success"),))
    emit_assets(results, Manifest(nodes, "duckdb"), {}, "https://app.paradime.io/bolt/run_id/7")
    links = {
        event["resource"]["prefect.resource.id"]: event["resource"].get("prefect.asset.url")
        for event in events
    }
    assert links == {
        "duckdb://d/s/raw": None,
        "duckdb://d/s/orders": "https://app.paradime.io/bolt/run_id/7",
    }


def test_a_long_description_is_cut_as_prefect_dbt_cuts_it(events: list[dict[str, Any]]) -> None:
    """Otherwise the two would overwrite each other's description."""
    emit_assets(*emitted("duckdb", "a.b", description="x" * 3000), {})
    assert events[0]["resource"]["prefect.asset.description"] == "x" * 2497 + "..."


@pytest.mark.parametrize(
    "status, outcome",
    [
        pytest.param("success", "succeeded", id="success"),
        pytest.param("partial success", "succeeded", id="partial success"),
        pytest.param("error", "failed", id="error"),
        pytest.param("fail", "failed", id="fail"),
        pytest.param("runtime error", "failed", id="runtime error"),
        pytest.param("skipped", None, id="skipped"),
        pytest.param("reused", None, id="reused"),
    ],
)
def test_an_outcome_equals_that_of_prefect_dbt(
    status: str, outcome: str | None, events: list[dict[str, Any]]
) -> None:
    """A microbatch model with some failed batches has still been built."""
    emit_assets(*emitted("duckdb", "a.b", status), {})
    expected = [] if outcome is None else [f"prefect.asset.materialization.{outcome}"]
    assert [event["event"] for event in events] == expected


def test_an_ephemeral_model_is_replaced_by_its_upstream_nodes(events: list[dict[str, Any]]) -> None:
    """Its upstream nodes are those in the warehouse, each once; models that opted out are left out, sources never."""
    manifest = Manifest(
        {
            "model.a": a_node("model", "a", "model.eph", "source.s", "model.off", "source.off"),
            "model.eph": a_node("model", None, "seed.s", "model.eph2"),
            "model.eph2": a_node("model", None, "model.eph", "seed.s", "source.none"),
            "model.off": a_node("model", "off", assets_enabled=False),
            "seed.s": a_node("seed", "seed_s"),
            "source.s": a_node("source", "src"),
            "source.off": a_node("source", "src_off", assets_enabled=False),
            "source.none": a_node("source", None),
        },
        "duckdb",
    )
    emit_assets(RunResults((NodeResult("model.a", "model", "a", "success"),)), manifest, {})
    (built,) = [event for event in events if "materialization" in event["event"]]
    upstream = [
        each["prefect.resource.id"] for each in built["related"] if each["prefect.resource.role"] == "asset"
    ]
    assert sorted(upstream) == ["duckdb://seed_s", "duckdb://src", "duckdb://src_off"]


def of_sources(count: int, **facts: Any) -> tuple[RunResults, Manifest]:
    """A model with this many sources."""
    sources = {f"source.s{n}": a_node("source", f"src_{n}") for n in range(count)}
    model = a_node("model", "wide", *sources, **facts)
    nodes = (NodeResult("model.wide", "model", "wide", "success"),)
    return RunResults(nodes), Manifest({"model.wide": model, **sources}, "duckdb")


@pytest.mark.parametrize("count", [75, 76, 99, 150])
def test_upstream_nodes_are_limited_to_what_prefect_accepts(count: int, events: list[dict[str, Any]]) -> None:
    """Prefect accepts 100 related resources per event, and adds those of the flow run."""
    emitted = emit_assets(*of_sources(count), {})
    assert (emitted.succeeded, emitted.refused, emitted.shortened) == (1, [], int(count > 75))
    (built,) = [event for event in events if "materialization" in event["event"]]
    assert [each["prefect.resource.id"] for each in built["related"]] == [
        *(f"duckdb://src_{n}" for n in range(min(count, 75))),
        "dbt",
    ]
    assert emitted.counts() == "1 materialised, 0 failed" + (
        "; 1 with only the first 75 upstream nodes (Prefect's limit)" if count > 75 else ""
    )


@pytest.mark.parametrize(
    "setting, facts",
    [
        pytest.param({PREFECT_EVENTS_MAXIMUM_RELATED_RESOURCES: 0}, {}, id="nothing related"),
        pytest.param({}, {"note": "x" * 60_000}, id="too large"),
    ],
)
def test_an_asset_that_prefect_does_not_accept_is_not_counted(
    setting: dict[Any, Any], facts: dict[str, str], events: list[dict[str, Any]]
) -> None:
    """The summary lists it as not archived."""
    with temporary_settings(setting):
        emitted = emit_assets(*of_sources(1), facts)
    assert (emitted.succeeded, emitted.failed, emitted.refused) == (0, 0, ["wide"])
    assert not [event for event in events if "materialization" in event["event"]]
