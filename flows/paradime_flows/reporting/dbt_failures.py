"""Renders the dbt failures and the cost of a Bolt run, for the summary of the Bolt run."""

from __future__ import annotations

from typing import Final

from paradime_blocks.models import BoltDbtResult
from paradime_flows.reporting.markdown import and_more, bounded_list, size

_ENTRIES: Final = 20
_BYTES: Final = 20_000
_MILLISECONDS: Final = 1000


def render_failed(dbt: BoltDbtResult) -> list[str]:
    """Return a list of dbt's failures: first failed nodes, then failed tests, then stale sources.

    The list is empty if nothing failed.

    Args:
        dbt: The dbt results of the Bolt run.
    """
    entries = [
        (f"{node.resource_type.replace('_', ' ')} {node.name}", node.message or node.status)
        for node in (*dbt.failed_nodes, *dbt.failed_tests)
    ]
    entries += [(f"source {source.name}", source.error or "stale") for source in dbt.stale_sources]
    if not entries:
        return []
    shown, *_ = bounded_list(entries[:_ENTRIES], _BYTES, "failures")
    return [shown, *and_more(len(entries) - shown.count("\n") - 1, "failures")]


def rows_text(dbt: BoltDbtResult) -> str:
    """Return the number of affected rows as text; empty if the warehouse does not report the number.

    Args:
        dbt: The dbt results of the Bolt run.
    """
    return "" if dbt.rows_affected is None else f"{dbt.rows_affected:,} affected"


def cost_text(dbt: BoltDbtResult) -> str:
    """Return the cost as one line of text; empty if the warehouse does not report the cost.

    Args:
        dbt: The dbt results of the Bolt run.
    """
    parts = []
    if dbt.bytes_processed is not None:
        parts.append(f"{size(dbt.bytes_processed)} processed")
    if dbt.bytes_billed is not None:
        parts.append(f"{size(dbt.bytes_billed)} billed")
    if dbt.slot_ms is not None:
        parts.append(f"{dbt.slot_ms / _MILLISECONDS:,.1f} s of slot time")
    return ", ".join(parts)
