"""The results of dbt in a Bolt run, for decisions in the caller's code."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class BoltDbtNode(BaseModel):
    """A model, test, seed or other node in a `BoltDbtResult`. The numbers come from dbt's run_results.json.

    Attributes:
        unique_id: dbt's id, such as `model.shop.orders`.
        resource_type: dbt's type of the node: model, test, unit_test, seed, snapshot, operation, ...
        name: The node's name.
        status: dbt's status, in lower case.
        message: dbt's message, on one line of at most 300 characters.
        command: The command that ran the node, such as `dbt build`.
        seconds: How long the node took, in seconds.
        failures: The number of rows for which a test failed.
        rows_affected: The number of rows that the warehouse reported as affected.
        bytes_processed: The number of bytes that the query read (BigQuery, Athena).
        bytes_billed: The number of bytes that the warehouse charges for (BigQuery).
        slot_ms: The slot time of the query in milliseconds (BigQuery).
        query_id: The id of the query or job in the warehouse (BigQuery, Snowflake, Databricks, ...).
    """

    unique_id: str
    resource_type: str
    name: str
    status: str
    message: str | None = None
    command: str | None = None
    seconds: float | None = None
    failures: int | None = None
    rows_affected: int | None = None
    bytes_processed: int | None = None
    bytes_billed: int | None = None
    slot_ms: int | None = None
    query_id: str | None = None


class BoltDbtSource(BaseModel):
    """A source in a `BoltDbtResult` that is stale, or whose freshness could not be checked.

    Attributes:
        unique_id: dbt's id, such as `source.shop.raw.orders`.
        name: The source's name.
        status: dbt's status: `error` for a stale source, `runtime error` for a check that failed.
        age_seconds: The age of the newest row, in seconds.
        max_loaded_at: The time at which the newest row was loaded.
        error: Why the freshness check failed; None if the check did not fail.
    """

    unique_id: str
    name: str
    status: str
    age_seconds: float | None = None
    max_loaded_at: datetime | None = None
    error: str | None = None


class BoltDbtResult(BaseModel):
    """The results of all dbt commands of a Bolt run, from dbt's own files; empty if there are no such files.

    A node that ran twice, as with `dbt retry`, counts once, with its last result. The counts and sums include all
    nodes. Each list has at most 50 entries, since Prefect stores a flow's result.

    Attributes:
        counts: How many nodes of each resource type ended in each status:
            `{"model": {"success": 12, "error": 1}}`. Checked sources count as `source`.
        failed_tests: The tests and unit tests that failed.
        failed_nodes: The models, seeds, snapshots and operations that failed.
        stale_sources: The sources that are stale or could not be checked.
        slowest: The 10 nodes that took longest, longest first.
        elapsed_seconds: The time that the dbt commands took, in seconds.
        rows_affected: The sum of `rows_affected` over all nodes; None if the warehouse does not report this number.
        bytes_processed: The sum of `bytes_processed` over all nodes; None if the warehouse does not report this number.
        bytes_billed: The sum of `bytes_billed` over all nodes; None if the warehouse does not report this number.
        slot_ms: The sum of `slot_ms` over all nodes; None if the warehouse does not report this number.
        unread: Which of dbt's files could not be read, and why. The content of these files is missing from this result.

    Example:
        ```python
        from paradime_blocks.models import BoltDbtResult

        dbt = BoltDbtResult(counts={"model": {"success": 12}, "test": {"pass": 30, "fail": 2}})
        assert dbt.count("success", "pass") == 42
        assert dbt.count("fail", "error", resource_type="test") == 2
        ```
    """

    counts: dict[str, dict[str, int]] = Field(default_factory=dict)
    failed_tests: list[BoltDbtNode] = Field(default_factory=list)
    failed_nodes: list[BoltDbtNode] = Field(default_factory=list)
    stale_sources: list[BoltDbtSource] = Field(default_factory=list)
    slowest: list[BoltDbtNode] = Field(default_factory=list)
    elapsed_seconds: float | None = None
    rows_affected: int | None = None
    bytes_processed: int | None = None
    bytes_billed: int | None = None
    slot_ms: int | None = None
    unread: list[str] = Field(default_factory=list)

    def count(self, *statuses: str, resource_type: str | None = None) -> int:
        """Return the number of nodes that ended with one of the given statuses.

        Args:
            statuses: dbt's statuses, such as `success`. Without a status, all nodes are counted.
            resource_type: The resource type to count; None counts all types.
        """
        types = self.counts.values() if resource_type is None else [self.counts.get(resource_type, {})]
        return sum(
            n for of_type in types for status, n in of_type.items() if not statuses or status in statuses
        )
