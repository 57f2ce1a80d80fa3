"""The flow `inspect_run`: one page about any Bolt run, as it stands now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from paradime_blocks import BoltClient, BoltError
from paradime_blocks.dbt import first_error, last_line
from paradime_blocks.models import (
    BoltCommand,
    BoltCommandDetail,
    BoltResource,
    BoltResourceSummary,
    BoltRunResult,
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
)
from paradime_flows.reporting.dbt_results import DbtStory
from paradime_flows.reporting.failure_cause import cause_of
from paradime_flows.reporting.run_summary import FileRecord, RunRecord, render_summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# Of each stream; whatever is longer is in Paradime.
_LOG_CHARACTERS: Final = 20_000
# A page of a megabyte is as much as Prefect shows quickly.
_LOGS_AT_MOST: Final = 50
_PATH_CHARACTERS: Final = 200
_UNCUT: Final = 5000
_ERROR_CHARACTERS: Final = 300


@bolt_flow(
    name="inspect-run",
    description="Shows a Paradime Bolt run as it stands now: state, commands, ends of their logs, files.",
    flow_run_name="inspect-{run_id}",
)
async def inspect_run(run_id: RunId, credentials: CredentialsParameter = None) -> BoltRunResult:
    """Show a Bolt run as it stands now, in one page; nothing is waited for, and no end of it is a failure.

    Args:
        run_id: The id of the run, as in its address in Paradime.
        credentials: A Paradime Credentials block or the name of one. Empty: the environment's.

    Returns:
        What is known of the run.

    Raises:
        BoltError: The run cannot be seen.

    Example:
        ```python
        from paradime_flows.inspect_run import inspect_run

        print(inspect_run(76035, "production").state)
        ```
    """
    found = await resolve_credentials(credentials)
    inspection = _Inspection(RunRecord(schedule_name=None, run_id=run_id), Redactor.of(found))
    async with found.get_client() as client:
        await inspection.look(client, run_id)
    record = inspection.record
    writer = ArtifactWriter(current_flow_run_id())
    key = artifact_key("paradime-inspect", str(run_id))
    await writer.markdown(key, inspection.page(), f"Bolt run {run_id} is {record.state}.")
    return BoltRunResult.of(
        run_id, record.status, schedule_name=record.schedule_name, resources=inspection.resources
    )


ainspect_run = async_form(inspect_run)


@dataclass
class _Inspection:
    """What there is to see of a run; the log of one command at a time is in memory, and its ends are kept.

    Attributes:
        record: What is known of the run.
        redact: Takes secrets out of text.
        resources: The files that the commands left behind.
    """

    record: RunRecord
    redact: Redactor
    resources: list[BoltResourceSummary] = field(default_factory=list)
    _logs: list[str] = field(default_factory=list)
    _said: tuple[str | None, str | None] = (None, None)

    async def look(self, client: BoltClient, run_id: int) -> None:
        """Look at the run; what can be seen is not hidden by what cannot.

        Raises:
            BoltError: The run itself cannot be seen.
        """
        record = self.record
        status = record.status = self.redact.status(await client.get_bolt_run(run_id, logs=False))
        record.state = status.state
        if not status.state.is_terminal:
            record.outcome = f"The run has not ended yet ({status.state})."
        try:
            record.schedule_name = await client.find_schedule_of_run(run_id)
        except BoltError as error:
            self._missed("the schedule", error)
        try:
            found = await client.get_bolt_command_resources([command.id for command in status.commands])
        except BoltError as error:
            self._missed("the files", error)
        else:
            self._list(status.commands, found)
        for n, command in list(enumerate(status.commands, 1))[-_LOGS_AT_MOST:]:
            try:
                detail = await client.get_bolt_command(command.id)
            except BoltError as error:
                self._missed(f"the log of command {n} and those after it", error)
                break
            self._keep(n, command, detail)
        record.cause = cause_of(status, DbtStory(), *self._said)

    def _list(self, commands: Sequence[BoltCommand], found: Mapping[int, Sequence[BoltResource]]) -> None:
        for n, command in enumerate(commands, 1):
            for resource in found.get(command.id, ()):
                path = self.redact.line(resource.path, _PATH_CHARACTERS)
                self.record.files.append(FileRecord(n=n, path=path))
                self.resources.append(
                    BoltResourceSummary(id=resource.id, path=resource.path, command_id=command.id)
                )

    def _keep(self, n: int, command: BoltCommand, detail: BoltCommandDetail) -> None:
        printed = [text for text in (detail.stdout, detail.stderr) if text.strip()]
        ends = [self.redact.tail(text, _LOG_CHARACTERS) for text in printed]
        decisive = self.record.status.decisive_command if self.record.status else None
        if decisive is not None and decisive.id == command.id:
            # The cut comes last, after secrets have been taken out.
            errors = [error for text in printed if (error := first_error(text, _UNCUT))]
            self._said = (
                self.redact.line(errors[0], _ERROR_CHARACTERS) if errors else None,
                last_line(ends[-1]) if ends else None,
            )
        size = sum(map(len, printed))
        told = (
            f", the end of {size:,} characters"
            if any(len(text) > _LOG_CHARACTERS for text in printed)
            else ""
        )
        body = fence("\n".join(ends)) if ends else "*The command wrote no log.*"
        self._logs.append(f"## Log of command {n}: {cell(command.command, 80)}{told}\n\n{body}")

    def _missed(self, what: str, error: BoltError) -> None:
        self.record.problems.append(f"{what}: {self.redact.line(error.message, 300)}")

    def page(self) -> str:
        """Return all of it as markdown."""
        commands = self.record.status.commands if self.record.status else []
        earlier = len(commands) - _LOGS_AT_MOST
        note = [f"*The logs of the first {earlier:,} commands are left out.*"] if earlier > 0 else []
        return "\n\n".join([render_summary(self.record).rstrip(), *note, *self._logs]) + "\n"
