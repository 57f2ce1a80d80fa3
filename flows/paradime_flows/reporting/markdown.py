"""Writes tables, sizes and times as markdown, for pages in Prefect's UI."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Final

from paradime_blocks.text import cell

_UNITS: Final = 1024
_CELL_LIMIT: Final = 120
_TEXT_LIMIT: Final = 400
# Every table may have at least this size, so that the head of the table fits.
_LEAST_ROOM: Final = 500


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a markdown table. The caller passes cells that are already markdown."""
    return "\n".join([_row(head), _row(["---"] * len(head)), *map(_row, rows)])


def bounded_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], room: int, what: str, count: int | None = None
) -> list[str]:
    """Return a markdown table with as many rows as fit, and a line with the number of rows that are not shown.

    Args:
        head: The names of the columns.
        rows: The rows, as plain text. If a row does not fit, the function reads no more rows from an iterator.
        room: The largest size of the table, in bytes of UTF-8.
        what: The word for the rows, such as `nodes`.
        count: The number of rows. The caller passes this number if `rows` is an iterator.
    """
    if count is None:
        rows = list(rows)
        count = len(rows)
    lines = [_escaped(head), _row(["---"] * len(head))]
    shown = _first(map(_escaped, rows), max(room, _LEAST_ROOM) - size_of(lines))
    return ["\n".join([*lines, *shown]), *and_more(count - len(shown), what)]


def bounded_list(entries: Sequence[tuple[str, str]], room: int, what: str) -> list[str]:
    """Return a markdown list with as many entries as fit, and a line with the number of entries that are not shown.

    Prefect's V1 UI cuts off a wide table, but not a list. So long texts are in lists.

    Args:
        entries: For each entry, a name and a text, as plain text.
        room: The largest size of the list, in bytes of UTF-8.
        what: The word for the entries, such as `warnings`.
    """
    lines = (f"- **{cell(name)}**: {cell(text, _TEXT_LIMIT)}" for name, text in entries)
    shown = _first(lines, max(room, _LEAST_ROOM))
    return ["\n".join(shown), *and_more(len(entries) - len(shown), what)]


def _first(lines: Iterable[str], room: int) -> list[str]:
    """Return the first lines, as many as fit. If a line does not fit, no more lines are read."""
    shown: list[str] = []
    for line in lines:
        room -= size_of([line])
        if room < 0:
            break
        shown.append(line)
    return shown


def _escaped(values: Sequence[str]) -> str:
    return _row([cell(value, _CELL_LIMIT) for value in values])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def and_more(count: int, what: str) -> list[str]:
    """Return a line with the number of rows that are not shown. The list is empty if all rows are shown."""
    return [f"… and {count:,} more {what}"] if count > 0 else []


def size_of(parts: Iterable[str]) -> int:
    """Return the size of some parts of a page in bytes of UTF-8, with the line breaks between them."""
    return sum(len(part.encode(errors="replace")) + 2 for part in parts)


def size(count: int) -> str:
    """Return a number of bytes as text for people, such as "512 bytes", "1.5 kB", "12 MB" or "3.0 GB"."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < _UNITS:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 10 else f"{value:.1f} {unit}"  # noqa: PLR2004
        value /= _UNITS
    return f"{value:.1f} GB"


def moment(value: datetime | None, *, seconds: bool = True) -> str:
    """Return a date and time in UTC as text. The text is empty if the value is None."""
    if value is None:
        return ""
    return f"{value.astimezone(timezone.utc):{'%Y-%m-%d %H:%M:%S' if seconds else '%Y-%m-%d %H:%M'}}"
