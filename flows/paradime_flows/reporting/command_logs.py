"""Archives the logs of a run's commands, each in its own artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import anyio
from anyio.abc import TaskGroup

from paradime_blocks import (
    BoltClient,
    BoltCommand,
    BoltCommandDetail,
    BoltError,
    BoltResourceSummary,
    BoltUnavailable,
)
from paradime_blocks.dbt import LogReasons, last_line, reasons_in
from paradime_blocks.text import cell, clean, fence, head_and_tail, one_line
from paradime_flows.prefect_api import artifact_url
from paradime_flows.reporting.archive_context import ArchiveContext
from paradime_flows.reporting.links import markdown_link
from paradime_flows.reporting.run_summary import FileRecord

STREAMS: Final = ("stdout", "stderr")
# All logs of a Bolt run together may be this many times as large as the limit of one log, because a list of artifacts
# in Prefect returns all of them at once. For the failing command, always the whole limit of one log is available.
_LOGS_IN_ALL: Final = 10
_LEAST_LOG_BYTES: Final = 10_000
# Of a log that is much too long, only the beginning and the end are cleaned, each about this many times as long as the
# limit. To clean a text takes time, and makes a copy.
_MARGIN: Final = 4
# Each post has the artifact of a log in memory.
_POSTS_AT_ONCE: Final = 4
# About how many characters of a log are copied at once.
_PIECE: Final = 1 << 22
_ADDRESS_CHARACTERS: Final = 1000
_END_CHARACTERS: Final = 20_000
_ERROR_CHARACTERS: Final = 500


@dataclass
class LogArchive:
    """Archives the logs of a Bolt run's commands, one at a time. Each log is freed before the next log is fetched.

    Attributes:
        context: The archive.
        posts: The task group that writes a few artifacts while the next log is fetched; None to wait for each write.
        piece_characters: How much of a log is read at once, so that no second copy of the whole log is in memory.
        error: The first error in the failing command's log.
        last: The last line of the failing command's log.
        reasons: The errors in the logs of the commands that failed. The key is the command's id.
    """

    context: ArchiveContext
    posts: TaskGroup | None = None
    piece_characters: int = _PIECE
    error: str | None = None
    last: str | None = None
    reasons: dict[int, LogReasons] = field(default_factory=dict)
    _bytes: int = 0
    _room: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(_POSTS_AT_ONCE))

    async def archive(self, client: BoltClient, n: int, command: BoltCommand) -> list[BoltResourceSummary]:
        """Archive the log of a command.

        Args:
            client: The workspace's client.
            n: The command's number in its run.
            command: The command.

        Returns:
            The command's resources, which Bolt returns with its log.
        """
        context = self.context
        what = f"the log of command {n}, {command.command}"
        if context.unreachable:
            context.not_archived(what, BoltUnavailable("Bolt is unreachable."), dbt=True)
            return []
        try:
            detail = await client.get_bolt_command(command.id)
        except BoltError as error:
            context.count_outage(error)
            # Bolt returns a command's files together with its log, so dbt's results are missing, too.
            context.not_archived(what, error, dbt=True)
            return []
        detail = detail.model_copy(update={"command": command.command})
        failing = context.failing_command
        limit = context.settings.log_limit_bytes
        decisive = failing is not None and failing.id == command.id
        if decisive or command.failed:
            found = self.reasons[command.id] = await anyio.to_thread.run_sync(self._reasons_in, detail)
            if decisive and found.errors:
                self.error = one_line(found.errors[0], _ERROR_CHARACTERS)
        if decisive:
            self.last = self._last_line(detail.stderr) or self._last_line(detail.stdout)
        else:
            limit = max(min(limit, limit * _LOGS_IN_ALL - self._bytes), min(limit, _LEAST_LOG_BYTES))
        try:
            await self._write(n, detail, limit)
        except Exception as error:  # noqa: BLE001 - one log must not keep the others from being archived
            context.not_archived(what, error)
        return [
            BoltResourceSummary(id=resource.id, path=resource.path, command_id=command.id)
            for resource in detail.resources
        ]

    def _pieces(self, text: str) -> Iterator[str]:
        return pieces(text, self.piece_characters)

    def _last_line(self, text: str) -> str | None:
        return last_line(self.context.redact.tail(text, _END_CHARACTERS))

    def _reasons_in(self, detail: BoltCommandDetail) -> LogReasons:
        texts = (detail.stdout, detail.stderr)
        return reasons_in(self.context.redact(piece) for text in texts for piece in self._pieces(text))

    async def _write(self, n: int, detail: BoltCommandDetail, limit: int) -> None:
        context = self.context
        shown = shown_streams(detail, limit, context.redact)
        if context.storage is not None and any(stream.omitted for stream in shown):
            try:
                await self._store(n, detail)
            except OSError as error:
                context.not_archived(f"the whole log of command {n}", error)
        stored = {file.path: file for file in context.record.files if file.n == n and file.stored_as}
        markdown = render_log(shown, stored)
        self._bytes += utf8_size(markdown)
        if self.posts is None:
            await self._post(n, detail.command, markdown)
            return
        await self._room.acquire()
        self.posts.start_soon(self._post_beside, n, detail.command, markdown)

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

    async def _store(self, n: int, detail: BoltCommandDetail) -> None:
        """Store the whole log through a temporary file, so that only one piece of it is copied in memory."""
        with TemporaryDirectory(prefix="bolt-log-") as folder:
            for name in STREAMS:
                path = Path(folder, f"{name}.log")
                if await anyio.to_thread.run_sync(self._spool, getattr(detail, name), path):
                    await self.context.store(n, detail.command, path.name, path)

    def _spool(self, text: str, path: Path) -> int:
        # `newline=""` keeps the line ends as they are.
        with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
            for piece in self._pieces(text):
                file.write(self.context.redact(piece))
        return path.stat().st_size


@dataclass(frozen=True)
class ShownStream:
    """What is shown of one stream of a log.

    Attributes:
        name: `stdout` or `stderr`.
        text: The text, cleaned and without secrets.
        omitted: How many bytes of the stream are left out.
    """

    name: str
    text: str
    omitted: int = 0


def _as_it_is(text: str) -> str:
    return text


def shown_streams(
    command: BoltCommandDetail, limit_bytes: int, redact: Callable[[str], str] = _as_it_is
) -> list[ShownStream]:
    """Return what to show of a command's log. A stream that is too long is cut in the middle.

    Args:
        command: The command with its output.
        limit_bytes: The size of both streams together, in bytes of UTF-8.
        redact: Removes secrets from text.
    """
    raw = {name: text for name in STREAMS if (text := getattr(command, name)) and not text.isspace()}
    # A text that is certainly too long is not cleaned completely only to measure its size.
    whole = {
        name: clean(redact(text)) for name, text in raw.items() if len(text) <= 2 * _MARGIN * limit_bytes
    }
    sizes = {name: utf8_size(whole.get(name, text)) for name, text in raw.items()}
    shown, room = {}, limit_bytes
    # The shorter stream is cut first. The longer stream gets the room that is left.
    for n, name in enumerate(sorted(sizes, key=lambda name: sizes[name])):
        limit = room // (len(sizes) - n)
        if name in whole:
            shown[name] = ShownStream(name, *head_and_tail(whole[name], limit))
        else:
            shown[name] = ShownStream(name, *_outer(raw[name], limit, redact))
        room -= min(limit, sizes[name])
    return [shown[name] for name in raw]


def _outer(text: str, limit_bytes: int, redact: Callable[[str], str]) -> tuple[str, int]:
    """Return the cleaned head and tail of a text that is too long, and the number of bytes that are left out."""
    margin = limit_bytes * _MARGIN
    # Cut the text at line ends, so that no secret is split before it is redacted.
    start = _after_line(text, margin)
    end = max(start, text.rfind("\n", 0, len(text) - margin) + 1)
    head, tail = (clean(redact(part)) for part in (text[:start], text[end:]))
    between = utf8_size(text, start, end)
    body, omitted = head_and_tail(f"{head}{tail}", limit_bytes)
    if omitted:
        # The place where head and tail are joined is in the middle, and the middle is left out.
        return body.replace(f"… {omitted:,} bytes", f"… {omitted + between:,} bytes", 1), omitted + between
    return (f"{head}\n[… {between:,} bytes left out …]\n{tail}", between) if between else (body, 0)


def render_log(shown: Sequence[ShownStream], stored: dict[str, FileRecord] | None = None) -> str:
    """Render a command's log as markdown. Each stream is in a fence that no text in the stream can close.

    Args:
        shown: The streams to show.
        stored: The stored files with the whole streams. The key is `stdout.log` or `stderr.log`. If a stream is cut,
            the page has a link to its file.
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


def pieces(text: str, size: int = _PIECE) -> Iterator[str]:
    """Iterate over a text in pieces that end at line ends, if the lines are shorter than a piece.

    Args:
        text: The text.
        size: About how many characters a piece has.
    """
    at = 0
    while at < len(text):
        end = _after_line(text, at + size)
        yield text[at:end]
        at = end


def _after_line(text: str, at: int) -> int:
    """Return the index at which the next line begins; the end of the text if there is no next line."""
    end = text.find("\n", max(0, at))
    return len(text) if end < 0 else end + 1


def utf8_size(text: str, start: int = 0, end: int | None = None) -> int:
    """Return the size in bytes of a text, or of a part of the text, without a second copy of the text."""
    stop = len(text) if end is None else end
    if text.isascii():
        return stop - start
    return sum(
        len(text[at : min(at + _PIECE, stop)].encode(errors="replace")) for at in range(start, stop, _PIECE)
    )
