"""A text that may be too long for memory: the same from memory and from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paradime_blocks.text import LongText
from paradime_blocks.text.long_text import pieces, utf8_size

TEXTS = [
    "",
    "one",
    "one\ntwo\n\n" + "x" * 50 + "\nlast",
    "é€😀\r\n" * 40,
    "x" * 300,
    "\n" * 100,
    "a\n" + "b" * 200,
]


def both(text: str, folder: Path) -> tuple[LongText, LongText]:
    path = folder / "text"
    path.write_bytes(text.encode())
    return LongText(text), LongText(path=path)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 7, 60, 1000])
def test_pieces_are_the_text(text: str, size: int, tmp_path: Path) -> None:
    """Nothing is lost or moved, and each piece ends at a line end."""
    for each in both(text, tmp_path):
        found = list(each.pieces(size))
        assert "".join(found) == each.whole() == text
        assert all(piece.endswith("\n") for piece in found[:-1])


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("margin", [1, 7, 60, 1000])
def test_the_outer_parts_and_what_is_between_are_the_text(text: str, margin: int, tmp_path: Path) -> None:
    """They are cut at line ends, and do not overlap."""
    for each in both(text, tmp_path):
        head, tail, between = each.outer(margin)
        assert text.startswith(head)
        assert text.endswith(tail)
        assert utf8_size(head) + between + utf8_size(tail) == utf8_size(text)
        assert between == 0 or head.endswith("\n")
        assert not tail or len(head) + len(tail) == len(text) or text[: -len(tail)].endswith("\n")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.text(alphabet="ab\n é😀", max_size=200), st.integers(1, 50))
def test_a_file_has_the_same_end_and_size(tmp_path: Path, text: str, margin: int) -> None:
    """A blank text is blank in both forms."""
    in_memory, in_file = both(text, tmp_path)
    assert in_memory.is_blank is in_file.is_blank is (not text.strip())
    assert in_memory.utf8_size() == in_file.utf8_size() == len(in_file)
    assert text.endswith(in_file.end(margin))


def test_sizes_are_those_of_utf8() -> None:
    """This holds for a part of a text, and for half a character, which has no bytes of its own."""
    assert utf8_size("aé€😀\ud800") == 1 + 2 + 3 + 4 + 1
    assert utf8_size("aé€😀", 1, 3) == 5
    assert utf8_size("abc", 1) == 2
    assert list(pieces("")) == []
