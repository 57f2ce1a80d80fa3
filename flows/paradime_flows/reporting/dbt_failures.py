"""The dbt failures and the cost of a run, for its summary."""

from __future__ import annotations

from typing import Final

from paradime_blocks.models import BoltDbtResult
from paradime_blocks.text import cell
from paradime_flows.reporting.markdown import and_more, size, table

_ROWS: Final = 20
_MILLISECONDS: Final = 1000


def render_failed(dbt: BoltDbtResult) -> list[str]:
    """Return a table of the failures: first nodes that build something, then tests, then sources. Empty if none failed.

    Args:
        dbt: dbt's results.
    """
    rows = [
        (node.resource_type.replace("_", " "), node.name, node.message or node.status)
        for node in (*dbt.failed_nodes, *dbt.failed_tests)
    ]
    rows += [("source", source.name, source.error or "stale") for source in dbt.stale_sources]
    if not rows:
        return []
    cells = [(cell(kind), cell(name), cell(why, 300)) for kind, name, why in rows[:_ROWS]]
    return [table(("Type", "Name", "Why"), cells), *and_more(len(rows) - _ROWS, "failures")]


def cost_text(dbt: BoltDbtResult) -> str:
    """Return the rows and the cost that the warehouse reports, in one line; empty if it reports none.

    Args:
        dbt: dbt's results.
    """
    parts = []
    if dbt.rows_affected is not None:
        parts.append(f"{dbt.rows_affected:,} rows affected")
    if dbt.bytes_processed is not None:
        parts.append(f"{size(dbt.bytes_processed)} processed")
    if dbt.bytes_billed is not None:
        parts.append(f"{size(dbt.bytes_billed)} billed")
    if dbt.slot_ms is not None:
        parts.append(f"{dbt.slot_ms / _MILLISECONDS:,.1f} s of slot time")
    return ", ".join(parts)
