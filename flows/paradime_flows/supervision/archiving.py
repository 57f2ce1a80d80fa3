"""Archives the Bolt run of a record as artifacts of the flow run."""

from __future__ import annotations

from datetime import datetime, timezone

from paradime_blocks import ParadimeCredentials
from paradime_flows.ledger import Record
from paradime_flows.prefect_api import ArtifactWriter, flow_run_url
from paradime_flows.reporting.archive import Archive
from paradime_flows.reporting.run_summary import RunRecord


async def archive_record(record: Record, credentials: ParadimeCredentials, *, outcome: str | None) -> Archive:
    """Archive the Bolt run of a record as artifacts of its flow run.

    `outcome` is a sentence that says how the Bolt run ended.
    """
    archive = _archive_of(record, credentials, outcome)
    await archive.run()
    return archive


async def summarize(record: Record, credentials: ParadimeCredentials, *, outcome: str | None) -> None:
    """Write only the summary of the Bolt run of a record, as an artifact of the flow run."""
    await _archive_of(record, credentials, outcome).summary()


def _archive_of(record: Record, credentials: ParadimeCredentials, outcome: str | None) -> Archive:
    is_ours = record.may_be_cancelled
    triggered_at = None
    if is_ours and record.intent is not None:
        triggered_at = datetime.fromtimestamp(record.intent.intended_at, timezone.utc)
    return Archive(
        credentials,
        ArtifactWriter(flow_run_id=record.flow_run_id),
        RunRecord(
            schedule_name=record.schedule,
            run_id=record.run_id,
            state=record.state,
            branch=record.request.branch if is_ours else None,
            flow_run_page=flow_run_url(record.flow_run_id) if is_ours else None,
            triggered_at=triggered_at,
            outcome=outcome,
            attempts=record.attempts,
            notes=record.notes,
        ),
        record.archive,
    )
