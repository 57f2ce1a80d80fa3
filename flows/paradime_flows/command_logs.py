"""The logs of a run's commands, each as an artifact of its own that it cannot break out of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from paradime_blocks.dbt_logs import first_error, last_line
from paradime_blocks.errors import BoltError, BoltUnavailable
from paradime_blocks.models import BoltCommand, BoltCommandDetail, BoltResourceSummary
from paradime_blocks.text import cell, clean, fence, head_and_tail
from paradime_flows.archive_context import ArchiveContext
from paradime_flows.artifacts import artifact_url

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient

STREAMS: Final = ("stdout", "stderr")
# All logs of a run together, in single limits: a listing returns them at once. The failing command has its
# own limit in any case.
_LOGS_IN_ALL: Final = 10
_LEAST_LOG_BYTES: Final = 10_000
# Of a log that is longer, only the outer parts are cleaned, which takes time and a copy.
_MARGIN: Final = 4


@dataclass
class LogArchive:
    """Archives the logs of a run's commands, one at a time: a log is let go before the next is fetched.

    Attributes:
        context: The archive.
        error: The first error that the failing command's log tells.
        last: The last line of its log.
    """

    context: ArchiveContext
    error: str | None = None
    last: str | None = None
    _bytes: int = 0

    async def archive(self, client: BoltClient, n: int, command: BoltCommand) -> list[BoltResourceSummary]:
        """Archive the log of a command.

        Args:
            client: The workspace's client.
            n: The command's number in its run.
            command: The command.

        Returns:
            The command's resources, which Bolt tells with its log.
        """
        context = self.context
        what = f"the log of command {n}, {command.command}"
        if context.out_of_reach:
            context.missed(what, BoltUnavailable("Bolt is out of reach."))
            return []
        try:
            detail = await client.get_bolt_command(command.id)
        except BoltError as error:
            context.count_outage(error)
            context.missed(what, error)
            return []
        redacted = {name: context.redact(getattr(detail, name)) for name in STREAMS}
        detail = detail.model_copy(update={**redacted, "command": command.command})
        failing = context.failing_command
        limit = context.settings.log_limit_bytes
        if failing is not None and failing.id == command.id:
            self.error = first_error(detail.stdout) or first_error(detail.stderr)
            self.last = last_line(detail.stderr) or last_line(detail.stdout)
        else:
            limit = max(min(limit, limit * _LOGS_IN_ALL - self._bytes), min(limit, _LEAST_LOG_BYTES))
        try:
            await self._write(n, detail, limit)
        except Exception as error:  # noqa: BLE001 - one log must not keep the others from being archived
            context.missed(what, error)
        return [
            BoltResourceSummary(id=resource.id, path=resource.path, command_id=command.id)
            for resource in detail.resources
        ]

    async def _write(self, n: int, detail: BoltCommandDetail, limit: int) -> None:
        context = self.context
        if context.keepsakes is not None and size_of(detail) > limit:
            for name in STREAMS:
                text = getattr(detail, name)
                if text:
                    path = f"{name}.log"
                    await context.keep(n, detail.command, path, text.encode(errors="replace"))
        kept = {file.path: file.kept for file in context.record.files if file.n == n and file.kept}
        markdown = render_log(detail, limit, kept)
        self._bytes += len(markdown)
        written = await context.writer.markdown(
            context.key("log", str(n), detail.command),
            markdown,
            f"Log of command {n} of Bolt run {context.record.run_id}: {cell(detail.command)}",
        )
        page = artifact_url(written)
        if page:
            context.record.log_pages[n] = page


def size_of(command: BoltCommandDetail) -> int:
    """Return the size of a command's output in bytes."""
    texts = [getattr(command, name) for name in STREAMS]
    return sum(len(text) if text.isascii() else len(text.encode(errors="replace")) for text in texts)


def render_log(command: BoltCommandDetail, limit_bytes: int, kept: dict[str, str] | None = None) -> str:
    """Render a command's log as markdown: fenced, cleaned, and cut to head and tail where it is too long.

    Args:
        command: The command with its output.
        limit_bytes: How much to show in all.
        kept: Where the whole of a stream is kept, as `stdout.log` or `stderr.log`; told where it is cut.
    """
    shown = {name: text for name in STREAMS if (text := getattr(command, name)).strip()}
    limits, room = {}, limit_bytes
    # The shorter one first: what it leaves over is the longer one's.
    for n, name in enumerate(sorted(shown, key=lambda name: len(shown[name]))):
        limits[name] = room // (len(shown) - n)
        room -= min(limits[name], len(shown[name]) * 4)
    parts = []
    for name, text in shown.items():
        body, omitted = _shortened(text, limits[name])
        told = f"**{name}**"
        if omitted:
            told += f", {omitted:,} bytes left out in the middle"
            where = (kept or {}).get(f"{name}.log")
            told += f"; the whole is kept as `{where}`" if where else ""
        parts.append(f"{told}\n\n{fence(body)}")
    return "\n\n".join(parts) or "*The command wrote no log.*"


def _shortened(text: str, limit_bytes: int) -> tuple[str, int]:
    """Return the cleaned text to show, and how many bytes are not in it."""
    outer = limit_bytes * _MARGIN
    if len(text) <= outer * 2:
        return head_and_tail(clean(text), limit_bytes)
    # Joined at the middle, which head_and_tail takes out in any case.
    body, omitted = head_and_tail(clean(f"{text[:outer]}\n{text[-outer:]}"), limit_bytes)
    between = len(text) - 2 * outer
    return body.replace(f"… {omitted:,} bytes", f"… {omitted + between:,} bytes", 1), omitted + between
