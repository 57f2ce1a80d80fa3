"""Joins the lines of a command's output to few log records."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from paradime_blocks.dbt import TIME, Record

# Prefect Cloud accepts 25,000 characters a record.
RECORD_CHARACTERS: Final = 20_000
# If the levels of the lines change often, this many records are allowed, and one more for each number of characters.
_RECORDS_FREELY: Final = 20
_CHARACTERS_PER_RECORD: Final = 4000
_TIME: Final = re.compile(TIME)


def join_lines(lines: Sequence[Record]) -> list[Record]:
    """Join lines to as few records as possible, each short enough for Prefect Cloud.

    Lines in one record have the same level. If this would make too many records, because the levels change often, a
    record also joins lines of different levels. The record then has the highest of these levels.
    """
    lines = list(_with_details(lines))
    records = list(_joined(lines))
    characters = sum(len(text) for _, text in lines)
    if len(records) > _RECORDS_FREELY + characters // _CHARACTERS_PER_RECORD:
        records = []
        for chunk in _chunks(lines):
            highest = max(level for level, _ in chunk)
            records += _joined([Record(highest, text) for _, text in chunk])
    return records


def _with_details(lines: Iterable[Record]) -> Iterator[Record]:
    """Give the details of an error or warning its level, so that the whole message of dbt is in one record.

    After an empty line, dbt prints indented lines, such as the path of the compiled code. These lines do not say what
    is wrong, so `LevelReader` gives them the usual level.
    """
    loud: int | None = None
    for level, text in lines:
        if loud is not None and level < logging.WARNING and (end := _end_of_details(text)):
            yield Record(loud, text[:end].removesuffix("\n"))
            if end == len(text):
                continue
            text = text[end:]  # noqa: PLW2901 - the rest
        loud = level if level >= logging.WARNING else None
        yield Record(level, text)


def _end_of_details(text: str) -> int:
    """Return where the details end at the beginning of a text: indented lines with dbt's time, and empty lines.

    One empty line after the details belongs to the details. If the rest of the text has only empty lines, all of these
    lines are details.
    """
    at = end = 0
    while at < len(text):
        stop = text.find("\n", at) + 1 or len(text)
        time = _TIME.match(text, at, stop)
        rest = text[time.end() if time else at : stop]
        if rest.strip():
            if time is None or not rest.startswith("  "):
                return end
            end = stop
        elif end == at > 0:
            end = stop
        at = stop
    return len(text)


def _chunks(lines: Sequence[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    characters = 0
    for line in lines:
        if chunk and characters + len(line.text) > RECORD_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
        chunk.append(line)
        characters += len(line.text) + 1
    if chunk:
        yield chunk


def _joined(lines: Iterable[Record]) -> Iterator[Record]:
    texts: list[str] = []
    characters, current = 0, None
    for level, line in lines:
        # An empty line does not change the level, and joins the lines around it.
        if current is not None and line.strip() and level != current and any(text.strip() for text in texts):
            yield Record(current, "\n".join(texts))
            texts, characters = [], 0
        if current is None or line.strip():
            current = level
        for start in range(0, len(line), RECORD_CHARACTERS) or (0,):
            part = line[start : start + RECORD_CHARACTERS]
            if texts and characters + len(part) > RECORD_CHARACTERS:
                yield Record(current, "\n".join(texts))
                texts, characters = [], 0
            texts.append(part)
            characters += len(part) + 1
    if current is not None and any(text.strip() for text in texts):
        yield Record(current, "\n".join(texts))
