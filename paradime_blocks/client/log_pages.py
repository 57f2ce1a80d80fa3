"""Pages of a log for a backend without cursors: it returns the whole log each time, and a page is cut from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paradime_blocks.errors import BoltRequestError
from paradime_blocks.models import BoltLogLine, BoltLogPage

if TYPE_CHECKING:
    from paradime_blocks.models import BoltCommandDetail

# The beginning of a cursor that we make. The rest is the number of lines of stdout and of stderr so far.
OWN_CURSOR = "lines:"


def log_since(command: BoltCommandDetail, cursor: str | None) -> BoltLogPage:
    """Return the part of a command's log that follows a cursor that we made.

    A line that is not complete yet is left for the next page; otherwise it would be returned in two halves.

    Args:
        command: The command, with its whole log.
        cursor: The cursor of the previous page; None for the beginning.

    Raises:
        BoltRequestError: The cursor is not one that we made.
    """
    ended = command.return_code is not None or command.end_dttm is not None
    streams = {"STDOUT": _lines(command.stdout, ended), "STDERR": _lines(command.stderr, ended)}
    counts = (cursor or f"{OWN_CURSOR}0:0").removeprefix(OWN_CURSOR).split(":")
    if len(counts) != len(streams) or not all(count.isdigit() for count in counts):
        msg = f"The cursor {cursor!r} is none of this command's log."
        raise BoltRequestError(msg, guidance="Give the cursor of the page before, or none for the beginning.")
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
