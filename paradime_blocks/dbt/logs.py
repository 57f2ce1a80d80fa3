"""What a command's output says of its failure: the errors in it, and its last line.

When dbt fails before it runs a node, or leaves the reason out of its results, or a command is not dbt's at all,
its output is the only source.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Final

from paradime_blocks.dbt.log_dialects import LogLine, parse_line
from paradime_blocks.dbt.log_levels import ANNOUNCES, CHAINED, TRACEBACK, LevelReader
from paradime_blocks.text.rendering import clean, one_line

__all__ = ["LogLine", "errors_in", "first_error", "last_line", "parse_line"]

_ENCOUNTERED: Final = "Encountered an error:"
_MOST_ERRORS: Final = 100
_MOST_CHARACTERS: Final = 5000
# Far more than a last line is long; the whole of a log need not be looked through for it.
_END_CHARACTERS: Final = 50_000


def first_error(text: str, limit: int = 500) -> str | None:
    """The first error in a command's output.

    Args:
        text: Standard output or standard error.
        limit: The most characters of the error.

    Returns:
        The error on one line, with the lines that belong to it; of a Python traceback, the exception. None if
        no line looks like an error.
    """
    found = errors_in([text], 1)
    return one_line(found[0], limit) if found else None


def errors_in(pieces: Iterable[str], most: int = _MOST_ERRORS) -> list[str]:
    """Return the errors in a command's output, in order, each once.

    Args:
        pieces: The output, in pieces that end with a line.
        most: How many errors to look for.

    Returns:
        Each with the lines that belong to it; of a Python traceback, the exception. Lines of progress that say
        which node failed are returned only if there is nothing else.
    """
    found: list[str] = []
    nodes: list[str] = []
    for lines, is_node in _messages(pieces):
        told = _told(lines)
        if is_node:
            if not nodes:
                nodes.append(told)
        elif lines[0].startswith(CHAINED) and found:
            found[-1] = told
        elif told and told not in found:
            # Whether the next traceback follows from this one is not known before it is there.
            if len(found) >= most:
                break
            found.append(told)
    return found or nodes


def _messages(pieces: Iterable[str]) -> Iterator[tuple[list[str], bool]]:
    """Iterate over the lines of each error, and whether it is a mere line of progress."""
    reader = LevelReader()
    gathered: list[str] = []
    size = 0
    for piece in pieces:
        for record, _, line in reader.read_all(piece.removesuffix("\n").split("\n")):
            if line is not None and reader.continues:
                if gathered and size < _MOST_CHARACTERS:
                    gathered += line.message.split("\n")
                    size += len(line.message)
                continue
            is_error = line is not None and record.level >= logging.ERROR
            if gathered and not (is_error and _only_announces(gathered)):
                yield gathered, False
                gathered = []
            if line is None or not is_error:
                continue
            if line.status is not None or reader.is_node:
                yield [line.message], True
                continue
            gathered += line.message.split("\n")
            size = len(line.message)
    if gathered:
        yield gathered, False


def _only_announces(lines: list[str]) -> bool:
    """Whether the error is in the next message: as JSON, the two are events of their own."""
    return len(lines) == 1 and ANNOUNCES.match(lines[0]) is not None


def _told(lines: list[str]) -> str:
    """Return what an error says, of what belongs to it."""
    lines = [line.rstrip() for line in lines]
    at = next((at for at, line in enumerate(lines) if line.startswith(TRACEBACK)), None)
    if at is not None:
        return _raised(lines[at:]) or lines[at]
    if lines[0].startswith("Failure in ") and any("Error in " in line for line in lines[1:2]):
        # The error itself names the node again.
        lines = lines[1:]
    lines[0] = lines[0].strip().removeprefix(_ENCOUNTERED)
    return "\n".join(lines).strip()[:_MOST_CHARACTERS]


def _raised(lines: list[str]) -> str | None:
    """The exception that a traceback ends with; of tracebacks that follow from each other, the last one's."""
    raised = last = None
    for line in lines:
        # Frames, and the code and the marks below them, are indented.
        if not line.strip() or line[0].isspace() or line.startswith(TRACEBACK):
            continue
        if line.startswith(CHAINED):
            last = None
        elif last is None:
            raised = last = line
    return raised


def last_line(text: str, limit: int = 300) -> str | None:
    """The last line of a command's output that says anything; None if it wrote none.

    Args:
        text: Standard output or standard error.
        limit: The most characters of the line.
    """
    for line in reversed(clean(text[-_END_CHARACTERS:]).split("\n")):
        message = one_line(parse_line(line).message, limit)
        if message:
            return message
    return None
