"""Splits a command's growing output into lines with levels.

This module does no I/O: its input is pieces of output, and its output is lines with their levels. The position up to
which the output has been logged is plain data. It can be stored, so that another attempt can continue from this
position.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from paradime_blocks.dbt import TIME, LevelReader, LogLine, Piece, Record, Stream
from paradime_flows.choices import LiveLogsMode

# How many lines head_and_tail shows from each end of a command's output.
END_LINES: Final = 100
# A longer line is split. Otherwise, if a program never writes a line break, its output would never be logged.
LINE_CHARACTERS: Final = 1_000_000
_STREAMS: Final[tuple[Stream, Stream]] = ("STDOUT", "STDERR")
# The encoder is made once. `json.dumps` would check its options for each line, which takes longer than the encoding.
_AS_JSON: Final = json.JSONEncoder().encode
# Matches every line "n of m ..." of a text. The line break makes the search fast.
_NODES: Final = re.compile(
    rf"\n(?:{TIME})?[0-9]{{1,9}} of ([0-9]{{1,9}}) ([A-Z][A-Z-]*)\b( hook: | (?:creat(?:ing|ed) )?batch )?"
)


def size_of(text: str) -> int:
    """Return the largest number of bytes that a text may take in a request."""
    return len(_AS_JSON(text))


class LineSplitter:
    """Splits a text that comes in pieces into lines. The pieces may be cut at any place, also inside a line."""

    def __init__(self) -> None:
        self.rest = ""

    def feed(self, text: str) -> list[str]:
        """Return the lines that are complete now, without line breaks. An incomplete line stays in `rest`."""
        text = self.rest + text
        if len(text) <= LINE_CHARACTERS:
            *lines, self.rest = text.split("\n")
            return lines
        lines = []
        start = 0
        while True:
            end = text.find("\n", start, start + LINE_CHARACTERS)
            if end >= 0:
                lines.append(text[start:end])
                start = end + 1
            elif len(text) - start >= LINE_CHARACTERS:
                # Cut the line at white space if there is any, so that no address and no secret is split.
                cut = text.rfind(" ", start, start + LINE_CHARACTERS) + 1 or start + LINE_CHARACTERS
                lines.append(text[start:cut])
                start = cut
            else:
                break
        self.rest = text[start:]
        return lines

    def end(self) -> list[str]:
        """Return the incomplete last line, if there is one."""
        rest, self.rest = self.rest, ""
        return [rest] if rest else []


class NodeCount(NamedTuple):
    """How many of a command's nodes are done."""

    done: int = 0
    total: int = 0

    def after(self, line: LogLine) -> NodeCount:
        """Return the count after a line. Lines about hooks do not count, because dbt numbers the hooks separately."""
        if line.progress is None or line.status is None or " hook: " in line.message:
            return self
        total = line.progress[1]
        if total < self.total:
            return self
        done = self.done if total == self.total else 0
        return NodeCount(min(total, done + (line.status != "START")), total)

    def after_text(self, text: str) -> NodeCount:
        """Return the count after lines that were not parsed one by one."""
        if " of " not in text:
            return self
        found = Counter(_NODES.findall("\n" + text))
        total = max([self.total, *(int(of) for of, _, other in found if not other)])
        ended = sum(
            n for (of, word, other), n in found.items() if not other and int(of) == total and word != "START"
        )
        return NodeCount(min(total, (self.done if total == self.total else 0) + ended), total)


class Position(NamedTuple):
    """How far a command's output has been logged.

    `at` and `logged` are numbers of lines, first of standard output, then of standard error. So a position is valid for
    both ways to fetch the output. `cursor` is Bolt's cursor after `at` lines: with a cursor, these lines are not
    fetched again. In the mode `head_and_tail`, `last` is the number of records that were logged for the end of the
    output. The end is the note about the lines that were left out, and the last lines.
    """

    cursor: str | None = None
    at: tuple[int, int] = (0, 0)
    logged: tuple[int, int] = (0, 0)
    nodes: tuple[int, int] = (0, 0)
    last: int = 0
    done: bool = False


class _Waiting(NamedTuple):
    """A line that waits to be logged, and the position in the output after this line."""

    record: Record
    size: int
    logged: tuple[int, int]
    nodes: tuple[int, int]
    last: int


class CommandLog:
    """The output of one command that has been read, and that is logged step by step.

    Args:
        command_id: The command.
        position: The position up to which an earlier attempt logged the output.
        mode: Which lines to log: `all`, or `head_and_tail` for only the first and last lines.

    Attributes:
        waiting_bytes: The size of the lines that wait to be logged.
        is_incomplete: Whether the whole output has fewer lines than an earlier fetch returned.
    """

    def __init__(self, command_id: int, position: Position | None = None, mode: LiveLogsMode = "all") -> None:
        position = position or Position()
        self.command_id = command_id
        self.position = position
        self.cursor = position.cursor
        self.ended = position.done
        self.is_incomplete = False
        self.nodes = NodeCount(*position.nodes)
        self.waiting_bytes = 0
        self._waiting: deque[_Waiting] = deque()
        self._waits_for_text = True
        self._splitters = (LineSplitter(), LineSplitter())
        self._held_back = ["", ""]
        self._levels = tuple(LevelReader(stream) for stream in _STREAMS)
        self._read = list(position.at)
        self._skip = list(position.logged)
        self._logged = list(position.logged)
        self._whole = [0, 0]
        self._known = (position.cursor, position.at)
        self._head_only = mode == "head_and_tail"
        self._tail: deque[Record] = deque(maxlen=END_LINES)
        self._left_out = 0

    @property
    def is_ready(self) -> bool:
        """Whether there is something to log. Empty lines wait until a line with text comes after them."""
        return bool(self._waiting) and (self.ended or not self._waits_for_text)

    @property
    def is_unread(self) -> bool:
        """Whether no output has been read, neither by this attempt nor by an earlier attempt."""
        return self.position == Position() and self.cursor is None and not any(self._read)

    def feed(self, stream: str, text: str) -> None:
        """Read the next piece of a stream's output."""
        number = int(stream == "STDERR")
        self._take(number, self._splitters[number].feed(text))

    def feed_whole(self, stream: Stream, text: str, most: int) -> bool:
        """Read the new part of a stream's whole output.

        Args:
            stream: The stream.
            text: The whole output of the stream so far.
            most: The largest number of characters to read.

        Returns:
            Whether a part of the text has not been read yet.
        """
        number = int(stream == "STDERR")
        start = self._whole[number]
        self._whole[number] = max(start, min(len(text), start + most))
        if start < len(text):
            self.feed(stream, text[start : start + most])
        return self._whole[number] < len(text)

    def set_cursor(self, cursor: str) -> None:
        """Set Bolt's cursor after the output that has been read so far."""
        self.cursor = cursor
        # Another attempt cannot use a cursor in the middle of a line: it does not know the beginning of the line.
        if not any(splitter.rest for splitter in self._splitters):
            self._known = (cursor, (self._read[0], self._read[1]))

    def restart(self) -> None:
        """Prepare to read the whole output from its beginning with `feed_whole`. Lines that were read are skipped."""
        self._held_back = [splitter.rest for splitter in self._splitters]
        self._splitters = (LineSplitter(), LineSplitter())
        self._skip = list(map(max, self._skip, self._read))
        self._read, self._whole, self._known, self.cursor = [0, 0], [0, 0], (None, (0, 0)), None

    def end(self) -> None:
        """Note that the output is complete."""
        if self.ended:
            return
        for number, splitter in enumerate(self._splitters):
            rest, held_back = splitter.end(), self._held_back[number]
            if self._read[number] + len(rest) < self._skip[number] + bool(held_back):
                self.is_incomplete = True
                self._read[number] = self._skip[number]
                rest = [held_back] if held_back else []
            self._take(number, rest)
        last = list(self._tail)
        if self._left_out > len(last):
            left_out = self._left_out - len(last)
            note = f"[… {left_out:,} lines left out; the artifact with the command's log has more …]"
            last.insert(0, Record(logging.INFO, note))
        # If another attempt continues among these lines, it reads the lines again, and counts their nodes again.
        nodes = self._waiting[-1].nodes if self._waiting else self.position.nodes
        for n, record in enumerate(last[self.position.last :], self.position.last + 1):
            self._await(record, nodes, n)
        self._tail.clear()
        self.ended = True

    def take(self, most: int | None = None, *, any_size: bool = True) -> tuple[list[Record], Position]:
        """Return lines that wait to be logged, and the position after these lines.

        Args:
            most: The largest size of the lines in a request, in bytes. None for no limit.
            any_size: Whether to return the first line even if it is larger than `most`.
        """
        if not self.ended and not self.is_ready:
            return [], self.position
        taken: list[_Waiting] = []
        size = 0
        while self._waiting:
            size += self._waiting[0].size
            if most is not None and size > most and (taken or not any_size):
                break
            taken.append(self._waiting.popleft())
        self.waiting_bytes -= sum(each.size for each in taken)
        self._waits_for_text = not any(each.record.text.strip() for each in self._waiting)
        cursor, at, logged, nodes, last, _ = self.position
        if taken:
            _, _, logged, nodes, last = taken[-1]
        # If the cursor were after lines that still wait here, another attempt would skip these lines.
        if all(known <= done for known, done in zip(self._known[1], logged, strict=True)):
            cursor, at = self._known
        self.position = Position(cursor, at, logged, nodes, last, self.ended and not self._waiting)
        return [each.record for each in taken], self.position

    def _take(self, number: int, lines: Sequence[str]) -> None:
        known = min(len(lines), max(0, self._skip[number] - self._read[number]))
        self._read[number] += known
        lines = lines[known:]
        if self._head_only:
            # The first lines are logged at once. After them, only the newest lines are kept.
            room = 0 if self._left_out else max(0, END_LINES - sum(self._logged))
            for piece in self._levels[number].read_all(lines[:room]):
                self._log(number, piece)
            for piece in self._levels[number].read_all(lines[room:]):
                self._read[number] += piece.lines
                self._left_out += piece.lines
                self.nodes = self._nodes_after(piece)
                texts = piece.record.text.split("\n") if piece.line is None else [piece.record.text]
                self._tail.extend(Record(piece.record.level, text) for text in texts[-END_LINES:])
            return
        for piece in self._levels[number].read_all(lines):
            self._log(number, piece)

    def _log(self, number: int, piece: Piece) -> None:
        self._read[number] += piece.lines
        self._logged[number] = self._read[number]
        self.nodes = self._nodes_after(piece)
        self._await(piece.record, self.nodes)

    def _nodes_after(self, piece: Piece) -> NodeCount:
        if piece.line is None:
            return self.nodes.after_text(piece.record.text)
        return self.nodes.after(piece.line)

    def _await(self, record: Record, nodes: tuple[int, int], last: int = 0) -> None:
        size = size_of(record.text)
        logged = (self._logged[0], self._logged[1])
        self._waiting.append(_Waiting(record, size, logged, (nodes[0], nodes[1]), last))
        self.waiting_bytes += size
        self._waits_for_text = self._waits_for_text and not record.text.strip()
