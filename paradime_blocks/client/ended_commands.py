"""Keeps the output of commands that have ended for some minutes, so that it is not read from Bolt twice.

The live logs, the result and the archive of a run need the output of the same commands within seconds. The output does
not change after the end of a command.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from paradime_blocks.text.long_text import LongText

if TYPE_CHECKING:
    from paradime_blocks.models import BoltLogPage, BoltResource

# All output that is kept is in memory, so its total size is limited.
_CHARACTERS_AT_MOST: Final = 8_000_000
_CHARACTERS_EACH: Final = 1_000
_KEPT_SECONDS: Final = 300.0


@dataclass(frozen=True)
class SpooledCommand:
    """The output and the files of a command.

    Attributes:
        resources: The files that the command wrote.
        stdout: The standard output, which may be in a file.
        stderr: The standard error, which may be in a file.
    """

    resources: list[BoltResource]
    stdout: LongText
    stderr: LongText


@dataclass
class _Pages:
    """The pages of a log that have been read so far, beginning with the first page."""

    cursor: str | None = None
    finished: bool = False
    characters: int = _CHARACTERS_EACH
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)


class EndedCommands:
    """The ended commands whose output was read last."""

    def __init__(self) -> None:
        self._kept: dict[int, SpooledCommand] = {}
        self._kept_since: dict[int, float] = {}
        self._pages: dict[int, _Pages] = {}

    def get(self, command_id: int) -> SpooledCommand | None:
        """Return a command, if it is kept."""
        if time.monotonic() - self._kept_since.get(command_id, 0.0) > _KEPT_SECONDS:
            self._kept.pop(command_id, None)
        return self._kept.get(command_id)

    def keep(self, command_id: int, command: SpooledCommand) -> None:
        """Keep a command that has ended, if its output is in memory."""
        if command.stdout.path is None and command.stderr.path is None:
            self._kept[command_id] = command
            self._kept_since[command_id] = time.monotonic()
            self._make_room()

    def add_page(self, command_id: int, cursor: str, page: BoltLogPage, *, is_first: bool) -> None:
        """Keep a page of a log. A log whose pages are not read one after the other is not kept.

        Args:
            command_id: The command.
            cursor: The cursor of the page.
            page: The page.
            is_first: Whether the log begins with this page.
        """
        pages = self._pages.pop(command_id, None)
        if is_first:
            pages = _Pages()
        elif pages is None or pages.cursor != cursor or pages.finished:
            return
        pages.cursor, pages.finished = page.cursor, page.finished
        for line in page.lines:
            (pages.stderr if line.stream.upper() == "STDERR" else pages.stdout).append(line.line)
            pages.characters += len(line.line)
        if pages.characters <= _CHARACTERS_AT_MOST:
            self._pages[command_id] = pages
            self._make_room()

    def add_resources(self, command_id: int, resources: list[BoltResource]) -> None:
        """Keep the files of a command whose whole log has been read."""
        pages = self._pages.get(command_id)
        if pages is not None and pages.finished:
            del self._pages[command_id]
            texts = LongText("".join(pages.stdout)), LongText("".join(pages.stderr))
            self.keep(command_id, SpooledCommand(resources, *texts))

    def has_whole_log(self, command_id: int) -> bool:
        """Whether only the files of a command are missing."""
        return command_id in self._pages and self._pages[command_id].finished

    def _make_room(self) -> None:
        """Remove the oldest output until the rest is small enough."""
        kept = {
            id_: len(each.stdout) + len(each.stderr) + _CHARACTERS_EACH for id_, each in self._kept.items()
        }
        read = {id_: pages.characters for id_, pages in self._pages.items()}
        size = sum(kept.values()) + sum(read.values())
        for stock, sizes in ((self._kept, kept), (self._pages, read)):
            for id_, characters in sizes.items():
                if size > _CHARACTERS_AT_MOST:
                    del stock[id_]
                    size -= characters
