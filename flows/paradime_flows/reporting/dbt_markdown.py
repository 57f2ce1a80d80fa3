"""Renders dbt's results as markdown for a Prefect artifact. Failures come first, and the size is limited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from paradime_blocks.dbt import (
    FAILED,
    SKIPPED,
    SUCCEEDED,
    TESTS,
    WARNED,
    FreshnessResult,
    NodeResult,
    Summary,
    failures_first,
    summarise,
    told_batches,
)
from paradime_blocks.text import cell, clean, fence, head_and_tail, one_line, shorten
from paradime_flows.reporting.markdown import and_more, bounded_list, bounded_table, size_of

# An unknown status gets a question mark, because we do not know whether the status is good or bad.
_MARKS: Final = (("✅", SUCCEEDED), ("❌", FAILED), ("⚠️", WARNED), ("⏭️", SKIPPED))
_COUNTS_BYTES: Final = 50_000
_COUNTS_COLUMNS: Final = 12
_COUNTS_ROWS: Final = 30
_MESSAGE_CHARACTERS: Final = 24


@dataclass(frozen=True)
class Bounds:
    """The limits for the page of dbt's results. Sizes are in bytes of UTF-8.

    Attributes:
        page_bytes: The largest size of the results, and also the largest size of the table of source freshness.
            Failures come first, then warnings, then as many nodes as fit.
        message_bytes: The largest size of a failure's message. If not all failures fit, messages are cut to a smaller
            size.
        slowest: The number of nodes in the table of the slowest nodes.
    """

    page_bytes: int = 500_000
    message_bytes: int = 2000
    slowest: int = 10


DEFAULT_BOUNDS: Final = Bounds()
# Failures get this share of the free room. Warnings get their share of the room that is left after the failures. The
# table of all nodes gets the rest.
_FAILURES_SHARE: Final = 0.6
_WARNINGS_SHARE: Final = 0.3
# The approximate size of the line with facts about a failure, and the smallest size to which a message is cut.
_FACTS_BYTES: Final = 400
_LEAST_MESSAGE_BYTES: Final = 200


def render_results(nodes: Iterable[NodeResult], bounds: Bounds = DEFAULT_BOUNDS) -> str:
    """Render dbt's results: counts, failures with their messages, warnings, the slowest nodes, then all nodes.

    Args:
        nodes: The results of all commands, merged.
        bounds: The limits for the page.

    Returns:
        Markdown, without a heading and without a line break at the end; empty if there are no results.
    """
    ordered = failures_first(nodes)
    if not ordered:
        return ""
    summary = summarise(ordered, slowest=bounds.slowest)
    parts = [_counts(summary)]
    room = bounds.page_bytes - size_of(parts)
    if summary.slowest:
        rows = [
            [node.resource_type.replace("_", " "), node.name, _duration(node.seconds)]
            for node in summary.slowest
        ]
        slowest = ["#### Slowest", *bounded_table(["Type", "Name", "Time"], rows, room, "nodes")]
    else:
        slowest = []
    room -= size_of(slowest)
    if summary.failed:
        failures = ["#### Failures", *_failures(summary.failed, bounds, int(room * _FAILURES_SHARE))]
        parts += failures
        room -= size_of(failures)
    if summary.warned:
        entries = [(node.name, _warning(node)) for node in summary.warned]
        warnings = ["#### Warnings", *bounded_list(entries, int(room * _WARNINGS_SHARE), "warnings")]
        parts += warnings
        room -= size_of(warnings)
    parts += [*slowest, "#### All nodes", *_all_nodes(ordered, room)]
    return "\n\n".join(parts)


def render_freshness(sources: Sequence[FreshnessResult], bounds: Bounds = DEFAULT_BOUNDS) -> str:
    """Render the freshness of sources as a table. Stale sources come first.

    Args:
        sources: The results in sources.json.
        bounds: The limits for the page.
    """
    if not sources:
        return ""
    ordered = sorted(sources, key=lambda source: (source.status not in FAILED, source.status not in WARNED))
    rows = (
        [
            f"{mark(source.status)} {source.status}",
            source.name,
            _duration(source.age_seconds),
            source.max_loaded_at.strftime("%Y-%m-%d %H:%M:%S %Z") if source.max_loaded_at else "",
            source.warn_after or "",
            source.error_after or "",
        ]
        for source in ordered
    )
    header = ["Status", "Source", "Age", "Loaded at", "Warns after", "Fails after"]
    parts = bounded_table(header, rows, bounds.page_bytes // 2, "sources", len(ordered))
    errors = [(source.name, source.error) for source in ordered if source.error]
    if errors:
        parts += bounded_list(errors, bounds.page_bytes // 2, "errors")
    return "\n\n".join(parts)


def mark(status: str) -> str:
    """Return the emoji for a dbt status."""
    return next((sign for sign, statuses in _MARKS if status in statuses), "❔")


def _counts(summary: Summary) -> str:
    totals: dict[str, int] = {}
    for of_type in summary.counts.values():
        for status, count in of_type.items():
            totals[status] = totals.get(status, 0) + count
    known = [status for _, group in _MARKS for status in sorted(group)]
    statuses = sorted(totals, key=lambda status: known.index(status) if status in known else len(known))
    # Statuses and types come from a file that dbt wrote. A hostile file may have thousands of statuses and types, and
    # the table would have too many cells.
    statuses = statuses[: _COUNTS_COLUMNS - 1]
    kinds = list(summary.counts.items())[1 - _COUNTS_ROWS :]
    shown = [
        [kind.replace("_", " "), *(str(of_type.get(status, "")) for status in statuses)]
        for kind, of_type in kinds
    ]
    shown.append(["all", *(str(totals[status]) for status in statuses)])
    header = ["", *(f"{mark(status)} {status}" for status in statuses)]
    return "\n\n".join(bounded_table(header, shown, _COUNTS_BYTES, "types"))


def _failures(failed: Sequence[NodeResult], bounds: Bounds, room: int) -> list[str]:
    """Return the text for each failure, with message and paths, and a line with the number of failures not shown."""
    fair = max(_LEAST_MESSAGE_BYTES, room // len(failed) - _FACTS_BYTES)
    shown: list[str] = []
    size = 0
    for node in failed:
        block = _failure(node, min(bounds.message_bytes, fair))
        size += size_of([block])
        # The first failure is always shown, because people open the page to see it.
        if size > room and shown:
            break
        shown.append(block)
    return [*shown, *and_more(len(failed) - len(shown), "failures")]


def _failure(node: NodeResult, message_bytes: int) -> str:
    lines = [f"**{mark(node.status)} {cell(node.resource_type.replace('_', ' '))} {cell(node.name)}**"]
    facts = {
        "status": node.status,
        "command": node.command,
        "time": _duration(node.seconds),
        "batches that failed": told_batches(node) if node.failed_batches else "",
        "rows": _rows(node),
        "file": node.path,
        "compiled": node.compiled_path,
        "relation": node.relation_name,
    }
    lines.append(", ".join(f"{name}: {cell(value)}" for name, value in facts.items() if value))
    message, _ = head_and_tail(clean(node.message or ""), message_bytes)
    if message.strip():
        lines.append(fence(message))
    return "\n\n".join(lines)


def _warning(node: NodeResult) -> str:
    # The facts come first, because a long message is cut.
    facts = {"rows": _rows(node), "file": node.path}
    told = ", ".join(f"{name}: {value}" for name, value in facts.items() if value)
    return f"({told}) {node.message or node.status}" if told else node.message or node.status


def _all_nodes(ordered: Sequence[NodeResult], room: int) -> list[str]:
    rows = (
        [
            f"{mark(node.status)} {node.status}",
            node.resource_type.replace("_", " "),
            node.name,
            _duration(node.seconds),
            _rows(node),
            # The whole messages of failures and warnings are above. A long message would be cut off.
            one_line(node.message or "", _MESSAGE_CHARACTERS),
        ]
        for node in ordered
    )
    header = ["Status", "Type", "Name", "Time", "Rows", "Message"]
    return bounded_table(header, rows, room, "nodes", len(ordered))


def _rows(node: NodeResult) -> str:
    """Return the number of rows of a node as text.

    For a test, this is the number of rows that failed (`failures`). For any other node, this is `rows_affected`. Each
    kind of node uses only one of these two fields.
    """
    rows = node.failures if node.resource_type in TESTS else node.rows_affected
    return "" if rows is None else f"{rows:,}"


def _duration(seconds: float | None) -> str:
    # A node that was skipped took no time, so the cell for its time is empty.
    return shorten(seconds) if seconds else ""
