"""What failed in dbt, and what it cost, for the summary of a run."""

from __future__ import annotations

from typing import Final

from paradime_blocks.models import BoltDbtResult
from paradime_blocks.text import cell
from paradime_flows.reporting.markdown import and_more, size, table

_ROWS: Final = 20
_MILLISECONDS: Final = 1000


def render_failed(dbt: BoltDbtResult) -> list[str]:
    """Return a table of what failed, models and the like first; empty if nothing did.

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


def cost_told(dbt: BoltDbtResult) -> str:
    """Return what the warehouse says of rows and cost, in one line; empty if it says nothing.

    Args:
        dbt: dbt's results.
    """
    told = []
    if dbt.rows_affected is not None:
        told.append(f"{dbt.rows_affected:,} rows affected")
    if dbt.bytes_processed is not None:
        told.append(f"{size(dbt.bytes_processed)} processed")
    if dbt.bytes_billed is not None:
        told.append(f"{size(dbt.bytes_billed)} billed")
    if dbt.slot_ms is not None:
        told.append(f"{dbt.slot_ms / _MILLISECONDS:,.1f} s of slot time")
    return ", ".join(told)
