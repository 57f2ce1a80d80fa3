"""dbt's results as markdown for a Prefect artifact: failures first, bounded in size, remote text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from paradime_blocks.dbt_artifacts import FreshnessResult, NodeResult
from paradime_blocks.dbt_results import FAILED, SKIPPED, SUCCEEDED, WARNED, Summary, failures_first, summarise
from paradime_blocks.text import cell, clean, fence, head_and_tail, shorten

# A status that is not known gets the question mark: the page must not call it good or bad.
_MARKS: Final = (("✅", SUCCEEDED), ("❌", FAILED), ("⚠️", WARNED), ("⏭️", SKIPPED))
_CELL_LIMIT: Final = 120


@dataclass(frozen=True)
class Bounds:
    """How much of the results a page shows.

    Attributes:
        rows: Rows of the table of nodes, and of each other list.
        details: Failures that get their message and paths.
        message_bytes: Of each message, in UTF-8.
        slowest: Nodes in the table of the slowest.
    """

    rows: int = 100
    details: int = 20
    message_bytes: int = 2000
    slowest: int = 10


DEFAULT_BOUNDS: Final = Bounds()


def render_results(nodes: Iterable[NodeResult], bounds: Bounds = DEFAULT_BOUNDS) -> str:
    """Render results: counts, failures with their messages, the slowest, then every node.

    Args:
        nodes: The results, merged.
        bounds: How much to show.

    Returns:
        Markdown, without a heading of its own and without a line break at the end; empty if there are no
        results.
    """
    ordered = failures_first(nodes)
    if not ordered:
        return ""
    summary = summarise(ordered, slowest=bounds.slowest)
    parts = [_counts(summary)]
    if summary.failed:
        parts.append("#### Failures")
        parts.extend(_failure(node, bounds) for node in summary.failed[: bounds.details])
        parts.extend(_more(len(summary.failed) - bounds.details, "failures"))
    if summary.warned:
        rows = [
            [node.name, _found_rows(node), node.message or "", node.path or ""] for node in summary.warned
        ]
        parts += [
            "#### Warnings",
            *_table(["Test", "Rows", "Message", "Path"], rows, bounds.rows, "warnings"),
        ]
    if summary.slowest:
        rows = [
            [node.resource_type.replace("_", " "), node.name, _duration(node.seconds)]
            for node in summary.slowest
        ]
        parts += ["#### Slowest", *_table(["Type", "Name", "Time"], rows, bounds.rows, "nodes")]
    parts += ["#### All nodes", *_all_nodes(ordered, bounds)]
    return "\n\n".join(parts)


def render_freshness(sources: Sequence[FreshnessResult], bounds: Bounds = DEFAULT_BOUNDS) -> str:
    """Render the freshness of sources, the stale ones first.

    Args:
        sources: What sources.json says.
        bounds: How much to show.
    """
    if not sources:
        return ""
    ordered = sorted(sources, key=lambda source: (source.status not in FAILED, source.status not in WARNED))
    rows = [
        [
            f"{mark(source.status)} {source.status}",
            source.name,
            source.error or _duration(source.age_seconds),
            source.max_loaded_at.strftime("%Y-%m-%d %H:%M:%S %Z") if source.max_loaded_at else "",
            source.warn_after or "",
            source.error_after or "",
        ]
        for source in ordered
    ]
    header = ["Status", "Source", "Age", "Loaded at", "Warns after", "Fails after"]
    return "\n\n".join(_table(header, rows, bounds.rows, "sources"))


def mark(status: str) -> str:
    """A sign that a status is seen by."""
    return next((sign for sign, statuses in _MARKS if status in statuses), "❔")


def _counts(summary: Summary) -> str:
    totals: dict[str, int] = {}
    for of_type in summary.counts.values():
        for status, count in of_type.items():
            totals[status] = totals.get(status, 0) + count
    known = [status for _, group in _MARKS for status in sorted(group)]
    statuses = sorted(totals, key=lambda status: known.index(status) if status in known else len(known))
    rows = [
        [kind.replace("_", " "), *(str(of_type.get(status, "")) for status in statuses)]
        for kind, of_type in summary.counts.items()
    ]
    rows.append(["all", *(str(totals[status]) for status in statuses)])
    # Statuses and types are remote text too: a hostile file may have thousands.
    width, height = 12, 30
    header = ["", *(f"{mark(status)} {status}" for status in statuses)][:width]
    return "\n\n".join(_table(header, [row[:width] for row in rows[-height:]], height, "types"))


def _failure(node: NodeResult, bounds: Bounds) -> str:
    lines = [f"**{mark(node.status)} {cell(node.resource_type.replace('_', ' '))} {cell(node.name)}**"]
    facts = {
        "status": node.status,
        "command": node.command,
        "time": _duration(node.seconds),
        "rows": "" if node.failures is None else str(node.failures),
        "file": node.path,
        "compiled": node.compiled_path,
        "relation": node.relation_name,
    }
    lines.append(", ".join(f"{name}: {cell(value)}" for name, value in facts.items() if value))
    message, _ = head_and_tail(clean(node.message or ""), bounds.message_bytes)
    if message.strip():
        lines.append(fence(message))
    return "\n\n".join(lines)


def _all_nodes(ordered: Sequence[NodeResult], bounds: Bounds) -> list[str]:
    rows = [
        [
            f"{mark(node.status)} {node.status}",
            node.resource_type.replace("_", " "),
            node.name,
            _duration(node.seconds),
            _rows(node),
            node.message or "",
        ]
        for node in ordered[: bounds.rows]
    ]
    table = _table(["Status", "Type", "Name", "Time", "Rows", "Message"], rows, bounds.rows, "nodes")
    return [*table, *_more(len(ordered) - bounds.rows, "nodes")]


def _rows(node: NodeResult) -> str:
    return _found_rows(node) if node.rows_affected is None else f"{node.rows_affected:,}"


def _found_rows(node: NodeResult) -> str:
    return f"{node.failures:,}" if node.failures else ""


def _duration(seconds: float | None) -> str:
    # What was skipped took no time at all.
    return shorten(seconds) if seconds else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], limit: int, what: str) -> list[str]:
    """A markdown table, and a line that says how much of it is not shown."""
    lines = [_row(header), "|" + " --- |" * len(header), *(_row(row) for row in rows[:limit])]
    return ["\n".join(lines), *_more(len(rows) - limit, what)]


def _row(values: Sequence[str]) -> str:
    return "| " + " | ".join(cell(value, _CELL_LIMIT) for value in values) + " |"


def _more(count: int, what: str) -> list[str]:
    return [f"… and {count:,} more {what}"] if count > 0 else []
