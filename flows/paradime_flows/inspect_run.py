"""The flow `inspect_run`: shows the present state of any Bolt run on one page."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from paradime_blocks import BoltClient, BoltError
from paradime_blocks.client.downloads import fetch_resource
from paradime_blocks.dbt import DbtArtifactError, first_error, last_line, reasons_in
from paradime_blocks.models import (
    BoltCommand,
    BoltCommandDetail,
    BoltResource,
    BoltResourceSummary,
    BoltRunResult,
    BoltUsualDuration,
)
from paradime_blocks.text import Redactor, cell, fence
from paradime_flows.parameters import CredentialsParameter, RunId
from paradime_flows.prefect_api import (
    ArtifactWriter,
    artifact_key,
    async_form,
    bolt_flow,
    current_flow_run_id,
    resolve_credentials,
    unless_named,
)
from paradime_flows.reporting.dbt_results import DbtStory, kind_of
from paradime_flows.reporting.failure_cause import cause_of
from paradime_flows.reporting.run_summary import RUNS_READ, FileRecord, RunRecord, render_summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# The page shows this many characters from the end of stdout and of stderr. Paradime has the whole log.
_LOG_CHARACTERS: Final = 20_000
# The page shows the logs of this many commands, because Prefect shows a page of up to a megabyte quickly.
_LOGS_AT_MOST: Final = 50
_PATH_CHARACTERS: Final = 200
_UNCUT: Final = 5000
_ERROR_CHARACTERS: Final = 300


@bolt_flow(
    name="inspect-run",
    description="Shows the present state of a Paradime Bolt run: its commands, the ends of their logs, its files.",
    flow_run_name=unless_named(lambda given: f"inspect-{given['run_id']}"),
)
async def inspect_run(run_id: RunId, credentials: CredentialsParameter = None) -> BoltRunResult:
    """Show the present state of a Bolt run on one page.

    The flow does not wait for the Bolt run, and the flow succeeds even if the Bolt run failed.

    Args:
        run_id: The id of the Bolt run: only the number, such as 76002. The URL of the run's page in Paradime contains
            it.
        credentials: A saved Paradime Credentials block, or the name of the block. Do not type in a key or a secret. If
            empty, the flow uses the environment variables PARADIME_*.

    Returns:
        The result of the Bolt run. The Bolt run may be in any state.

    Raises:
        BoltError: The flow cannot read the Bolt run.

    Example:
        ```python
        from paradime_flows.inspect_run import inspect_run

        print(inspect_run(76035, "production").state)
        ```
    """
    found = await resolve_credentials(credentials)
    inspection = _Inspection(RunRecord(schedule_name=None, run_id=run_id), Redactor.of(found))
    async with found.get_client() as client:
        await inspection.read(client, run_id)
    record = inspection.record
    writer = ArtifactWriter(current_flow_run_id())
    key = artifact_key("paradime-inspect", str(run_id))
    await writer.markdown(key, inspection.page(), f"Bolt run {run_id} is {record.state}.")
    result = BoltRunResult.of(
        run_id, record.status, schedule_name=record.schedule_name, resources=inspection.resources
    )
    return result.model_copy(update={"dbt": record.dbt, "usual_duration": record.usual})


ainspect_run = async_form(inspect_run)


@dataclass
class _Inspection:
    """Collects what the page shows about a Bolt run.

    Only one whole log is in memory at a time. Of each log, only the end is kept for the page.

    Attributes:
        record: The facts about the Bolt run that the summary shows.
        redact: The object that removes secrets from text.
        resources: The files that the commands of the Bolt run wrote.
    """

    record: RunRecord
    redact: Redactor
    resources: list[BoltResourceSummary] = field(default_factory=list)
    _story: DbtStory = field(default_factory=DbtStory)
    _unread: list[str] = field(default_factory=list)
    _logs: list[str] = field(default_factory=list)
    _error_and_last_line: tuple[str | None, str | None] = (None, None)

    async def read(self, client: BoltClient, run_id: int) -> None:
        """Read the Bolt run. If Bolt does not return a part of the data, the page lists this part as a problem.

        Raises:
            BoltError: Bolt does not return the state of the Bolt run.
        """
        record = self.record
        status = record.status = self.redact.status(await client.get_bolt_run(run_id, logs=False))
        record.state = status.state
        if not status.state.is_terminal:
            record.outcome = f"The Bolt run has not ended yet ({status.state})."
        try:
            record.schedule_name = await client.find_schedule_of_run(run_id)
        except BoltError as error:
            self._missed("the schedule", error)
        if record.schedule_name is not None:
            # Some versions of Bolt cannot list the runs of a schedule.
            with suppress(BoltError):
                page = await client.list_bolt_runs(record.schedule_name, limit=RUNS_READ)
                record.usual = BoltUsualDuration.of(page.runs, run_id)
        try:
            found = await client.get_bolt_command_resources([command.id for command in status.commands])
        except BoltError as error:
            self._missed("the files", error, dbt=True)
        else:
            self._list(status.commands, found)
            await self._read_dbt(client, status.commands)
        for n, command in list(enumerate(status.commands, 1))[-_LOGS_AT_MOST:]:
            try:
                detail = await client.get_bolt_command(command.id)
            except BoltError as error:
                self._missed(f"the logs of command {n} and of the commands after command {n}", error)
                break
            self._keep(n, command, detail)
        self._story.redact(self.redact)
        record.results_counts = self._story.counts()
        record.dbt = self._story.in_short(self.redact, self._unread)
        record.cause = cause_of(status, self._story, *self._error_and_last_line)

    def _list(self, commands: Sequence[BoltCommand], found: Mapping[int, Sequence[BoltResource]]) -> None:
        for n, command in enumerate(commands, 1):
            for resource in found.get(command.id, ()):
                path = self.redact.line(resource.path, _PATH_CHARACTERS)
                self.record.files.append(FileRecord(n=n, path=path))
                self.resources.append(
                    BoltResourceSummary(id=resource.id, path=resource.path, command_id=command.id)
                )

    async def _read_dbt(self, client: BoltClient, commands: Sequence[BoltCommand]) -> None:
        """Read dbt's results, but not the manifest. The manifest is large and would only add paths to the page."""
        shown = {command.id: command.command for command in commands}
        wanted = [each for each in self.resources if kind_of(each.path) in {"results", "freshness"}]
        for at, resource in enumerate(wanted):
            kind = kind_of(resource.path)
            try:
                content = await fetch_resource(client, resource.id)
                self._story.read(kind or "results", content, shown[resource.command_id])
            except BoltError as error:
                more = f" and {len(wanted) - at - 1} more" if at + 1 < len(wanted) else ""
                self._missed(f"{resource.path}{more}", error, dbt=True)
                return
            except DbtArtifactError as error:
                self._missed(resource.path, error, dbt=True)

    def _keep(self, n: int, command: BoltCommand, detail: BoltCommandDetail) -> None:
        printed = [text for text in (detail.stdout, detail.stderr) if text.strip()]
        ends = [self.redact.tail(text, _LOG_CHARACTERS) for text in printed]
        if command.failed:
            self._story.explain(command, reasons_in(self.redact(text) for text in printed))
        decisive = self.record.status.decisive_command if self.record.status else None
        if decisive is not None and decisive.id == command.id:
            # Secrets are removed before the text is cut, because a cut could split a secret.
            errors = [error for text in printed if (error := first_error(text, _UNCUT))]
            self._error_and_last_line = (
                self.redact.line(errors[0], _ERROR_CHARACTERS) if errors else None,
                last_line(ends[-1]) if ends else None,
            )
        size = sum(map(len, printed))
        shown = (
            f", the end of {size:,} characters"
            if any(len(text) > _LOG_CHARACTERS for text in printed)
            else ""
        )
        body = fence("\n".join(ends)) if ends else "*The command wrote no log.*"
        self._logs.append(f"## Log of command {n}: {cell(command.command, 80)}{shown}\n\n{body}")

    def _missed(self, what: str, error: Exception, *, dbt: bool = False) -> None:
        reason = error.message if isinstance(error, BoltError) else str(error)
        problem = f"{self.redact.line(what)}: {self.redact.line(reason, 300)}"
        self.record.problems.append(problem)
        self._unread += [problem] if dbt else []

    def page(self) -> str:
        """Return the page as markdown."""
        commands = self.record.status.commands if self.record.status else []
        earlier = len(commands) - _LOGS_AT_MOST
        note = [f"*The logs of the first {earlier:,} commands are not shown.*"] if earlier > 0 else []
        return "\n\n".join([render_summary(self.record).rstrip(), *note, *self._logs]) + "\n"
