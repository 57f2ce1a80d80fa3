"""What a Bolt run leaves behind in Prefect: its summary, the log of each command, a link to each resource."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paradime_blocks.errors import BoltError
from paradime_blocks.models import BoltCommand, BoltCommandDetail, BoltCommandSummary, BoltResource, BoltResourceSummary
from paradime_flows.artifacts import ArtifactWriter, artifact_key
from paradime_flows.context import run_logger
from paradime_flows.summary import RunRecord, render_summary
from paradime_flows.text import clean, fence, head_and_tail

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient
    from paradime_blocks.credentials import ParadimeCredentials

# A listing of artifacts in Prefect returns all their data, so that a few large ones would make every page slow.
LOG_LIMIT_BYTES = 1_000_000


@dataclass
class Archive:
    """Archives one run; what fails to be fetched is left out and told, and never hides the run's own outcome.

    Attributes:
        credentials: The credentials of the run's workspace.
        writer: Writes the artifacts.
        record: What is known of the run; completed by what is fetched.
        log_limit_bytes: How much of a command's log an artifact holds; of a longer one, head and tail.
    """

    credentials: ParadimeCredentials
    writer: ArtifactWriter
    record: RunRecord
    log_limit_bytes: int = LOG_LIMIT_BYTES
    resources: list[BoltResourceSummary] = field(default_factory=list)

    @property
    def commands(self) -> list[BoltCommandSummary]:
        """The run's commands, as far as they are known."""
        status = self.record.status
        return [BoltCommandSummary.of(command) for command in status.commands] if status else []

    async def run(self) -> None:
        """Write all artifacts."""
        record = self.record
        if record.run_id is not None:
            try:
                async with self.credentials.get_client() as client:
                    await self._status(client, record.run_id)
                    for n, command in enumerate(record.status.commands if record.status else [], 1):
                        await self._command(client, n, command)
                    await self._links(client)
            except Exception as error:  # noqa: BLE001 - the outcome of the run must not hide behind its archive
                self._missed("the rest", error)
        await self.summary()

    async def summary(self) -> None:
        """Write the summary alone."""
        record = self.record
        name = record.schedule_name or (f"run {record.run_id}" if record.run_id else "unknown schedule")
        try:
            await self.writer.markdown(
                artifact_key("paradime", name),
                render_summary(record),
                f"Bolt run {record.run_id} of {name}" if record.run_id else f"{name}: no Bolt run",
            )
        except Exception as error:  # noqa: BLE001
            self._missed("the summary", error)

    async def _status(self, client: BoltClient, run_id: int) -> None:
        try:
            self.record.status = await client.get_bolt_run(run_id, logs=False)
            self.record.state = self.record.status.state
        except BoltError as error:
            self._missed("the present state", error)

    async def _command(self, client: BoltClient, n: int, command: BoltCommand) -> None:
        try:
            detail = await client.get_bolt_command(command.id)
        except BoltError as error:
            self._missed(f"the log of command {n}, {command.command}", error)
            return
        self.resources += [
            BoltResourceSummary(id=resource.id, path=resource.path, command_id=command.id)
            for resource in detail.resources
        ]
        await self.writer.markdown(
            artifact_key("paradime", self._stem, "log", str(n), command.command),
            render_log(detail, self.log_limit_bytes),
            f"Log of command {n} of Bolt run {self.record.run_id}: {command.command}",
        )

    async def _links(self, client: BoltClient) -> None:
        resources = [BoltResource(id=resource.id, path=resource.path) for resource in self.resources]
        if not resources:
            return
        try:
            urls = await client.get_bolt_resource_urls([resource.id for resource in resources])
        except BoltError as error:
            self._missed("the links to the resources", error)
            return
        numbers = {command.id: n for n, command in enumerate(self.commands, 1)}
        names = {command.id: command.command for command in self.commands}
        for resource in self.resources:
            n, command = numbers.get(resource.command_id, 0), names.get(resource.command_id, "")
            key = artifact_key("paradime", self._stem, str(n), resource.path)
            await self.writer.link(
                key,
                f"{resource.path} of {command}".replace("[", "(").replace("]", ")"),
                urls[resource.id],
                f"{resource.path} of command {n}, {command}, of Bolt run {self.record.run_id}. The link expires.",
            )
            self.record.links.append((f"{resource.path} of {command}", f"artifact {key}"))

    @property
    def _stem(self) -> str:
        return self.record.schedule_name or f"run {self.record.run_id}"

    def _missed(self, what: str, error: Exception) -> None:
        self.record.problems.append(f"{what}: {error}")
        run_logger().warning("Not archived of Bolt run %s: %s: %s", self.record.run_id, what, error)


def render_log(command: BoltCommandDetail, limit_bytes: int) -> str:
    """Return a command's log as markdown: fenced, cleaned, and cut to head and tail where it is too long."""
    streams: Sequence[tuple[str, str]] = (("stdout", command.stdout), ("stderr", command.stderr))
    parts = []
    for name, text in streams:
        if not text.strip():
            continue
        shown, omitted = head_and_tail(clean(text), limit_bytes)
        told = f" ({omitted:,} bytes left out in the middle)" if omitted else ""
        parts.append(f"**{name}**{told}\n\n{fence(shown)}")
    return "\n\n".join(parts) or "*The command wrote no log.*"
