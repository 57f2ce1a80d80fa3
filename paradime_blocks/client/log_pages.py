"""Finds out which pages of a log are full. If a backend returns only the whole log, cuts the log into pages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from paradime_blocks.errors import BoltRequestError
from paradime_blocks.models import BoltLogLine, BoltLogPage

if TYPE_CHECKING:
    from paradime_blocks.models import BoltCommandDetail

# The beginning of a cursor that this module makes. The number of lines of stdout so far and the number of lines of
# stderr so far follow.
OWN_CURSOR = "lines:"
# If Bolt limits a page by its characters, full pages have slightly different numbers of lines.
_ALMOST: Final = 0.9
_CLEARLY_MORE: Final = 1.2
# A page with at most this many lines does not count as full, since a command can print so many lines between two
# requests.
_NEVER_FULL_LINES: Final = 100


def log_since(command: BoltCommandDetail, cursor: str | None) -> BoltLogPage:
    """Return the part of a command's log that follows a cursor of this module.

    An incomplete last line is left for the next page. Otherwise the line would be returned in two halves.

    Args:
        command: The command, with its whole log.
        cursor: The cursor of the previous page; None for the beginning.

    Raises:
        BoltRequestError: The cursor does not come from this function.
    """
    ended = command.has_ended
    streams = {"STDOUT": _lines(command.stdout, ended), "STDERR": _lines(command.stderr, ended)}
    counts = (cursor or f"{OWN_CURSOR}0:0").removeprefix(OWN_CURSOR).split(":")
    if len(counts) != len(streams) or not all(count.isdigit() for count in counts):
        msg = f"The cursor {cursor!r} does not belong to this command's log."
        raise BoltRequestError(
            msg, guidance="Give the cursor of the previous page, or no cursor for the beginning."
        )
    lines = [
        BoltLogLine(stream=stream, line=line)
        for (stream, texts), count in zip(streams.items(), counts, strict=True)
        for line in texts[int(count) :]
    ]
    given = ":".join(str(max(len(texts), int(n))) for texts, n in zip(streams.values(), counts, strict=True))
    return BoltLogPage(lines=lines, cursor=f"{OWN_CURSOR}{given}", finished=ended)


def _lines(text: str, ended: bool) -> list[str]:
    lines = text.splitlines(keepends=True)
    return lines if ended or not lines or lines[-1].endswith(("\n", "\r")) else lines[:-1]


class PageSize:
    """Distinguishes full pages of a growing log from pages that are not full. Bolt's page size is unknown."""

    def __init__(self) -> None:
        self._full = math.inf
        self._not_full = _NEVER_FULL_LINES
        self._latest = self._largest = 0

    def may_be_full(self, lines: int, *, at_once: bool) -> bool:
        """Whether a page may be full, so that another page can be fetched at once.

        Args:
            lines: The lines of the page.
            at_once: Whether the page was fetched directly after another page that may have been full.
        """
        before, self._latest = self._latest, lines
        self._largest = max(self._largest, lines)
        if lines > _NEVER_FULL_LINES and (
            lines == before == self._largest or (at_once and lines >= before / 2)
        ):
            # Two full pages have the same size. After a page that was not full, only few lines follow.
            self._full = min(self._full, before)
        elif at_once:
            self._not_full = max(self._not_full, before)
            self._full = math.inf if before >= self._full else self._full
        return lines > _CLEARLY_MORE * self._not_full or lines >= _ALMOST * self._full
