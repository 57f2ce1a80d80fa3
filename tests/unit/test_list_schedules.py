"""Which schedules are overdue or failing in the table."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from paradime_blocks.models import BoltScheduleSummary
from paradime_flows.list_schedules import ListedSchedule

DUE = datetime(2026, 11, 24, 3, 0, tzinfo=timezone.utc)
EARLY, LATER = (DUE + timedelta(hours=hours) for hours in (-1, 1))


@pytest.mark.parametrize(
    "fields, overdue, failing",
    [
        pytest.param({"next_run_at": EARLY}, True, False, id="its next run is in the past"),
        pytest.param({"next_run_at": LATER}, False, False, id="its next run is in the future"),
        pytest.param({"next_run_at": EARLY, "suspended": True}, False, False, id="suspended"),
        pytest.param(
            {"next_run_at": EARLY, "last_run_state": "RUNNING"}, False, False, id="it is running now"
        ),
        pytest.param(
            {"next_run_at": LATER, "last_run_state": "ERROR"}, False, True, id="its last run failed"
        ),
        pytest.param({"last_run_state": "CANCELED"}, False, False, id="its last run was canceled"),
        pytest.param({"last_run_state": " "}, False, False, id="it never ran"),
    ],
)
def test_overdue_and_failing(fields: dict[str, object], overdue: bool, failing: bool) -> None:
    """By its next run, its timer and its last state."""
    found = ListedSchedule.of(BoltScheduleSummary(name="daily", **fields), DUE)
    assert (found.overdue, found.failing) == (overdue, failing)


def test_every_column_has_a_title() -> None:
    """Prefect's V1 UI shows no cells in a column without a title."""
    late = ListedSchedule.of(BoltScheduleSummary(name="daily", next_run_at=EARLY), DUE)
    assert all(late.row().keys())
    assert late.row()["Problem"] == "⏰ overdue"


def test_values_from_bolt_are_cleaned_and_cut_in_the_table() -> None:
    """Timer, owner, name and an unknown state."""
    long = "\x1b[31m" + "x\n" * 500
    listed = ListedSchedule.of(
        BoltScheduleSummary(name=long, schedule=long, owner=long, last_run_state=long), DUE
    )
    row = listed.row()
    assert {name: len(row[name]) for name in ("Schedule", "Timer (UTC)", "Owner", "Last state")} == {
        "Schedule": 200,
        "Timer (UTC)": 200,
        "Owner": 200,
        "Last state": 60,
    }
    assert not [text for text in row.values() if "\x1b" in text or "\n" in text]
