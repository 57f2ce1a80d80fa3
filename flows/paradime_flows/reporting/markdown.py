"""Writes tables, sizes and times as markdown, for the pages that people read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Final

from paradime_blocks.text import cell

_UNITS: Final = 1024
_CELL_LIMIT: Final = 120
# Every table has at least this much room, so that its head fits.
_LEAST_ROOM: Final = 500


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. The cells that the caller passes are already markdown."""
    return "\n".join([_row(head), _row(["---"] * len(head)), *map(_row, rows)])


def bounded_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], room: int, what: str, count: int | None = None
) -> list[str]:
    """Return a table of as many rows as there is room for, and a line with the number of rows not shown.

    Args:
        head: The columns' names.
        rows: The rows, as plain text. After a row that does not fit, no more rows are read from an iterator.
        room: The largest size of the table.
        what: What the rows are.
        count: The number of rows, if `rows` is an iterator.
    """
    if count is None:
        rows = list(rows)
        count = len(rows)
    lines = [_escaped(head), _row(["---"] * len(head))]
    size, room = size_of(lines), max(room, _LEAST_ROOM)
    for row in rows:
        line = _escaped(row)
        size += size_of([line])
        if size > room:
            break
        lines.append(line)
    return ["\n".join(lines), *and_more(count - len(lines) + 2, what)]


def _escaped(values: Sequence[str]) -> str:
    return _row([cell(value, _CELL_LIMIT) for value in values])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def and_more(count: int, what: str) -> list[str]:
    """Return a line with the number of rows that are not shown. Return none if all rows are shown."""
    return [f"… and {count:,} more {what}"] if count > 0 else []


def size_of(parts: Iterable[str]) -> int:
    """Return the size of some parts of a page in bytes of UTF-8, with the line breaks between them."""
    return sum(len(part.encode(errors="replace")) + 2 for part in parts)


def size(count: int) -> str:
    """Return a number of bytes for people: "512 bytes", "1.5 kB", "12 MB", "3.0 GB"."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < _UNITS:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 10 else f"{value:.1f} {unit}"  # noqa: PLR2004
        value /= _UNITS
    return f"{value:.1f} GB"


def moment(value: datetime | None, *, seconds: bool = True) -> str:
    """Return a date and time in UTC; empty for None."""
    if value is None:
        return ""
    return f"{value.astimezone(timezone.utc):{'%Y-%m-%d %H:%M:%S' if seconds else '%Y-%m-%d %H:%M'}}"
