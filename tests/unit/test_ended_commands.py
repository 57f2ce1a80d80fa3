"""The details of ended commands are kept up to a size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from paradime_blocks.client.ended_commands import EndedCommands, SpooledCommand
from paradime_blocks.models import BoltLogLine, BoltLogPage, BoltResource
from paradime_blocks.text import LongText

RESOURCES = [BoltResource(id=7, path="target/manifest.json")]


def command(characters: int) -> SpooledCommand:
    return SpooledCommand(RESOURCES, LongText("x" * characters), LongText())


def page(cursor: str, *lines: str, finished: bool = False) -> BoltLogPage:
    return BoltLogPage(lines=[BoltLogLine(line=line) for line in lines], cursor=cursor, finished=finished)


def test_the_oldest_commands_make_room() -> None:
    """Output in a file is not kept: the file will be deleted."""
    ended = EndedCommands()
    for number in range(1, 5):
        ended.keep(number, command(2_500_000))
    ended.keep(5, replace(command(1), stdout=LongText(path=Path("text-1"))))
    assert [bool(ended.get(number)) for number in range(1, 6)] == [False, True, True, True, False]


def test_a_log_that_was_read_to_its_end_is_kept_with_the_files() -> None:
    """Both streams, and only when both the log and the files are known."""
    ended = EndedCommands()
    ended.add_page(1, "0:0", page("2:0", "a\n", "b\n"), is_first=True)
    ended.add_resources(1, RESOURCES)
    assert ended.get(1) is None
    last = page("3:1", "c", finished=True)
    last.lines.append(BoltLogLine(stream="stderr", line="oh\n"))
    ended.add_page(1, "2:0", last, is_first=False)
    assert ended.has_whole_log(1)
    ended.add_resources(1, RESOURCES)
    assert ended.get(1) == SpooledCommand(RESOURCES, LongText("a\nb\nc"), LongText("oh\n"))
    assert not ended.has_whole_log(1)


def test_a_log_with_a_gap_is_not_kept() -> None:
    """It was read from the middle, or a page is missing, or a page was read twice."""
    ended = EndedCommands()
    ended.add_page(1, "2:0", page("3:0", "c", finished=True), is_first=False)
    ended.add_page(2, "0:0", page("2:0", "a\n"), is_first=True)
    ended.add_page(2, "5:0", page("6:0", "f\n", finished=True), is_first=False)
    ended.add_page(3, "0:0", page("1:0", "a\n", finished=True), is_first=True)
    ended.add_page(3, "1:0", page("1:0", finished=True), is_first=False)
    assert [ended.has_whole_log(number) for number in (1, 2, 3)] == [False, False, False]


def test_a_log_that_is_too_long_is_not_kept() -> None:
    """It takes no room from others."""
    ended = EndedCommands()
    ended.keep(1, command(1_000_000))
    ended.add_page(2, "0:0", page("1:0", "x" * 9_000_000, finished=True), is_first=True)
    assert ended.get(1) is not None
    assert not ended.has_whole_log(2)


def test_a_command_is_kept_for_some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that appears late is found later."""
    now = 1000.0
    monkeypatch.setattr("paradime_blocks.client.ended_commands.time.monotonic", lambda: now)
    ended = EndedCommands()
    ended.keep(1, command(10))
    now += 299
    assert ended.get(1) is not None
    now += 2
    assert ended.get(1) is None
