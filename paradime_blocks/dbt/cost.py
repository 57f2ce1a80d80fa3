"""What a warehouse says of the cost of a node, by the names that dbt's adapters give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paradime_blocks.dbt.json import integer, mapping, text


@dataclass(frozen=True)
class Cost:
    """What an adapter says of the cost of one node.

    Attributes:
        bytes_processed: The bytes that the query read.
        bytes_billed: The bytes that are charged for.
        slot_ms: The slot time in milliseconds.
        query_id: The id of the query or job in the warehouse.
    """

    bytes_processed: int | None = None
    bytes_billed: int | None = None
    slot_ms: int | None = None
    query_id: str | None = None


NO_COST = Cost()


def cost_of(entry: Mapping[str, Any]) -> Cost:
    """Return what the entry of a node in run_results.json says of its cost.

    Args:
        entry: The entry.
    """
    response = mapping(entry, "adapter_response")
    processed = integer(response, "bytes_processed")
    return Cost(
        # So dbt-athena calls it.
        integer(response, "data_scanned_in_bytes") if processed is None else processed,
        integer(response, "bytes_billed"),
        integer(response, "slot_ms"),
        text(response, "query_id") or text(response, "job_id"),
    )


def rows_of(entry: Mapping[str, Any]) -> int | None:
    """Return how many rows the entry of a node says that it affected; None where the warehouse does not know.

    Args:
        entry: The entry.
    """
    rows = integer(mapping(entry, "adapter_response"), "rows_affected")
    # Databases that don't know say -1.
    return rows if rows is not None and rows >= 0 else None
