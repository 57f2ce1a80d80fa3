"""Sends the events about a Bolt run that is archived: how the run ended, its failed dbt tests and stale sources."""

from __future__ import annotations

from paradime_blocks import ParadimeCredentials
from paradime_flows.events import (
    RunSubject,
    emit_dbt_events,
    emit_ended,
    ended_event,
    is_recent,
    known_events,
    run_event_id,
)
from paradime_flows.reporting.archive_context import ArchiveContext
from paradime_flows.reporting.assets import asset_key
from paradime_flows.reporting.dbt_results import DbtStory


class RunEvents:
    """The events about one archived Bolt run.

    If Prefect already has the event for the end of an old Bolt run, nothing is sent.

    Args:
        credentials: The credentials of the Bolt run's workspace.
        context: The context of the archive.
    """

    def __init__(self, credentials: ParadimeCredentials, context: ArchiveContext) -> None:
        self._credentials = credentials
        self._context = context
        self._is_new: bool | None = None

    async def ended(self) -> None:
        """Send how the Bolt run ended."""
        record, status = self._context.record, self._context.record.status
        subject = self._subject()
        if subject is not None and await self._is_wanted(subject):
            emit_ended(
                subject,
                record.state,
                cause=record.cause,
                started_at=None if status is None else status.started_at,
                ended_at=None if status is None else status.ended_at,
            )

    async def dbt(self, story: DbtStory) -> None:
        """Send which tests failed, and which sources are stale. The story must not contain secrets any more."""
        subject = self._subject()
        if subject is not None and not story.is_empty and await self._is_wanted(subject):
            emit_dbt_events(subject, story.results.nodes, story.freshness, story.manifest, asset_key)

    def _subject(self) -> RunSubject | None:
        record = self._context.record
        if record.run_id is None or record.state is None or not record.state.is_terminal:
            return None
        flow_run_id = self._context.writer.flow_run_id
        return RunSubject.of(record.run_id, self._credentials, record.schedule_name, flow_run_id)

    async def _is_wanted(self, subject: RunSubject) -> bool:
        """Whether Prefect may not have the events of a Bolt run yet. Prefect is asked once, and only for an old run."""
        record = self._context.record
        if self._is_new is None:
            event = None if record.state is None else ended_event(record.state)
            if event is None or is_recent(record.status.ended_at if record.status else None):
                self._is_new = True
            else:
                id_ = run_event_id(subject.workspace, subject.run_id, event)
                self._is_new = id_ not in await known_events([id_])
        return self._is_new
