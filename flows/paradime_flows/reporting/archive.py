"""Archives a Bolt run in Prefect: its summary, dbt results, logs, links, stored files and assets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from uuid import UUID

import anyio

from paradime_blocks import BoltClient, BoltError, ParadimeCredentials
from paradime_blocks.models import (
    BoltResourceSummary,
    BoltRunResult,
    BoltRunState,
    BoltUsualDuration,
    run_url,
)
from paradime_blocks.text import Redactor, cell
from paradime_flows.prefect_api import ArtifactWriter, artifact_url
from paradime_flows.reporting.archive_context import ArchiveContext
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.reporting.assets import emit_assets
from paradime_flows.reporting.command_logs import LogArchive
from paradime_flows.reporting.dbt_results import DbtStory
from paradime_flows.reporting.failure_cause import cause_of
from paradime_flows.reporting.file_storage import Storage, address_of, folder_of
from paradime_flows.reporting.node_task_runs import notable, show_nodes
from paradime_flows.reporting.resources import ResourceArchive
from paradime_flows.reporting.run_events import RunEvents
from paradime_flows.reporting.run_summary import RUNS_READ, RunRecord, render_summary

_ATTEMPTS_READ: Final = 20
_NAMES_SHOWN: Final = 10


@dataclass
class Archive:
    """Archives one Bolt run. If a part cannot be archived, the summary lists the part as a problem.

    Only the log of one command, or one resource, is in memory at a time. A problem of the archive does not change the
    outcome of the flow run.

    Attributes:
        credentials: The credentials of the Bolt run's workspace.
        writer: The object that writes the artifacts.
        record: The facts about the Bolt run. The archive adds the facts that it fetches.
        settings: What the archive contains, and where files are stored.
        resources: The resources of the Bolt run that the archive has found so far.
    """

    credentials: ParadimeCredentials
    writer: ArtifactWriter
    record: RunRecord
    settings: ArchiveSettings = field(default_factory=ArchiveSettings)
    resources: list[BoltResourceSummary] = field(default_factory=list)
    _summary: UUID | None = None

    def __post_init__(self) -> None:
        """Create the context that all parts of the archive share."""
        redact = Redactor.of(self.credentials)
        # If Bolt is unreachable later, the summary shows the status that is known now.
        if self.record.status is not None:
            self.record.status = redact.status(self.record.status)
        self._context = ArchiveContext(self.writer, self.record, self.settings, redact)
        self._events = RunEvents(self.credentials, self._context)

    async def run(self) -> None:
        """Write all artifacts.

        The summary is written at the end. If the Bolt run did not succeed, the summary is written as soon as the Bolt
        run's state is known, too.
        """
        if self.record.run_id is not None:
            try:
                await self._all(self.record.run_id)
            except Exception as error:  # noqa: BLE001 - an error of the archive must not hide the run's outcome
                self._context.not_archived("the remaining parts", error, dbt=True)
                self.record.dbt.unread += self._context.dbt_unread[-1:]
            finally:
                # The event is sent even if Prefect stops the archive early.
                await self._events.ended()
        await self.summary()

    def complete(self, result: BoltRunResult) -> BoltRunResult:
        """Add the dbt results and the usual duration, which the archive has read, to the result of the Bolt run.

        Args:
            result: The result without the dbt results and the usual duration.
        """
        return result.model_copy(update={"dbt": self.record.dbt, "usual_duration": self.record.usual})

    async def summary(self) -> None:
        """Write only the summary. A second call updates the same artifact."""
        record = self.record
        run = f", Bolt run {record.run_id}" if record.run_id else ""
        description = f"{cell(record.title)}: {cell(str(record.state or 'no run'))}{run}"
        try:
            text = render_summary(record)
            if self._summary is not None:
                await self.writer.update(self._summary, text)
            else:
                self._summary = await self.writer.markdown(self._context.key(), text, description)
        except Exception as error:  # noqa: BLE001
            self._context.not_archived("the summary", error)

    async def _all(self, run_id: int) -> None:
        logs = LogArchive(self._context)
        files = ResourceArchive(self._context)
        async with self.credentials.get_client() as client:
            await self._status(client, run_id)
            async with anyio.create_task_group() as first:
                if self.record.state != BoltRunState.SUCCESS:
                    # Prefect may stop the archive early, for example after a cancel. Then at least the summary exists.
                    first.start_soon(self.summary)
                first.start_soon(self._open_storage, run_id)
                first.start_soon(self._origin, client, run_id)
            with TemporaryDirectory(prefix="bolt-logs-") as folder:
                await logs.prepare(client, Path(folder))
                async with anyio.create_task_group() as logs.posts:
                    for n, command in enumerate(self._context.commands, 1):
                        self.resources += await logs.archive(client, n, command)
            await files.archive(client, self.resources)
        for command in self._context.commands:
            if command.id in logs.reasons and command.failed:
                files.story.explain(command, logs.reasons[command.id])
        files.story.redact(self._context.redact)
        self.record.dbt = files.story.in_short(self._context.redact, self._context.dbt_unread)
        if self.record.status is not None:
            self.record.cause = cause_of(self.record.status, files.story, logs.error, logs.last)
        await self._results(files.story)
        self._assets(files.story)
        await self._events.dbt(files.story)
        await show_nodes(notable(files.story.results.nodes, self.settings.node_task_runs))

    async def _status(self, client: BoltClient, run_id: int) -> None:
        if self.record.status is not None and self.record.status.state.is_terminal:
            return
        try:
            status = await client.get_bolt_run(run_id, logs=False)
        except BoltError as error:
            self._context.not_archived("the present state", error)
            return
        self.record.status, self.record.state = self._context.redact.status(status), status.state

    async def _open_storage(self, run_id: int) -> None:
        try:
            filesystem = await self.settings.filesystem()
            if filesystem is None:
                return
            folder = folder_of(self.record.schedule_name, run_id)
            self._context.storage = Storage(filesystem, self.settings.storage_patterns, folder)
            self.record.stored_under = address_of(filesystem, folder)
            self.record.storage_block = self.settings.storage
        except Exception as error:  # noqa: BLE001 - whatever a file system raises
            self._context.not_archived("the storage of files", error)

    async def _origin(self, client: BoltClient, run_id: int) -> None:
        """Add to the record who triggered the Bolt run, its branch and commit, and when earlier attempts ran."""
        record, context = self.record, self._context
        attempts = list(record.attempts)
        for at, attempt in list(enumerate(attempts))[-_ATTEMPTS_READ:]:
            if attempt.started_at is None and not context.unreachable:
                try:
                    status = await client.get_bolt_run(attempt.run_id, logs=False)
                except BoltError as error:
                    context.count_outage(error)
                else:
                    times = {"started_at": status.started_at, "ended_at": status.ended_at}
                    attempts[at] = attempt.model_copy(update=times)
        record.attempts = attempts
        if record.schedule_name is None or context.unreachable:
            return
        try:
            page = await client.list_bolt_runs(record.schedule_name, limit=RUNS_READ)
        except BoltError as error:
            # Some backends cannot list Bolt runs. The operation needs the schedule's slug, which may differ from the
            # name.
            context.count_outage(error)
            return
        found = next((run for run in page.runs if run.id == run_id), None)
        if found is not None:
            record.actor = context.redact(found.actor_email or found.actor or "") or None
            git = found.git_info
            checked_out = " at ".join(part for part in (git.branch, git.commit_hash) if part) if git else ""
            record.git = context.redact(checked_out) or None
        record.usual = BoltUsualDuration.of(page.runs, run_id)

    async def _results(self, story: DbtStory) -> None:
        if story.is_empty:
            return
        record = self.record
        record.results_counts = story.counts()
        title = f"Bolt run {record.run_id} of {record.title}"
        try:
            written = await self.writer.markdown(
                self._context.key("dbt results"),
                story.render(title, run_url(record.run_id) if record.run_id else None),
                f"dbt results of {cell(title)}",
            )
        except Exception as error:  # noqa: BLE001
            self._context.not_archived("the dbt results", error)
        else:
            record.results_page = artifact_url(written)

    def _assets(self, story: DbtStory) -> None:
        if not self.settings.assets or not story.parts:
            return
        manifest = story.manifest
        if manifest is None or not manifest.adapter_type:
            self._context.not_archived(
                "the assets", ValueError("there is no manifest that names the adapter.")
            )
            return
        url = run_url(self.record.run_id) if self.record.run_id else None
        facts = {
            "bolt_run_id": self.record.run_id,
            "bolt_run_url": url,
            "bolt_schedule": self.record.title,
        }
        emitted = emit_assets(story.built, manifest, facts, url)
        self.record.assets_counts = emitted.counts()
        for nodes, reason in (
            (emitted.unnamed, "Prefect does not accept the names of"),
            (emitted.refused, "Prefect did not accept the events of"),
        ):
            if nodes:
                names = ", ".join(nodes[:_NAMES_SHOWN])
                more = f" and {len(nodes) - _NAMES_SHOWN} more" if len(nodes) > _NAMES_SHOWN else ""
                self._context.not_archived(f"{len(nodes):,} assets", ValueError(f"{reason} {names}{more}."))
