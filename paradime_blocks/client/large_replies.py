"""Reads a reply with texts that are too long for memory: while the reply arrives, long texts are written to files.

A JSON parser would need the whole reply, and the whole text, in memory. So this module separates the long texts from
the rest of the JSON. A JSON parser then reads the rest, and reads the long texts in pieces.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING, Final

from paradime_blocks.text.long_text import LongText

if TYPE_CHECKING:
    from pathlib import Path

# A longer text goes to a file, in pieces of this size.
_PIECE_BYTES: Final = 1 << 20
# A line end is searched only in this many bytes at the end of a text, since a text may be one very long line.
_SEARCHED_BYTES: Final = 1 << 20
# What follows the opening quote of a JSON text, up to the closing quote or to the end of the chunk.
_IN_QUOTES: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_ESCAPED_LINE_END: Final = b"\\n"


class LargeTexts:
    """The long texts of one or more replies.

    Args:
        folder: The folder for the files with the long texts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []
        self.name = uuid.uuid4().hex

    def reply(self) -> LargeReply:
        """Return a reader for a reply."""
        return LargeReply(self)

    def new_file(self) -> Path:
        """Return the path of a new file."""
        self.files.append(self.folder / f"text-{len(self.files)}")
        return self.files[-1]

    def text_of(self, value: str) -> LongText:
        """Return the text for a value of the JSON: the long text that the value names, or else the value itself."""
        name, _, number = value.partition(":")
        return LongText(path=self.files[int(number)]) if name == self.name else LongText(value)


class LargeReply:
    """A JSON reply that arrives in chunks.

    Args:
        texts: Receives the long texts.
    """

    def __init__(self, texts: LargeTexts) -> None:
        self._texts = texts
        self._file: Path | None = None
        self._rest = bytearray()
        self._text: bytearray | None = None
        self._carry = b""

    @property
    def rest(self) -> bytes:
        """The JSON without the long texts. A name stands in the place of each long text."""
        return bytes(self._rest)

    def feed(self, chunk: bytes) -> None:
        """Read the next chunk.

        Raises:
            ValueError: The chunk is no valid part of a JSON text.
            OSError: A file cannot be written.
        """
        data, self._carry = self._carry + chunk, b""
        at = 0
        while at < len(data):
            if self._text is None:
                quote = data.find(b'"', at)
                end = len(data) if quote < 0 else quote + 1
                self._rest += data[at:end]
                self._text = None if quote < 0 else bytearray()
                at = end
                continue
            found = _IN_QUOTES.match(data, at)
            assert found is not None  # noqa: S101 - the pattern also matches nothing
            self._text += data[at : found.end()]
            at = found.end()
            if len(self._text) > _PIECE_BYTES:
                self._write_lines()
            if data[at : at + 1] == b'"':
                self._end_text()
                at += 1
            elif at < len(data):
                # The chunk ends in the middle of an escape, with a backslash.
                self._carry = data[at:]
                return

    def _write_lines(self) -> None:
        """Write the complete lines of a long text to its file. The cut is at a line end, so it splits no escape."""
        text = self._text
        assert text is not None  # noqa: S101
        start = len(text) - _SEARCHED_BYTES
        cut = text.rfind(_ESCAPED_LINE_END, start)
        while cut >= 0 and _backslashes_before(text, cut) % 2:
            cut = text.rfind(_ESCAPED_LINE_END, start, cut)
        if cut >= 0:
            self._write(text[: cut + len(_ESCAPED_LINE_END)])
            del text[: cut + len(_ESCAPED_LINE_END)]

    def _write(self, text: bytearray) -> None:
        self._file = self._file or self._texts.new_file()
        # A JSON text may contain half of a surrogate pair, which UTF-8 cannot encode.
        with self._file.open("a", encoding="utf-8", errors="replace", newline="") as file:
            file.write(json.loads(f'"{text.decode()}"', strict=False))

    def _end_text(self) -> None:
        text, self._text = self._text, None
        assert text is not None  # noqa: S101
        if self._file is not None:
            self._write(text)
            self._file = None
            text = bytearray(f"{self._texts.name}:{len(self._texts.files) - 1}".encode())
        self._rest += text + b'"'


def _backslashes_before(text: bytearray, at: int) -> int:
    before = bytes(text[max(0, at - 1000) : at])
    return len(before) - len(before.rstrip(b"\\"))
