"""Tables, sizes and times of the pages."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from paradime_flows.reporting.markdown import bounded_table, moment, size, table


@pytest.mark.parametrize(
    "count, told",
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 kB"),
        (12 * 1024**2, "12 MB"),
        (2_000 * 1024**3, "2000.0 GB"),
    ],
)
def test_a_size_is_told_in_the_unit_that_suits_it(count, told):
    """With a fraction where it says something."""
    assert size(count) == told


def test_a_time_is_told_in_utc():
    """Wherever it was taken; to the second or to the minute, and not at all if there is none."""
    there = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert moment(there) == "2026-01-02 01:04:05"
    assert moment(there, seconds=False) == "2026-01-02 01:04"
    assert moment(None) == ""


def test_a_table_that_has_no_room_says_what_it_leaves_out():
    """Cells of remote text are escaped there; those of a table that is not bounded are markdown already."""
    rows = [[f"a | b {n}", "x" * 100] for n in range(100)]
    shown, more = bounded_table(["Name", "Value"], rows, 1000, "nodes")
    lines = shown.splitlines()
    assert lines[:3] == ["| Name | Value |", "| --- | --- |", f"| a \\| b 0 | {'x' * 100} |"]
    assert more == f"… and {100 - (len(lines) - 2)} more nodes"
    assert table(["Run"], [["[1](https://bolt)"]]).splitlines()[-1] == "| [1](https://bolt) |"
