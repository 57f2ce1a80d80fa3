"""Reads the cost of a dbt node, as the warehouse reports the cost to dbt's adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paradime_blocks.dbt.json import integer, mapping, text


@dataclass(frozen=True)
class Cost:
    """The cost of one node, as a dbt adapter reports it.

    Attributes:
        bytes_processed: The number of bytes that the query read.
        bytes_billed: The number of bytes that the warehouse charges for.
        slot_ms: The slot time in milliseconds.
        query_id: The id of the query or job in the warehouse.
    """

    bytes_processed: int | None = None
    bytes_billed: int | None = None
    slot_ms: int | None = None
    query_id: str | None = None


NO_COST = Cost()


def cost_of(entry: Mapping[str, Any]) -> Cost:
    """Return the cost of a node from its entry in run_results.json.

    Args:
        entry: The node's entry in run_results.json.
    """
    response = mapping(entry, "adapter_response")
    processed = integer(response, "bytes_processed")
    return Cost(
        # dbt-athena has this name for the bytes that the query read.
        integer(response, "data_scanned_in_bytes") if processed is None else processed,
        integer(response, "bytes_billed"),
        integer(response, "slot_ms"),
        text(response, "query_id") or text(response, "job_id"),
    )


def rows_of(entry: Mapping[str, Any]) -> int | None:
    """Return the number of rows that a node affected; None if the warehouse does not report the number.

    Args:
        entry: The node's entry in run_results.json.
    """
    rows = integer(mapping(entry, "adapter_response"), "rows_affected")
    # If the number is unknown, some databases report -1.
    return rows if rows is not None and rows >= 0 else None
