"""Models of a command's log."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from paradime_blocks.models.reply import Reply, Text, readable


class BoltLogLine(Reply):
    """A line, or a part of a line, of a command's log. The text includes the line break if there is one."""

    stream: Annotated[str, BeforeValidator(lambda value: value or "STDOUT")] = "STDOUT"
    line: Text = ""


class BoltLogPage(Reply):
    """The part of a command's log that follows a cursor."""

    lines: Annotated[list[BoltLogLine], readable(BoltLogLine)] = Field(default_factory=list)
    cursor: str | None = None
    finished: bool = False
