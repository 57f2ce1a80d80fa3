"""What a line of dbt's output says: its level, its message and how far the command has come.

dbt prints lines in one of three ways, and Bolt hands on what was printed:

    12:01:02  1 of 5 ERROR creating sql table model ...     --log-format text, the default: no level at all
    12:01:02.123456 [error] [Thread-1 (]: 1 of 5 ERROR ...  --log-format debug
    {"info": {"level": "error", "msg": "1 of 5 ..."}, ...}   --log-format json, one object a line

For text the level is told from the words that dbt uses, so that it agrees with the level that dbt gives the
same line as JSON. Everything here is about one line or one text and keeps no state.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final, Literal

from paradime_blocks.text.rendering import clean, one_line

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "test": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
_TIME: Final = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?: |$) ?")
_DEBUG: Final = re.compile(r"\[([a-z]+) *\] \[[^\]\n]{0,100}\]: ?")
_PROGRESS: Final = re.compile(r"([0-9]{1,9}) of ([0-9]{1,9}) ([A-Z][A-Z-]*)\b")
_PROGRESS_LEVELS: Final = {"ERROR": logging.ERROR, "FAIL": logging.ERROR, "WARN": logging.WARNING}
_CANNOT_RUN: Final = "(?:not found|No such file or directory|Permission denied)"
_ERROR: Final = re.compile(
    r"\s*(?:"
    r"\[ERROR\]|Encountered an error|Failure in |Traceback \(most recent call last\)"
    # "Runtime Error in model ...", "Database Error", and a driver's "Conversion Error: ...".
    r"|(?:[A-Z][A-Za-z]{1,30} ){1,3}Error(?:$| in |:)"
    r"|Got [0-9]+ results?, configured to fail"
    # git and other commands of a schedule; dbt Fusion's "error: dbt1005: ..." and "[error] ...".
    # "Error: No such command" is of the parser of dbt's command line.
    r"|(?:fatal|[eE]rror|FATAL|ERROR)(?:\[[^\]\n]{0,100}\])?:|\[error\]"
    # The last line of a Python traceback, as "botocore.exceptions.ClientError: ...".
    r"|[A-Za-z_][A-Za-z0-9_.]{0,100}(?:Error|Exception):"
    # A shell that cannot run a command; make and npm, which tell that one failed.
    r"|(?:[^\s:]{0,100}/)?(?:ba|da|z|k|a)?sh(?:\[[0-9]{1,9}\])?: .{0,300}"
    + _CANNOT_RUN
    + r"|[^\s:]{1,100}: line [0-9]{1,9}: .{0,300}"
    + _CANNOT_RUN
    + r"|g?make(?:\[[0-9]{1,9}\])?: \*\*\* |npm (?:ERR!|error) "
    # dbt Fusion's line of a node: "    Failed [  1.74s] test ...".
    r"|(?:Failed|Errored) \[ *[0-9.]+m?s"
    r")"
)
_WARNING: Final = re.compile(
    r"\s*(?:"
    r"\[WARN(?:ING)?\]|Warning in |Warning:|Got [0-9]+ results?, configured to warn"
    r"|(?:warning|WARNING)(?:\[[^\]\n]{0,100}\])?:|\[warn(?:ing)?\]|Warned \[ *[0-9.]+m?s"
    r")"
)


_TRACEBACK: Final = "Traceback (most recent call last)"
_CHAINED: Final = ("During handling of the above", "The above exception was")
# Far more than a last line is long; the whole of a log need not be looked through for it.
_END_CHARACTERS: Final = 50_000


@dataclass(frozen=True)
class LogLine:
    """One line of a command's output, understood.

    Attributes:
        level: A level of the ``logging`` module.
        message: The text without colours and without dbt's time of day; of JSON lines, dbt's message only,
            which may
            have several lines.
        progress: ``(n, m)`` of a line "n of m ...". Hooks count anew: "1 of 1" after "19 of 19" is no
            mistake.
        status: The word after it: START when node n begins; OK, PASS, ERROR, FAIL, WARN, SKIP, ... when it is
            done.
            Nodes end out of order, so those that are done are to be counted, not read off ``n``.
        origin: How it was printed: by dbt as ``text``, ``debug`` or ``json``; ``plain`` is the rest of a dbt
            message, or not dbt's at all.
    """

    level: int
    message: str
    progress: tuple[int, int] | None = None
    status: str | None = None
    origin: Literal["plain", "text", "debug", "json"] = field(default="plain", compare=False)


def parse_line(line: str) -> LogLine:
    """Understand one line; whatever it is, it comes back as a line.

    Args:
        line: A line of standard output or standard error, with or without its line break.
    """
    line = clean(line).rstrip("\n")
    if line.startswith("{"):
        event = _json_event(line)
        if event is not None:
            return event
    time = _TIME.match(line)
    message = line[time.end() :] if time else line
    declared = _DEBUG.match(message) if time else None
    if declared:
        message = message[declared.end() :]
    progress, status = _progress(message)
    level = _LEVELS.get(declared[1], logging.INFO) if declared else _text_level(message, status)
    return LogLine(level, message, progress, status, "debug" if declared else "text" if time else "plain")


def _progress(message: str) -> tuple[tuple[int, int] | None, str | None]:
    found = _PROGRESS.match(message)
    if found is None:
        return None, None
    at, total = int(found[1]), int(found[2])
    return ((at, total), found[3]) if 0 < at <= total else (None, None)


def _text_level(message: str, status: str | None) -> int:
    if status is not None:
        return _PROGRESS_LEVELS.get(status, logging.INFO)
    if _ERROR.match(message):
        return logging.ERROR
    return logging.WARNING if _WARNING.match(message) else logging.INFO


def _json_event(line: str) -> LogLine | None:
    """The event that a JSON line tells, or None if it is some other JSON, or none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    # dbt 1.4 and later: {"info": {...}, "data": {...}}; 1.0 to 1.3: flat, "msg"; before: flat, "message".
    info = content["info"] if isinstance(content.get("info"), dict) else content
    level, message = info.get("level"), info.get("msg", info.get("message"))
    if not isinstance(level, str) or not isinstance(message, str):
        return None
    message = clean(message)
    time = _TIME.match(message)
    progress, status = _progress(message[time.end() :] if time else message)
    return LogLine(
        _LEVELS.get(level.lower(), logging.INFO),
        message,
        progress or _counted(content.get("data")),
        status,
        "json",
    )


def _counted(data: Any) -> tuple[int, int] | None:
    """The progress that an event's data state, for events whose message does not."""
    if not isinstance(data, dict):
        return None
    at, total = data.get("index"), data.get("total")
    # A bool is an int to Python.
    if type(at) is int and type(total) is int and 0 < at <= total:
        return at, total
    return None


def first_error(text: str, limit: int = 500) -> str | None:
    """The first error that a command's output tells, for commands that leave no results behind.

    When dbt fails before it runs a node, or a command is not dbt's at all, its output is the only source.

    Args:
        text: Standard output or standard error.
        limit: The most characters of the error.

    Returns:
        The error on one line, with the lines that belong to it; of a Python traceback, the exception. None if
        no line looks like an error.
    """
    gathered: list[str] = []
    lines = clean(text).split("\n")
    for at, raw in enumerate(lines):
        line = parse_line(raw)
        if not gathered:
            if line.level >= logging.ERROR and line.status is None:
                message = line.message.strip()
                if message.startswith(_TRACEBACK):
                    # As JSON, the whole of it is one message.
                    message = _raised(chain(message.split("\n"), islice(lines, at + 1, None))) or message
                    return one_line(message, limit)
                gathered.append(message)
            continue
        # What follows belongs to it until dbt's next line of its own, which begins with the time or a brace.
        # "Failure in model x" only announces the error, which has a line of its own.
        if raw.startswith("{") or _TIME.match(raw):
            if len(gathered) == 1 and gathered[0].startswith("Failure in ") and line.level >= logging.ERROR:
                gathered = [line.message.strip()]
                continue
            break
        gathered.append(line.message.strip())
        if sum(map(len, gathered)) > limit:
            break
    return one_line(" ".join(gathered).removeprefix("Encountered an error:"), limit) or None


def _raised(lines: Iterable[str]) -> str | None:
    """The exception that a traceback ends with; of tracebacks that follow from each other, the last one's."""
    raised = last = None
    for line in lines:
        # Frames, and the code and the marks below them, are indented.
        if not line.strip() or line[0].isspace() or line.startswith(_TRACEBACK):
            continue
        if line.startswith(_CHAINED):
            last = None
        elif last is not None or line.startswith("{") or _TIME.match(line):
            break
        else:
            raised = last = line
    return raised


def last_line(text: str, limit: int = 300) -> str | None:
    """The last line of a command's output that says anything; None if it wrote none.

    Args:
        text: Standard output or standard error.
        limit: The most characters of the line.
    """
    for line in reversed(clean(text[-_END_CHARACTERS:]).split("\n")):
        message = one_line(parse_line(line).message, limit)
        if message:
            return message
    return None
