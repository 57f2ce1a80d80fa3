"""Finds the reason of a failure in a command's output: the errors, and the last line.

The output is the only source if dbt fails before it runs a node, if dbt's results do not contain the reason, or if
the command is not a dbt command.
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
# This is much longer than any last line. With this limit, the search for the last line does not read the whole log.
_END_CHARACTERS: Final = 50_000


def first_error(text: str, limit: int = 500) -> str | None:
    """Return the first error in a command's output.

    Args:
        text: Standard output or standard error.
        limit: The largest length of the error, in characters.

    Returns:
        The error and its further lines, on one line; for a Python traceback, the exception. None if no line
        looks like an error.
    """
    found = errors_in([text], 1)
    return one_line(found[0], limit) if found else None


def errors_in(pieces: Iterable[str], most: int = _MOST_ERRORS) -> list[str]:
    """Return the errors in a command's output, in order, without repetitions.

    Args:
        pieces: The output, in pieces. Each piece ends with a complete line.
        most: How many errors to return at most.

    Returns:
        Each error with its further lines; for a Python traceback, the exception. Progress lines that say which
        node failed are returned only if there is no other error.
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
            # The limit is checked here, since a chained traceback may still replace the last error.
            if len(found) >= most:
                break
            found.append(told)
    return found or nodes


def _messages(pieces: Iterable[str]) -> Iterator[tuple[list[str], bool]]:
    """Iterate over the errors: yield the lines of each error, and whether the error is only a progress line."""
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
    """Whether the lines only announce an error that the next message contains.

    In JSON logs, the announcement and the error are two events.
    """
    return len(lines) == 1 and ANNOUNCES.match(lines[0]) is not None


def _told(lines: list[str]) -> str:
    """Return the text of an error from its lines."""
    lines = [line.rstrip() for line in lines]
    at = next((at for at, line in enumerate(lines) if line.startswith(TRACEBACK)), None)
    if at is not None:
        return _raised(lines[at:]) or lines[at]
    if lines[0].startswith("Failure in ") and any("Error in " in line for line in lines[1:2]):
        # The second line has the node's name, too.
        lines = lines[1:]
    lines[0] = lines[0].strip().removeprefix(_ENCOUNTERED)
    return "\n".join(lines).strip()[:_MOST_CHARACTERS]


def _raised(lines: list[str]) -> str | None:
    """Return the exception at the end of a traceback. If tracebacks are chained, return the last exception."""
    raised = last = None
    for line in lines:
        # A traceback's frames are indented, and so are the code and the marks below them.
        if not line.strip() or line[0].isspace() or line.startswith(TRACEBACK):
            continue
        if line.startswith(CHAINED):
            last = None
        elif last is None:
            raised = last = line
    return raised


def last_line(text: str, limit: int = 300) -> str | None:
    """Return the last line of a command's output that is not empty; None if all lines are empty.

    Args:
        text: Standard output or standard error.
        limit: The largest length of the line, in characters.
    """
    for line in reversed(clean(text[-_END_CHARACTERS:]).split("\n")):
        message = one_line(parse_line(line).message, limit)
        if message:
            return message
    return None
