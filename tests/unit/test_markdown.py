"""Tables, sizes and times of the pages."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from paradime_flows.reporting.markdown import bounded_table, moment, size, table


@pytest.mark.parametrize(
    "count, message",
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 kB"),
        (12 * 1024**2, "12 MB"),
        (2_000 * 1024**3, "2000.0 GB"),
    ],
)
def test_a_size_has_a_suitable_unit(count, message):
    """It has a fraction if that matters."""
    assert size(count) == message


def test_a_time_is_shown_in_utc():
    """It has seconds or minutes, whatever its zone; a missing time is empty."""
    there = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert moment(there) == "2026-01-02 01:04:05"
    assert moment(there, seconds=False) == "2026-01-02 01:04"
    assert moment(None) == ""


def test_a_table_without_room_says_what_it_leaves_out():
    """Its cells are remote text and escaped; the cells of an unlimited table are markdown already."""
    rows = [[f"a | b {n}", "x" * 100] for n in range(100)]
    shown, more = bounded_table(["Name", "Value"], rows, 1000, "nodes")
    lines = shown.splitlines()
    assert lines[:3] == ["| Name | Value |", "| --- | --- |", f"| a \\| b 0 | {'x' * 100} |"]
    assert more == f"… and {100 - (len(lines) - 2)} more nodes"
    assert table(["Run"], [["[1](https://bolt)"]]).splitlines()[-1] == "| [1](https://bolt) |"
