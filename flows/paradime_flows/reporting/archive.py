"""What a Bolt run leaves behind in Prefect: summary, dbt results, logs, links, storage, assets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from paradime_blocks import BoltClient, BoltError, ParadimeCredentials
from paradime_blocks.models import BoltResourceSummary, run_url
from paradime_blocks.text import Redactor, cell
from paradime_flows.prefect_api import ArtifactWriter, artifact_url
from paradime_flows.reporting.archive_context import ArchiveContext
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.reporting.assets import emit_assets
from paradime_flows.reporting.command_logs import LogArchive
from paradime_flows.reporting.dbt_results import DbtStory
from paradime_flows.reporting.failure_cause import cause_of
from paradime_flows.reporting.resources import ResourceArchive
from paradime_flows.reporting.run_summary import RunRecord, render_summary
from paradime_flows.reporting.storage import Storage, address_of, folder_of

_ATTEMPTS_LOOKED_AT: Final = 20
_RUNS_LOOKED_AT: Final = 50
_NAMES_TOLD: Final = 10


@dataclass
class Archive:
    """Archives one run; what fails to be fetched is left out and told, and never hides the run's own outcome.

    One command's log, or one resource, is in memory at a time.

    Attributes:
        credentials: The credentials of the run's workspace.
        writer: Writes the artifacts.
        record: What is known of the run; completed by what is fetched.
        settings: What to archive, and where.
        resources: The run's resources, as far as they are known.
    """

    credentials: ParadimeCredentials
    writer: ArtifactWriter
    record: RunRecord
    settings: ArchiveSettings = field(default_factory=ArchiveSettings)
    resources: list[BoltResourceSummary] = field(default_factory=list)
    _summary: UUID | None = None

    def __post_init__(self) -> None:
        """Make what the parts share."""
        redact = Redactor.of(self.credentials)
        # It is what there is to show if Bolt cannot be asked again.
        if self.record.status is not None:
            self.record.status = redact.status(self.record.status)
        self._context = ArchiveContext(self.writer, self.record, self.settings, redact)

    async def run(self) -> None:
        """Write all artifacts: the summary as soon as the run's state is known, and anew at the end."""
        if self.record.run_id is not None:
            try:
                await self._all(self.record.run_id)
            except Exception as error:  # noqa: BLE001 - the outcome of the run must not hide behind its archive
                self._context.missed("the rest", error)
        await self.summary()

    async def summary(self) -> None:
        """Write the summary alone; written again, it takes the place of the one before."""
        record = self.record
        run = f", Bolt run {record.run_id}" if record.run_id else ""
        told = f"{cell(record.title)}: {cell(str(record.state or 'no run'))}{run}"
        try:
            text = render_summary(record)
            if self._summary is not None:
                await self.writer.update(self._summary, text)
            else:
                self._summary = await self.writer.markdown(self._context.key(), text, told)
        except Exception as error:  # noqa: BLE001
            self._context.missed("the summary", error)

    async def _all(self, run_id: int) -> None:
        logs = LogArchive(self._context)
        files = ResourceArchive(self._context)
        async with self.credentials.get_client() as client:
            await self._status(client, run_id)
            # Whoever cuts the archive short, as Prefect does after a cancel, leaves this at least.
            await self.summary()
            await self._open_storage(run_id)
            await self._origin(client, run_id)
            for n, command in enumerate(self._context.commands, 1):
                self.resources += await logs.archive(client, n, command)
            await files.archive(client, self.resources)
        for command in self._context.commands:
            if command.id in logs.reasons and command.failed:
                files.story.explain(command, logs.reasons[command.id])
        files.story.redact(self._context.redact)
        if self.record.status is not None:
            self.record.cause = cause_of(self.record.status, files.story, logs.error, logs.last)
        await self._results(files.story)
        self._assets(files.story)

    async def _status(self, client: BoltClient, run_id: int) -> None:
        try:
            status = await client.get_bolt_run(run_id, logs=False)
        except BoltError as error:
            self._context.missed("the present state", error)
            return
        self.record.status, self.record.state = self._context.redact.status(status), status.state

    async def _open_storage(self, run_id: int) -> None:
        try:
            filesystem = await self.settings.filesystem()
            if filesystem is None:
                return
            folder = folder_of(self.record.schedule_name, run_id)
            self._context.storage = Storage(filesystem, self.settings.storage_patterns, folder)
            self.record.kept_under = address_of(filesystem, folder)
            self.record.kept_by = self.settings.storage
        except Exception as error:  # noqa: BLE001 - whatever a file system raises
            self._context.missed("the storage of files", error)

    async def _origin(self, client: BoltClient, run_id: int) -> None:
        """Complete who triggered the run, what it checked out, and when earlier attempts ran: extras."""
        record, context = self.record, self._context
        attempts = list(record.attempts)
        for at, attempt in list(enumerate(attempts))[-_ATTEMPTS_LOOKED_AT:]:
            if attempt.started_at is None and not context.out_of_reach:
                try:
                    status = await client.get_bolt_run(attempt.run_id, logs=False)
                except BoltError as error:
                    context.count_outage(error)
                else:
                    times = {"started_at": status.started_at, "ended_at": status.ended_at}
                    attempts[at] = attempt.model_copy(update=times)
        record.attempts = attempts
        if record.schedule_name is None or context.out_of_reach:
            return
        try:
            page = await client.list_bolt_runs(record.schedule_name, limit=_RUNS_LOOKED_AT)
        except BoltError as error:
            # Backends may lack it, and it goes by slug, which may differ from the name.
            context.count_outage(error)
            return
        found = next((run for run in page.runs if run.id == run_id), None)
        if found is not None:
            record.actor = context.redact(found.actor_email or found.actor or "") or None
            git = found.git_info
            told = " at ".join(part for part in (git.branch, git.commit_hash) if part) if git else ""
            record.git = context.redact(told) or None

    async def _results(self, story: DbtStory) -> None:
        if story.is_empty:
            return
        record = self.record
        record.results_told = story.told()
        title = f"Bolt run {record.run_id} of {record.title}"
        try:
            written = await self.writer.markdown(
                self._context.key("dbt results"),
                story.render(title, run_url(record.run_id) if record.run_id else None),
                f"dbt results of {cell(title)}",
            )
        except Exception as error:  # noqa: BLE001
            self._context.missed("the dbt results", error)
        else:
            record.results_page = artifact_url(written)

    def _assets(self, story: DbtStory) -> None:
        if not self.settings.assets or not story.parts:
            return
        manifest = story.manifest
        if manifest is None or not manifest.adapter_type:
            self._context.missed("the assets", ValueError("no manifest names the adapter and the relations."))
            return
        facts = {"bolt_run_id": self.record.run_id, "bolt_schedule": self.record.title}
        emitted = emit_assets(story.built, manifest, facts)
        self.record.assets_told = emitted.told()
        for nodes, reason in (
            (emitted.unnamed, "Prefect takes no such names as those of"),
            (emitted.refused, "Prefect did not accept the events of"),
        ):
            if nodes:
                names = ", ".join(nodes[:_NAMES_TOLD])
                more = f" and {len(nodes) - _NAMES_TOLD} more" if len(nodes) > _NAMES_TOLD else ""
                self._context.missed(f"{len(nodes):,} assets", ValueError(f"{reason} {names}{more}."))
