"""The events that we send to Prefect: their names, ids, labels and related resources."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from prefect.events import Event
from prefect.settings import PREFECT_API_URL, temporary_settings

from paradime_blocks import BoltRunState, ParadimeCredentials
from paradime_blocks.dbt import FreshnessResult, Manifest, ManifestNode, NodeResult
from paradime_blocks.models import BoltRunStatus
from paradime_flows import events
from paradime_flows.events import RunEvent, RunSubject, Workspace
from paradime_flows.events.dbt import MOST_EVENTS
from paradime_flows.reporting.assets import asset_key

ACME = Workspace("api.paradime.io", "acme")
DAILY = RunSubject(7, ACME, "daily")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """The events sent to Prefect, in order."""
    found = []

    def emit_event(event: str, resource: dict[str, str], **more: Any) -> Event:
        found.append(Event(event=event, resource=resource, **more))
        return found[-1]

    monkeypatch.setattr("paradime_flows.events.sending.emit_event", emit_event)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        yield found


def credentials(endpoint: str, **more: Any) -> ParadimeCredentials:
    return ParadimeCredentials(api_endpoint=endpoint, api_key="key", api_secret="the-secret", **more)


@pytest.mark.parametrize(
    "state, event",
    [
        ("SUCCESS", RunEvent.COMPLETED),
        ("FAILED", RunEvent.FAILED),
        ("ERROR", RunEvent.FAILED),
        ("CANCELED", RunEvent.CANCELED),
        ("SKIPPED", RunEvent.SKIPPED),
        ("RUNNING", None),
        ("STARTING", None),
        ("A NEW ONE", None),
    ],
)
def test_each_end_of_a_run_has_its_event(sent, state, event):
    """A run that has not ended, or whose state is unknown, has none."""
    events.emit_ended(DAILY, BoltRunState(state), cause="a model failed")
    assert [each.event for each in sent] == ([] if event is None else [event.value])


def test_two_observers_of_one_end_make_one_event(sent):
    """The id depends only on the run and on what happened: not on the time, the flow run or the schedule's name."""
    events.emit_ended(DAILY, BoltRunState.SUCCESS, ended_at=datetime.now(timezone.utc))
    events.emit_ended(RunSubject(7, ACME, None, uuid4()), BoltRunState.SUCCESS, cause=None)
    assert len({each.id for each in sent}) == 1
    assert sent[0].id == events.run_event_id(ACME, 7, RunEvent.COMPLETED)


def test_other_ends_runs_and_workspaces_make_other_events():
    """Two workspaces can have runs with the same ids."""
    ids = {
        events.run_event_id(workspace, run_id, event)
        for workspace in (
            ACME,
            Workspace("api.paradime.io", "other"),
            Workspace("api.us.paradime.io", "acme"),
        )
        for run_id in (7, 8)
        for event in RunEvent
    }
    assert len(ids) == 3 * 2 * len(RunEvent)


def test_the_id_of_an_event_never_changes():
    """Events of another version of this package, or of another observer, must have the same id."""
    assert str(events.run_event_id(ACME, 7, RunEvent.COMPLETED)) == "5d8f6d7c-cdbf-5f7b-8632-449586c3e998"


def test_an_event_has_the_labels_that_automations_match(sent):
    """Schedule, workspace, state and page; the payload has the rest."""
    events.emit_ended(DAILY, BoltRunState.FAILED, cause="dbt test: 1 failed")
    assert sent[0].resource.model_dump() == {
        "prefect.resource.id": "paradime.bolt-run.7",
        "prefect.resource.name": "daily 7",
        "schedule": "daily",
        "workspace": "acme",
        "state": "FAILED",
        "url": "https://app.paradime.io/bolt/run_id/7",
    }
    assert sent[0].payload == {
        "run_id": 7,
        "schedule": "daily",
        "state": "FAILED",
        "url": "https://app.paradime.io/bolt/run_id/7",
        "cause": "dbt test: 1 failed",
    }


def test_an_event_names_the_flow_run_that_waits_for_the_run(sent):
    """An automation can then act on this flow run: resume it, say."""
    flow_run_id = uuid4()
    events.emit_triggered(RunSubject(7, ACME, "daily", flow_run_id))
    assert [each.model_dump() for each in sent[0].related] == [
        {"prefect.resource.id": f"prefect.flow-run.{flow_run_id}", "prefect.resource.role": "flow-run"}
    ]


def test_a_run_has_started_when_it_shows_a_command(sent):
    """Before that, it waits for its machine."""
    starting = BoltRunStatus(state=BoltRunState.RUNNING)
    running = BoltRunStatus(state=BoltRunState.RUNNING, commands=[{"id": 1, "command": "dbt run"}])
    assert [events.emit_if_running(DAILY, each) for each in (None, starting, running)] == [False, False, True]
    assert [each.event for each in sent] == ["paradime.bolt-run.started"]


@pytest.mark.parametrize(
    "endpoint, more, workspace",
    [
        ("https://api.paradime.io/api/v1/acme/graphql", {}, ACME),
        ("https://api.paradime.io/api/v1/acme/graphql", {"workspace_uid": "w1"}, Workspace(ACME.host, "w1")),
        ("http://127.0.0.1:8000/graphql", {}, Workspace("127.0.0.1:8000", "default")),
    ],
)
def test_a_workspace_is_known_by_its_address_or_its_uid(endpoint, more, workspace):
    """Run ids are counted for each workspace."""
    assert Workspace.of(credentials(endpoint, **more)) == workspace


@pytest.mark.parametrize("error", [RuntimeError("broken"), ValueError("too many resources")])
def test_an_event_that_cannot_be_sent_harms_nothing(monkeypatch, error):
    """Prefect may be unreachable, or may refuse the event."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("paradime_flows.events.sending.emit_event", fail)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        assert events.emit_ended(DAILY, BoltRunState.SUCCESS) is None


def test_a_late_observer_knows_that_prefect_has_forgotten_a_repetition():
    """The server remembers an event for half an hour."""
    now = datetime.now(timezone.utc)
    assert events.is_recent(now - timedelta(minutes=20))
    assert events.is_recent(None)
    assert not events.is_recent(now - timedelta(minutes=40))
    assert not events.is_recent((now - timedelta(minutes=40)).replace(tzinfo=None))


def test_a_failed_test_names_the_asset_that_it_tests(sent):
    """The asset has the key that prefect-dbt gives it, so that both lead to one page."""
    manifest = Manifest(
        {
            "test.shop.unique": ManifestNode("test", "shop", None, None, None, ("model.shop.orders",)),
            "model.shop.orders": ManifestNode("model", "shop", None, None, '"db"."core"."orders"', ()),
        },
        "snowflake",
    )
    failed = NodeResult("test.shop.unique", "test", "unique", "fail", failures=3, message="Got 3 results")
    passed = NodeResult("test.shop.other", "test", "other", "pass")
    model = NodeResult("model.shop.orders", "model", "orders", "error")
    assert events.emit_dbt_events(DAILY, [failed, passed, model], [], manifest, asset_key) == 1
    assert sent[0].event == "paradime.dbt-test.failed"
    assert sent[0].resource.id == "paradime.dbt-test.test.shop.unique"
    assert (sent[0].payload["failures"], sent[0].payload["message"]) == (3, "Got 3 results")
    related = {each.role: each.id for each in sent[0].related}
    assert related == {"bolt-run": "paradime.bolt-run.7", "asset": "snowflake://db/core/orders"}


def test_a_stale_source_has_its_event_and_a_check_that_failed_has_none(sent):
    """If the query failed, nobody knows whether the source is stale."""
    stale = FreshnessResult("source.shop.raw.orders", "orders", "warn", age_seconds=7200)
    fresh = FreshnessResult("source.shop.raw.items", "items", "pass")
    broken = FreshnessResult("source.shop.raw.gone", "gone", "error", error="no such table")
    assert events.emit_dbt_events(DAILY, [], [stale, fresh, broken], None, asset_key) == 1
    assert (sent[0].event, sent[0].resource["state"]) == ("paradime.dbt-source.stale", "warn")
    assert sent[0].payload["age_seconds"] == 7200


def test_a_thousand_failed_tests_do_not_flood_prefect(sent):
    """The page with the dbt results has all of them."""
    failed = [NodeResult(f"test.shop.{n}", "test", f"t{n}", "fail") for n in range(1000)]
    assert events.emit_dbt_events(DAILY, failed, [], None, asset_key) == MOST_EVENTS
    assert len({each.id for each in sent}) == MOST_EVENTS
