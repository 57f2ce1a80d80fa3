"""What makes a schedule overdue or failing in the table."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from paradime_blocks.models import BoltScheduleSummary
from paradime_flows.list_schedules import _listed

DUE = datetime(2026, 11, 24, 3, 0, tzinfo=timezone.utc)
EARLY, LATER = (DUE + timedelta(hours=hours) for hours in (-1, 1))


@pytest.mark.parametrize(
    "fields, overdue, failing",
    [
        pytest.param({"next_run_at": EARLY}, True, False, id="its next run lies in the past"),
        pytest.param({"next_run_at": LATER}, False, False, id="it lies ahead"),
        pytest.param({"next_run_at": EARLY, "suspended": True}, False, False, id="suspended"),
        pytest.param({"next_run_at": EARLY, "last_run_state": "RUNNING"}, False, False, id="it runs now"),
        pytest.param(
            {"next_run_at": LATER, "last_run_state": "ERROR"}, False, True, id="its last run failed"
        ),
        pytest.param({"last_run_state": "CANCELED"}, False, False, id="somebody canceled it"),
        pytest.param({"last_run_state": " "}, False, False, id="it never ran"),
    ],
)
def test_overdue_and_failing(fields: dict[str, object], overdue: bool, failing: bool) -> None:
    """By its next run, its timer and its last state."""
    found = _listed(BoltScheduleSummary(name="daily", **fields), DUE)
    assert (found.overdue, found.failing) == (overdue, failing)
