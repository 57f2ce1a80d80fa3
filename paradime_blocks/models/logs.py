"""Logs of commands."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from paradime_blocks.models.reply import Reply, Text, readable


class BoltLogLine(Reply):
    """A piece of a command's log; it carries its own newline."""

    stream: Annotated[str, BeforeValidator(lambda value: value or "STDOUT")] = "STDOUT"
    line: Text = ""


class BoltLogPage(Reply):
    """The log of a command since a cursor."""

    lines: Annotated[list[BoltLogLine], readable(BoltLogLine)] = Field(default_factory=list)
    cursor: str | None = None
    finished: bool = False
