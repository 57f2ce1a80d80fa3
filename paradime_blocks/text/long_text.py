"""A text such as the log of a command. It is in memory or, if it is too long for memory, in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A long text is read in pieces of about this many characters.
PIECE_CHARACTERS: Final = 1 << 22
_LOOKED_AT_CHARACTERS: Final = 1 << 16


@dataclass(frozen=True)
class LongText:
    """A text in memory, or in a file.

    Attributes:
        text: The text, if it is in memory.
        path: The file with the text, in UTF-8; None if the text is in memory.
    """

    text: str = ""
    path: Path | None = None

    def __len__(self) -> int:
        """Return the length of a text in memory in characters, and of a text in a file in bytes."""
        return len(self.text) if self.path is None else self.path.stat().st_size

    @property
    def is_blank(self) -> bool:
        """Whether the text has only white space."""
        return not any(piece and not piece.isspace() for piece in self.pieces(_LOOKED_AT_CHARACTERS))

    def whole(self) -> str:
        """Return the text. Use this only for a text that is not too long."""
        return "".join(self.pieces())

    def pieces(self, size: int = PIECE_CHARACTERS) -> Iterator[str]:
        """Iterate over the text in pieces. Each piece ends at the end of a line.

        Args:
            size: The number of characters in a piece, without the rest of the piece's last line.
        """
        if self.path is None:
            yield from pieces(self.text, size)
            return
        # `newline=""` keeps the line ends as they are.
        with self.path.open(encoding="utf-8", newline="") as file:
            while piece := file.read(size):
                yield piece if piece.endswith("\n") else piece + _rest_of_line(file)

    def outer(self, margin: int) -> tuple[str, str, int]:
        """Return the beginning of the text, the end of the text, and the number of bytes between them.

        The text is cut at line ends, so that no secret is split before it is redacted.

        Args:
            margin: How long the beginning and the end are at most: in characters, or in bytes if the text is in a
                file. A line that would be cut is left out.
        """
        if self.path is None:
            start = after_line(self.text, margin)
            end = max(start, self.text.rfind("\n", 0, len(self.text) - margin) + 1)
            return self.text[:start], self.text[end:], utf8_size(self.text, start, end)
        head = next(self.pieces(margin), "")
        size, begins_at = len(self), utf8_size(head)
        start, tail, cut = size, b"", 0
        with self.path.open("rb") as file:
            # If the last line is longer than the margin, the end is the whole line.
            while not cut and start > begins_at:
                start = max(begins_at, start - margin)
                file.seek(start)
                tail = file.read()
                cut = tail.find(b"\n", 0, -1) + 1
        if start > begins_at:
            tail = tail[cut:]
        return head, tail.decode(errors="replace"), size - begins_at - len(tail)

    def end(self, characters: int) -> str:
        """Return the end of a text in a file, with about this many bytes. Return the whole text if it is in memory."""
        return self.text if self.path is None else self.outer(characters)[1]

    def utf8_size(self) -> int:
        """Return the size of the text in bytes."""
        return utf8_size(self.text) if self.path is None else len(self)


def _rest_of_line(file: object) -> str:
    return file.readline()  # type: ignore[attr-defined, no-any-return]


def pieces(text: str, size: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Iterate over a text in pieces. Each piece ends at the end of a line.

    Args:
        text: The text.
        size: The number of characters in a piece, without the rest of the piece's last line.
    """
    at = 0
    while at < len(text):
        end = after_line(text, at + size)
        yield text[at:end]
        at = end


def after_line(text: str, at: int) -> int:
    """Return the index at which the next line begins. If there is no next line, return the length of the text."""
    end = text.find("\n", max(0, at))
    return len(text) if end < 0 else end + 1


def utf8_size(text: str, start: int = 0, end: int | None = None) -> int:
    """Return the size in bytes of a text, or of a part of the text, without a second copy of the text."""
    stop = len(text) if end is None else end
    if text.isascii():
        return stop - start
    return sum(
        len(text[at : min(at + PIECE_CHARACTERS, stop)].encode(errors="replace"))
        for at in range(start, stop, PIECE_CHARACTERS)
    )
