"""Finds the level of each line of a command's output: which lines belong to an error, and where the error ends.

dbt prints the level once per message, in the first line. The next lines without a time belong to the same message.
dbt 1.5 and older print a time in each further line of a message, and indent the line. For dbt Fusion and other
programs, the indented lines after the first one belong to the message. A traceback ends with the exception.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Final, Literal, NamedTuple

from paradime_blocks.dbt.log_dialects import (
    DECLARED,
    GIT,
    HEAD,
    TIME,
    LogLine,
    Origin,
    is_git_progress,
    understand,
)
from paradime_blocks.text.rendering import clean

Stream = Literal["STDOUT", "STDERR"]

_JSON_TIME: Final = re.compile(r'"(?:ts|timestamp|time)": ?"[0-9-]{10}[T ]([0-9:]{8})')
TRACEBACK: Final = "Traceback (most recent call last)"
CHAINED: Final = ("During handling of the above", "The above exception was")
# After such a line, the next message has the content of the error or warning.
ANNOUNCES: Final = re.compile(r"Failure in |Warning in |\s*[^\s]{1,300} failed, error:$")
# At the end of a command, dbt reports each error and warning, with an empty line after each report.
_REPORTED: Final = re.compile(
    r"\s*(?:Failure in |Warning in |[^\n]{1,60} Error in [a-z_ ]{1,20} |[^\s]{1,300} failed, error:)"
)
_LAST: Final = "Done."
# After this line, dbt Fusion prints a unit test's difference as a table that is not indented.
_TABLES: Final = "Test failed"
# Lines without a level of their own are returned together, up to this number of characters.
_TOGETHER_CHARACTERS: Final = 5000
# Matches the beginning of a line that may have another level than the stream's usual level. Such a line is read
# closely. The pattern begins with the line break, because a search for a fixed character is many times as fast as a
# search for a position.
_LOUD: Final = (
    r"(?:\{"
    rf"|(?:{TIME}|(?![0-9]{{2}}:[0-9]{{2}}:))(?:{HEAD.replace('(?P<warning>', '(?:').replace('(?P<error>', '(?:')}"
    rf"|{DECLARED}"
    r"|(?:Batch )?[0-9]{1,9} of [0-9]{1,9} (?:ERROR|FAIL|WARN|SKIP)"
    r"| {0,7}(?:Failed|Errored|Stale|Warned|Cancelled) "
)
# Most lines of dbt match this pattern. These lines are skipped first.
_COMMON: Final = r"(?![0-9:]{8}  [0-9]{1,9} of [0-9]{1,9} (?:START|OK|PASS) )"
_LOUD_LINE: Final[dict[str, re.Pattern[str]]] = {
    "STDOUT": re.compile(r"\n" + _COMMON + _LOUD + "))"),
    # On standard error the usual level is WARNING, so lines without a problem have another level, too.
    "STDERR": re.compile(
        r"\n" + _LOUD + rf"|(?:Batch )?[0-9]{{1,9}} of |{GIT}|(?=[^\n]{{10}} ) {{0,7}}[A-Z][a-z]{{2,9}} ))",
        re.MULTILINE,
    ),
}


class Record(NamedTuple):
    """One or several lines of the same level."""

    level: int
    text: str


class Piece(NamedTuple):
    """One line, or several lines that are returned together.

    Attributes:
        record: The level, and the text to show.
        lines: The number of output lines in this piece.
        line: The line with its progress; None for lines of the usual level, which were not read one by one.
    """

    record: Record
    lines: int
    line: LogLine | None


class _Reach(Enum):
    """Which further lines belong to the message that was read last."""

    NOTHING = auto()
    INDENTED = auto()
    TRACEBACK = auto()
    TO_BLANK = auto()
    UNTIMED = auto()


class LevelReader:
    """Finds the level of each line of one output stream. Read the lines in order.

    A line on standard error counts as a warning, unless dbt gives the line a level, or the line is a progress message
    of git.

    Args:
        stream: Standard output or standard error.

    Attributes:
        continues: Whether the line that was read last belongs to the message before it.
        is_node: Whether the line that was read last is dbt Fusion's line about a node.
    """

    def __init__(self, stream: Stream = "STDOUT") -> None:
        self.continues = False
        self.is_node = False
        self._usual = logging.WARNING if stream == "STDERR" else logging.INFO
        self._loud = _LOUD_LINE[stream]
        self._level = self._usual
        self._reach = _Reach.NOTHING
        self._reported = False

    def read(self, line: str) -> tuple[Record, LogLine]:
        """Return a line's level with the text to show, and the line with its progress.

        Args:
            line: The line, without its line break.
        """
        return self._read(clean(line))

    def read_all(self, lines: Sequence[str]) -> Iterator[Piece]:
        """Iterate over lines with their levels. Lines without a level of their own (most lines) are returned together.

        Args:
            lines: The lines, without their line breaks.
        """
        if not lines:
            return
        text = "\n" + clean("\n".join(lines))
        at, end = 0, len(text)
        while at < end:
            if self._reach is _Reach.NOTHING:
                loud = self._loud.search(text, at)
                quiet = loud.start() if loud else end
                while at < quiet:
                    stop = quiet
                    if quiet - at > _TOGETHER_CHARACTERS:
                        cut = text.rfind("\n", at + 1, at + _TOGETHER_CHARACTERS)
                        stop = cut if cut > 0 else text.find("\n", at + 1, quiet)
                        stop = stop if stop > 0 else quiet
                    self.continues = False
                    part = text[at + 1 : stop]
                    yield Piece(Record(self._usual, part), part.count("\n") + 1, None)
                    at = stop
                if at == end:
                    return
            stop = text.find("\n", at + 1)
            stop = stop if stop > 0 else end
            record, line = self._read(text[at + 1 : stop])
            yield Piece(record, 1, line)
            at = stop

    def _read(self, text: str) -> tuple[Record, LogLine]:
        line, origin = understand(text)
        self.is_node = origin == "fusion"
        level = self._follow(line, origin, text)
        if origin == "json":
            time = _JSON_TIME.search(text)
            text = f"{time[1]}  {line.message}" if time else line.message
        return Record(level, text), line

    def _follow(self, line: LogLine, origin: Origin, text: str) -> int:
        """Return the line's level, and remember which further lines belong to the same message."""
        self.continues = True
        if origin == "plain" and self._reach is not _Reach.NOTHING and self._takes(line, text):
            return self._level
        if origin == "text" and self._reach is _Reach.UNTIMED and self._takes_timed(line):
            return self._level
        self.continues = False
        self._level, self._reach = self._begin(line, origin, text)
        self._reported = self._reach is _Reach.UNTIMED and _REPORTED.match(line.message) is not None
        return self._level

    def _takes(self, line: LogLine, text: str) -> bool:
        """Whether a line without a time belongs to the message before it."""
        if self._reach is _Reach.UNTIMED:
            return True
        if self._reach is _Reach.TO_BLANK:
            return bool(text.strip())
        if self._reach is _Reach.TRACEBACK:
            # A traceback's frames are indented, and so are the code and the marks below them.
            if text.strip() and not text[0].isspace() and not text.startswith(TRACEBACK):
                self._reach = _Reach.INDENTED
            return True
        return line.level == logging.INFO and bool(text.strip()) and text[0].isspace()

    def _takes_timed(self, line: LogLine) -> bool:
        """Whether a line with a time belongs to the error or warning before it."""
        if line.status is not None or self._level < max(line.level, logging.WARNING):
            return False
        if self._reported:
            return bool(line.message) and not line.message.startswith(_LAST)
        return line.message.startswith("  ")

    def _begin(self, line: LogLine, origin: Origin, text: str) -> tuple[int, _Reach]:
        """Return the level of a message from its first line, and which further lines belong to the message."""
        # A progress line and a JSON event are complete: no further line belongs to them.
        if origin in {"json", "fusion"} or line.status is not None:
            return line.level, _Reach.NOTHING
        if origin == "debug":
            return line.level, _Reach.UNTIMED
        if line.level == logging.INFO:
            usual = logging.INFO if is_git_progress(text) else self._usual
            return usual, _Reach.NOTHING
        level = max(line.level, self._usual)
        if origin == "text":
            return level, _Reach.UNTIMED
        if text.startswith((TRACEBACK, *CHAINED)):
            return level, _Reach.TRACEBACK
        return level, _Reach.TO_BLANK if text.startswith(_TABLES) else _Reach.INDENTED
