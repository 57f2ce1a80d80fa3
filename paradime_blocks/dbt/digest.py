"""Makes a short summary of dbt's files, which becomes a part of the flow's result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import nlargest
from pathlib import PurePosixPath
from typing import Final

from paradime_blocks.dbt.artifacts import FreshnessResult, NodeResult, RunResults
from paradime_blocks.dbt.results import FAILED, TESTS, summarise
from paradime_blocks.models.dbt import BoltDbtNode, BoltDbtResult, BoltDbtSource
from paradime_blocks.text.redaction import Redactor

# The result is limited, since Prefect stores a flow's result and sends it from task to task.
ENTRIES_AT_MOST: Final = 50
_SLOWEST: Final = 10
_MESSAGE_CHARACTERS: Final = 300
_NAME_CHARACTERS: Final = 200
_UNREAD_AT_MOST: Final = 20
_RESULTS: Final = frozenset({"run_results.json", "sources.json", "freshness.json"})
# dbt has fewer resource types and fewer statuses than this limit. A file with more was not written by dbt.
_KINDS_AT_MOST: Final = 30
_WORD_CHARACTERS: Final = 40


def digest(
    results: RunResults,
    freshness: Sequence[FreshnessResult],
    redact: Redactor,
    unread: Iterable[str] = (),
) -> BoltDbtResult:
    """Return a short result of all dbt commands of a Bolt run.

    Args:
        results: The results of all commands, merged.
        freshness: The sources that the commands checked.
        redact: Removes secrets from text, before the text is cut.
        unread: The files that could not be read, and why.
    """
    summary = summarise(results.nodes, _SLOWEST)
    counts = {kind: dict(of_type) for kind, of_type in summary.counts.items()}
    for source in freshness:
        of_sources = counts.setdefault("source", {})
        of_sources[source.status] = of_sources.get(source.status, 0) + 1
    tests = [node for node in summary.failed if node.resource_type in TESTS]
    others = [node for node in summary.failed if node.resource_type not in TESTS]
    stale = [source for source in freshness if source.status in FAILED]
    return BoltDbtResult(
        counts={
            redact.line(kind, _WORD_CHARACTERS): {
                redact.line(status, _WORD_CHARACTERS): n
                for status, n in Counter(of_type).most_common(_KINDS_AT_MOST)
            }
            for kind, of_type in nlargest(
                _KINDS_AT_MOST, counts.items(), key=lambda each: sum(each[1].values())
            )
        },
        failed_tests=[_node(node, redact) for node in tests[:ENTRIES_AT_MOST]],
        failed_nodes=[_node(node, redact) for node in others[:ENTRIES_AT_MOST]],
        stale_sources=[_source(source, redact) for source in stale[:ENTRIES_AT_MOST]],
        slowest=[_node(node, redact) for node in summary.slowest],
        elapsed_seconds=results.elapsed_seconds,
        rows_affected=_sum(node.rows_affected for node in results.nodes),
        bytes_processed=_sum(node.cost.bytes_processed for node in results.nodes),
        bytes_billed=_sum(node.cost.bytes_billed for node in results.nodes),
        slot_ms=_sum(node.cost.slot_ms for node in results.nodes),
        unread=[redact.line(told, _MESSAGE_CHARACTERS) for told in list(unread)[:_UNREAD_AT_MOST]],
    )


def not_read(paths: Iterable[str], redact: Redactor) -> BoltDbtResult:
    """Return a result for dbt files that were not read. The result names the files, so nobody takes it for a success.

    Args:
        paths: The files that the run's commands wrote.
        redact: Removes secrets from text.
    """
    results = dict.fromkeys(path for path in paths if PurePosixPath(path).name in _RESULTS)
    return BoltDbtResult(
        unread=[
            f"{redact.line(path)}: only flows such as inspect_run and archive_run read this file."
            for path in list(results)[:_UNREAD_AT_MOST]
        ]
    )


def _node(node: NodeResult, redact: Redactor) -> BoltDbtNode:
    return BoltDbtNode(
        unique_id=redact.line(node.unique_id, _NAME_CHARACTERS),
        resource_type=redact.line(node.resource_type, _WORD_CHARACTERS),
        name=redact.line(node.name, _NAME_CHARACTERS),
        status=redact.line(node.status, _WORD_CHARACTERS),
        message=redact.line(node.message, _MESSAGE_CHARACTERS) if node.message else None,
        command=redact.line(node.command, _NAME_CHARACTERS) if node.command else None,
        seconds=node.seconds,
        # For other nodes this number has no meaning.
        failures=node.failures if node.resource_type in TESTS else None,
        rows_affected=node.rows_affected,
        bytes_processed=node.cost.bytes_processed,
        bytes_billed=node.cost.bytes_billed,
        slot_ms=node.cost.slot_ms,
        query_id=redact.line(node.cost.query_id, _NAME_CHARACTERS) if node.cost.query_id else None,
    )


def _source(source: FreshnessResult, redact: Redactor) -> BoltDbtSource:
    return BoltDbtSource(
        unique_id=redact.line(source.unique_id, _NAME_CHARACTERS),
        name=redact.line(source.name, _NAME_CHARACTERS),
        status=redact.line(source.status, _WORD_CHARACTERS),
        age_seconds=source.age_seconds,
        max_loaded_at=source.max_loaded_at,
        error=redact.line(source.error, _MESSAGE_CHARACTERS) if source.error else None,
    )


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None
