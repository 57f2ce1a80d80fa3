"""A large JSON reply: the same values as from a JSON parser, with long texts in files."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paradime_blocks.client import large_replies
from paradime_blocks.client.large_replies import LargeTexts


def read(body: bytes, folder: Path, chunk: int) -> tuple[Any, LargeTexts]:
    large = LargeTexts(folder)
    reply = large.reply()
    for at in range(0, len(body), chunk):
        reply.feed(body[at : at + chunk])
    return json.loads(reply.rest), large


@pytest.fixture(autouse=True)
def _short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let texts of a few bytes count as long, so that each cut is tried."""
    size = 50_000 if "memory" in request.node.name else 8
    monkeypatch.setattr(large_replies, "_PIECE_BYTES", size)


TRICKY = st.text(alphabet='ab"\\\n\u2028é😀/\x00u', max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(TRICKY, TRICKY, st.integers(1, 30), st.booleans())
def test_the_values_are_those_of_the_json(
    tmp_path: Path, stdout: str, stderr: str, chunk: int, ascii_only: bool
) -> None:
    """Wherever the reply is cut: in an escape, in a character, in a key."""
    content = {"data": {"boltCommand": {"stdout": stdout, "n": [1, None], "stderr": stderr, "ok": True}}}
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    found, large = read(json.dumps(content, ensure_ascii=ascii_only).encode(), folder, chunk)
    value = found["data"]["boltCommand"]
    assert large.text_of(value["stdout"]).whole() == stdout
    assert large.text_of(value["stderr"]).whole() == stderr
    assert (value["n"], value["ok"], list(value)) == ([1, None], True, ["stdout", "n", "stderr", "ok"])


def test_a_long_text_is_in_a_file(tmp_path: Path) -> None:
    """Short texts stay in memory, also beside a long one."""
    body = json.dumps({"a": "x\n" * 100, "b": "short"}).encode()
    found, large = read(body, tmp_path, 10)
    assert large.text_of(found["a"]).path is not None
    assert large.text_of(found["b"]).path is None
    assert len(found["a"]) < 40


def test_half_a_character_does_not_break_the_file(tmp_path: Path) -> None:
    """JSON can have it, UTF-8 cannot."""
    found, large = read(b'{"a": "lines\\nand \\ud83d\\nmore lines"}', tmp_path, 7)
    assert large.text_of(found["a"]).whole() == "lines\nand ?\nmore lines"


def test_what_is_no_json_is_left_as_it_is(tmp_path: Path) -> None:
    """The caller quotes it in its error."""
    reply = LargeTexts(tmp_path).reply()
    reply.feed(b"<html>Please stand by</html>")
    assert reply.rest == b"<html>Please stand by</html>"


def test_a_large_text_is_not_in_memory(tmp_path: Path) -> None:
    """Only a few pieces of it are."""
    line = rb"12:00:00  1 of 9 OK created \"model\" in 0.92s\n" * 1000
    large = LargeTexts(tmp_path)
    reply = large.reply()
    tracemalloc.start()
    try:
        reply.feed(b'{"stdout": "')
        for _ in range(40):
            reply.feed(line)
        reply.feed(b'"}')
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    text = large.text_of(json.loads(reply.rest)["stdout"])
    assert len(text) == 40 * 1000 * 45
    assert peak < 600_000
