"""Archives the logs of a Bolt run's commands. Each log gets its own artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import anyio
from anyio.abc import TaskGroup

from paradime_blocks import (
    BoltClient,
    BoltCommand,
    BoltError,
    BoltResourceSummary,
    BoltUnavailable,
)
from paradime_blocks.client.ended_commands import SpooledCommand
from paradime_blocks.dbt import LogReasons, last_line, reasons_in
from paradime_blocks.text import LongText, cell, clean, fence, head_and_tail, one_line
from paradime_blocks.text.long_text import PIECE_CHARACTERS, utf8_size
from paradime_flows.prefect_api import artifact_url
from paradime_flows.reporting.archive_context import ArchiveContext
from paradime_flows.reporting.links import markdown_link
from paradime_flows.reporting.run_summary import FileRecord

# All logs of a Bolt run together may be this many times as large as the limit of one log, because Prefect returns the
# data of all artifacts in a list. The log of the failing command may always be as large as the limit of one log.
_LOGS_IN_ALL: Final = 10
_LEAST_LOG_BYTES: Final = 10_000
# Only the beginning and the end of a log that is much too long are cleaned. Each of these two parts is about this many
# times as long as the limit. Cleaning a text takes time, and makes a copy of the text.
_MARGIN: Final = 4
# Only this many artifacts are written at once, because each write holds the text of a log in memory.
_POSTS_AT_ONCE: Final = 4
_ADDRESS_CHARACTERS: Final = 1000
_END_CHARACTERS: Final = 20_000
_END_BYTES: Final = 80_000
_ERROR_CHARACTERS: Final = 500


@dataclass
class LogArchive:
    """Archives the logs of a Bolt run's commands, one log at a time. A long log is in a file, and not in memory.

    The logs of a short run are fetched in one request.

    Attributes:
        context: The context of the archive.
        posts: The task group that writes artifacts while the next log is fetched; None to wait until each artifact is
            written.
        piece_characters: How many characters of a log are read at once, so that there is no second copy of the whole
            log.
        error: The first error in the failing command's log.
        last: The last line of the failing command's log.
        reasons: The errors in the logs of the commands that failed. The key is the command's id.
    """

    context: ArchiveContext
    posts: TaskGroup | None = None
    piece_characters: int = PIECE_CHARACTERS
    error: str | None = None
    last: str | None = None
    reasons: dict[int, LogReasons] = field(default_factory=dict)
    _fetched: dict[int, SpooledCommand] = field(default_factory=dict)
    _bytes: int = 0
    _room: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(_POSTS_AT_ONCE))

    async def archive(self, client: BoltClient, n: int, command: BoltCommand) -> list[BoltResourceSummary]:
        """Archive the log of a command.

        Args:
            client: An open client for the Bolt run's workspace.
            n: The command's number in its Bolt run.
            command: The command.

        Returns:
            The command's resources, which Bolt returns with its log.
        """
        context = self.context
        what = f"the log of command {n}, {command.command}"
        if context.unreachable:
            context.not_archived(what, BoltUnavailable("Bolt is unreachable."), dbt=True)
            return []
        with TemporaryDirectory(prefix="bolt-log-") as folder:
            try:
                output = await self._output_of(client, command.id, Path(folder))
            except (BoltError, OSError) as error:
                context.count_outage(error)
                # Bolt returns a command's files together with the command's log, so dbt's results are missing, too.
                context.not_archived(what, error, dbt=True)
                return []
            failing = context.failing_command
            limit = context.settings.log_limit_bytes
            decisive = failing is not None and failing.id == command.id
            if decisive or command.failed:
                found = self.reasons[command.id] = await anyio.to_thread.run_sync(self._reasons_in, output)
                if decisive and found.errors:
                    self.error = one_line(found.errors[0], _ERROR_CHARACTERS)
            if decisive:
                self.last = self._last_line(output.stderr) or self._last_line(output.stdout)
            else:
                limit = max(min(limit, limit * _LOGS_IN_ALL - self._bytes), min(limit, _LEAST_LOG_BYTES))
            try:
                await self._write(n, command.command, output, limit)
            except Exception as error:  # noqa: BLE001 - one log must not keep the others from being archived
                context.not_archived(what, error)
        return [
            BoltResourceSummary(id=resource.id, path=resource.path, command_id=command.id)
            for resource in output.resources
        ]

    async def prepare(self, client: BoltClient, folder: Path) -> None:
        """Fetch the logs of a short run in one request.

        Args:
            client: An open client for the Bolt run's workspace.
            folder: The folder for long logs, which must exist until the logs are archived.
        """
        status = self.context.record.status
        if status is not None and status.has_short_output:
            # If this request does not return a log, the log is fetched again with a request of its own.
            with suppress(BoltError, OSError):
                ids = [command.id for command in status.commands]
                self._fetched = await client.spool_bolt_commands(ids, folder, errors={})

    async def _output_of(self, client: BoltClient, command_id: int, folder: Path) -> SpooledCommand:
        if command_id in self._fetched:
            return self._fetched.pop(command_id)
        return (await client.spool_bolt_commands([command_id], folder))[command_id]

    def _last_line(self, text: LongText) -> str | None:
        return last_line(self.context.redact.tail(text.end(_END_BYTES), _END_CHARACTERS))

    def _reasons_in(self, output: SpooledCommand) -> LogReasons:
        texts = (output.stdout, output.stderr)
        return reasons_in(
            self.context.redact(piece) for text in texts for piece in text.pieces(self.piece_characters)
        )

    async def _write(self, n: int, command: str, output: SpooledCommand, limit: int) -> None:
        context = self.context
        streams = {"stdout": output.stdout, "stderr": output.stderr}
        shown = shown_streams(streams, limit, context.redact)
        if context.storage is not None and any(stream.omitted for stream in shown):
            try:
                await self._store(n, command, streams)
            except OSError as error:
                context.not_archived(f"the whole log of command {n}", error)
        stored = {file.path: file for file in context.record.files if file.n == n and file.stored_as}
        markdown = render_log(shown, stored)
        self._bytes += utf8_size(markdown)
        if self.posts is None:
            await self._post(n, command, markdown)
            return
        await self._room.acquire()
        self.posts.start_soon(self._post_beside, n, command, markdown)

    async def _post_beside(self, n: int, command: str, markdown: str) -> None:
        try:
            await self._post(n, command, markdown)
        except Exception as error:  # noqa: BLE001 - one log must not keep the others from being archived
            self.context.not_archived(f"the log of command {n}, {command}", error)
        finally:
            self._room.release()

    async def _post(self, n: int, command: str, markdown: str) -> None:
        context = self.context
        title = f"Log of command {n} of Bolt run {context.record.run_id}: {cell(command)}"
        page = artifact_url(
            await context.writer.markdown(context.key("log", str(n), command), markdown, title)
        )
        if page:
            context.record.log_pages[n] = page

    async def _store(self, n: int, command: str, streams: Mapping[str, LongText]) -> None:
        """Store the whole log through a temporary file, so that only one piece of the log is copied in memory."""
        with TemporaryDirectory(prefix="bolt-log-") as folder:
            for name, text in streams.items():
                path = Path(folder, f"{name}.log")
                if await anyio.to_thread.run_sync(self._spool, text, path):
                    await self.context.store(n, command, path.name, path)

    def _spool(self, text: LongText, path: Path) -> int:
        # `newline=""` keeps the line ends as they are.
        with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
            for piece in text.pieces(self.piece_characters):
                file.write(self.context.redact(piece))
        return path.stat().st_size


@dataclass(frozen=True)
class ShownStream:
    """The part of a command's stdout or stderr that the page shows.

    Attributes:
        name: `stdout` or `stderr`.
        text: The text, cleaned and without secrets.
        omitted: The number of bytes of the stream that are left out.
    """

    name: str
    text: str
    omitted: int = 0


def _as_it_is(text: str) -> str:
    return text


def shown_streams(
    streams: Mapping[str, LongText], limit_bytes: int, redact: Callable[[str], str] = _as_it_is
) -> list[ShownStream]:
    """Return the parts of a command's stdout and stderr to show. A stream that is too long is cut in the middle.

    Args:
        streams: The command's output. The keys are `stdout` and `stderr`.
        limit_bytes: The largest size of stdout and stderr together, in bytes of UTF-8.
        redact: The function that removes secrets from text.
    """
    raw = {name: text for name, text in streams.items() if not text.is_blank}
    # A text that is certainly too long is not cleaned only to measure its size, because cleaning takes time.
    whole = {
        name: clean(redact(text.whole()))
        for name, text in raw.items()
        if len(text) <= 2 * _MARGIN * limit_bytes
    }
    sizes = {
        name: utf8_size(whole[name]) if name in whole else text.utf8_size() for name, text in raw.items()
    }
    shown, room = {}, limit_bytes
    # The shorter stream gets its room first. The longer stream gets the room that is left.
    for n, name in enumerate(sorted(sizes, key=lambda name: sizes[name])):
        limit = room // (len(sizes) - n)
        if name in whole:
            shown[name] = ShownStream(name, *head_and_tail(whole[name], limit))
        else:
            shown[name] = ShownStream(name, *_outer(raw[name], limit, redact))
        room -= min(limit, sizes[name])
    return [shown[name] for name in raw]


def _outer(text: LongText, limit_bytes: int, redact: Callable[[str], str]) -> tuple[str, int]:
    """Return the cleaned head and tail of a text that is too long, and the number of bytes that are left out."""
    *outer, between = text.outer(limit_bytes * _MARGIN)
    head, tail = (clean(redact(part)) for part in outer)
    body, omitted = head_and_tail(f"{head}{tail}", limit_bytes)
    if omitted:
        # The place where the head and the tail are joined is in the middle, and the middle is left out.
        return body.replace(f"… {omitted:,} bytes", f"… {omitted + between:,} bytes", 1), omitted + between
    return (f"{head}\n[… {between:,} bytes left out …]\n{tail}", between) if between else (body, 0)


def render_log(shown: Sequence[ShownStream], stored: dict[str, FileRecord] | None = None) -> str:
    """Render a command's log as markdown. Each stream is in a code fence that no text in the stream can close.

    Args:
        shown: The streams to show.
        stored: The stored files that contain the whole streams. The key is `stdout.log` or `stderr.log`. If a stream
            is cut, the page has a link to the stored file.
    """
    parts = []
    for stream in shown:
        title = f"**{stream.name}**"
        if stream.omitted:
            title += f", {stream.omitted:,} bytes left out in the middle"
            file = (stored or {}).get(f"{stream.name}.log")
            if file is not None and file.stored_as:
                whole = markdown_link(file.stored_as, file.stored_url, _ADDRESS_CHARACTERS, "open")
                title += f"; the whole log is stored as {whole}"
        parts.append(f"{title}\n\n{fence(stream.text)}")
    return "\n\n".join(parts) or "*The command wrote no log.*"
