"""The cursor of `watch_runs`: no Bolt run is left out, and none is reported twice."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from paradime_blocks.models import BoltRunRecord
from paradime_flows.events import RunEvent
from paradime_flows.watching.cursor import MOST_DONE, MOST_OPEN, Cursor, OpenRun, advance, first_cursor

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
WHOLE = [RunEvent.TRIGGERED, RunEvent.STARTED, RunEvent.COMPLETED]


def runs(**states: str) -> list[BoltRunRecord]:
    """Runs by their ids: `runs(r7="RUNNING")`, newest first, as Bolt lists them."""
    found = [BoltRunRecord(id=int(name[1:]), state=state, start_dttm=NOON) for name, state in states.items()]
    return sorted(found, key=lambda run: -run.id)


def names(seen) -> list[tuple[int, str]]:
    return [(one.run.id, one.event.value.rpartition(".")[2]) for one in seen]


def stored(cursor: Cursor) -> Cursor:
    """The cursor as the next flow run reads it."""
    return Cursor.model_validate_json(cursor.model_dump_json(exclude_defaults=True))


def test_the_first_look_reports_nothing_of_the_past():
    """Of a run that has not ended, the end is reported later."""
    cursor = stored(first_cursor(runs(r5="SUCCESS", r6="FAILED", r7="RUNNING"), {}))
    assert names(advance(cursor, runs(r5="SUCCESS", r6="FAILED", r7="RUNNING"))[0]) == []
    assert names(advance(cursor, runs(r5="SUCCESS", r6="FAILED", r7="SUCCESS"))[0]) == [(7, "completed")]


def test_the_first_run_of_an_empty_workspace_is_reported():
    """A workspace may have no run at the first poll."""
    cursor = stored(first_cursor([], {}))
    assert names(advance(cursor, runs(r1="STARTING"))[0]) == [(1, "triggered")]


@pytest.mark.parametrize(
    "state, events",
    [
        ("STARTING", ["triggered"]),
        ("RUNNING", ["triggered", "started"]),
        ("SUCCESS", ["triggered", "started", "completed"]),
        ("FAILED", ["triggered", "started", "failed"]),
        ("ERROR", ["triggered", "failed"]),
        ("CANCELED", ["triggered", "canceled"]),
        ("SKIPPED", ["triggered", "skipped"]),
        ("A NEW ONE", ["triggered"]),
    ],
)
def test_a_new_run_has_the_events_that_its_state_shows(state, events):
    """Whether a cancelled run had started is not known; an unknown state is no end."""
    seen, _ = advance(Cursor(floor=6), runs(r7=state))
    assert [name for _, name in names(seen)] == events


def test_an_event_is_reported_once():
    """However often the same state is seen."""
    cursor, found = Cursor(), []
    for state in ["STARTING", "STARTING", "RUNNING", "RUNNING", "SUCCESS", "SUCCESS", "SUCCESS"]:
        seen, cursor = advance(cursor, runs(r7=state))
        cursor = stored(cursor)
        found += seen
    assert [one.event for one in found] == WHOLE


def test_a_run_that_becomes_visible_late_is_not_left_out():
    """Two runs that start together may appear in the other order."""
    _, cursor = advance(Cursor(floor=5), runs(r6="SUCCESS", r8="SUCCESS"))
    seen, cursor = advance(stored(cursor), runs(r6="SUCCESS", r7="SUCCESS", r8="SUCCESS"))
    assert {run_id for run_id, _ in names(seen)} == {7}
    assert advance(stored(cursor), runs(r6="SUCCESS", r7="SUCCESS", r8="SUCCESS"))[0] == []


def test_events_that_prefect_has_not_stored_are_shown_again():
    """The other runs are done."""
    found = runs(r6="SUCCESS", r7="SUCCESS")
    _, after = advance(Cursor(), found, unsent={6})
    assert names(advance(stored(after), found)[0]) == [(6, "triggered"), (6, "started"), (6, "completed")]


def test_an_unsent_event_of_an_open_run_is_shown_again():
    """Its end is not forgotten with the run."""
    cursor = Cursor(floor=7, open={7: OpenRun(started=True)})
    _, after = advance(cursor, runs(r7="FAILED"), unsent={7})
    assert names(advance(stored(after), runs(r7="FAILED"))[0]) == [(7, "failed")]


def test_a_run_is_overdue_once_it_takes_twice_as_long_as_usual():
    """A short run gets a minute at least; of a schedule with too few runs, nothing is usual."""
    at = {minutes: NOON + timedelta(minutes=minutes) for minutes in (19, 21, 30)}
    usual = {7: 600.0, 8: 5.0}
    found = runs(r7="RUNNING", r8="RUNNING", r9="RUNNING")
    seen, cursor = advance(Cursor(), found, now=NOON + timedelta(seconds=30), usual=usual)
    assert "overdue" not in {name for _, name in names(seen)}
    seen, cursor = advance(stored(cursor), found, now=at[19])
    assert names(seen) == [(8, "overdue")]
    seen, cursor = advance(stored(cursor), found, now=at[21])
    assert names(seen) == [(7, "overdue")]
    assert (seen[0].seconds, seen[0].usual) == (21 * 60, 600)
    assert names(advance(stored(cursor), found, now=at[30])[0]) == []


def test_the_cursor_fits_into_a_variable():
    """A variable of Prefect holds 5,000 characters."""
    many = [
        BoltRunRecord(id=2_000_000_000 + n, state="RUNNING" if n % 2 else "SUCCESS", start_dttm=NOON)
        for n in range(2000)
    ]
    usual = {run.id: 1234.567891 for run in many}
    _, cursor = advance(Cursor(), many, usual=usual)
    assert (len(cursor.done), len(cursor.open)) == (MOST_DONE, MOST_OPEN)
    worst = cursor.model_copy(
        update={"open": {id_: OpenRun(started=True, overdue=True, usual=1234567) for id_ in cursor.open}}
    )
    assert max(len(one.model_dump_json(exclude_defaults=True)) for one in (cursor, worst)) < 5000
