"""Finds the Bolt runs that triggers of other flow runs have started. A search for a trigger's run excludes them."""

from __future__ import annotations

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.sorting import FlowRunSort

from paradime_flows.ledger.phase import Relation
from paradime_flows.ledger.record import Record, read_records
from paradime_flows.prefect_api import prefect_client, run_logger, schedule_tag

# Prefect returns at most this many flow runs in one answer. That is enough, since a search is only about the last
# minutes.
_FLOW_RUNS_READ = 200


async def runs_of_others(record: Record) -> set[int]:
    """Return the Bolt runs of a record's schedule that were started by other triggers than the record's own trigger.

    If a flow run has taken over a record, the old record and the new record have the same trigger. If Prefect does not
    answer, return no Bolt runs.
    """
    tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[schedule_tag(record.schedule)]))
    try:
        async with prefect_client() as client:
            flow_runs = await client.read_flow_runs(
                flow_run_filter=tagged, sort=FlowRunSort.START_TIME_DESC, limit=_FLOW_RUNS_READ
            )
    except Exception as error:  # noqa: BLE001 - the search then uses only what Bolt shows
        run_logger().warning("Could not ask Prefect which Bolt runs other flow runs have started: %s", error)
        return set()
    return {
        other.run_id
        for flow_run in flow_runs
        for other in read_records(flow_run)
        if other.run_id is not None
        and other.relation is Relation.OURS
        and other.intent is not None
        and other.intent != record.intent
        and (other.api_endpoint, other.workspace_uid) == (record.api_endpoint, record.workspace_uid)
    }
