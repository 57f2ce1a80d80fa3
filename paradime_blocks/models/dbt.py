"""What dbt did in a run, for its caller to branch on."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class BoltDbtNode(BaseModel):
    """A model, test, seed or the like in a `BoltDbtResult`; its numbers are those of dbt's file.

    Attributes:
        unique_id: dbt's id, such as `model.shop.orders`.
        resource_type: model, test, unit_test, seed, snapshot, operation, ...
        name: The node's name.
        status: dbt's word, in lower case.
        message: dbt's message in one line of at most 300 characters.
        command: The command that the node ran in, such as `dbt build`.
        seconds: How long the node took.
        failures: The rows that a test found.
        rows_affected: The rows that the warehouse reported.
        bytes_processed: The bytes that the query read (BigQuery, Athena).
        bytes_billed: The bytes that the warehouse charges for (BigQuery).
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
        status: dbt's word: `error` for a stale source, `runtime error` for a check that failed.
        age_seconds: The age of the newest row.
        max_loaded_at: When the newest row was loaded.
        error: Why the check failed.
    """

    unique_id: str
    name: str
    status: str
    age_seconds: float | None = None
    max_loaded_at: datetime | None = None
    error: str | None = None


class BoltDbtResult(BaseModel):
    """What all dbt commands of a run did together, by dbt's own files; empty if there are none.

    A node that ran twice, as with `dbt retry`, counts once, with its last result. The counts and sums are of
    all nodes. Each list holds 50 entries at most, as Prefect stores a flow's result.

    Attributes:
        counts: How many nodes of each resource type ended in each status:
            `{"model": {"success": 12, "error": 1}}`. Checked sources count as `source`.
        failed_tests: The tests and unit tests that failed.
        failed_nodes: The models, seeds, snapshots and operations that failed.
        stale_sources: The sources that are stale or could not be checked.
        slowest: The 10 nodes that took longest, longest first.
        elapsed_seconds: The time that dbt took, without that of other commands.
        rows_affected: The sum over the nodes; like the sums below None if the warehouse does not say.
        bytes_processed: The sum over the nodes.
        bytes_billed: The sum over the nodes.
        slot_ms: The sum over the nodes.
        unread: Which of dbt's files could not be read, and why; what they hold is missing here.

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
        """Return how many nodes ended in one of some statuses.

        Args:
            statuses: dbt's words, such as `success`; without any, all are counted.
            resource_type: The resource type to count; by default all.
        """
        types = self.counts.values() if resource_type is None else [self.counts.get(resource_type, {})]
        return sum(
            n for of_type in types for status, n in of_type.items() if not statuses or status in statuses
        )
