"""Reads one line of a command's output: its level, its message and the progress of the command.

dbt prints lines in one of these formats, and Bolt passes them on unchanged:

    12:01:02  1 of 5 ERROR creating sql table model ...     --log-format text, the default: no level at all
    12:01:02 | 1 of 5 ERROR creating table model ...        the same of dbt 0.21 and older
    12:01:02.123456 [error] [Thread-1 (]: 1 of 5 ERROR ...  --log-format debug
    {"info": {"level": "error", "msg": "1 of 5 ..."}, ...}   --log-format json, one object a line
        Failed [  1.74s] model main.orders (table)           dbt Fusion: a word that ends in the tenth column

A line in the text format has no level, so the level is read from dbt's words, which the tables below list. The result
is the level that the same line has in dbt's JSON format. This module reads each line alone and keeps no state;
`log_levels` finds out which lines belong together.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any, Final, Literal, NamedTuple

from paradime_blocks.text.rendering import clean

Origin = Literal["plain", "text", "debug", "json", "fusion"]

_LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "test": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
# The keys of the level and of the message in a JSON line. First: dbt 1.0 and newer; from dbt 1.4 on, both keys are
# inside "info". Second: older dbt. Third: dbt Fusion's --log-format otel.
_JSON_KEYS: Final = (("level", "msg"), ("level", "message"), ("severity_text", "body"))

TIME: Final = (
    # dbt 0.x printed the date and the thread, too, in its full log format.
    r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2} )?[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?: \([^()\n]{1,60}\):)?(?: \| ?| |(?=\n|$)) ?"
)
_TIME: Final = re.compile(TIME)
DECLARED: Final = r"\[([a-z]+) *\] \[[^\]\n]{0,100}\]: ?"
_DECLARED: Final = re.compile(DECLARED)
# For a microbatch model, dbt numbers the batches, from 1 in each model.
PROGRESS: Final = r"(?:Batch )?([0-9]{1,9}) of ([0-9]{1,9}) ([A-Z][A-Z-]*)\b"
_PROGRESS: Final = re.compile(PROGRESS)
_BATCH: Final = re.compile(r"Batch |[0-9]+ of [0-9]+ [A-Z]+(?: creating| created)? batch ")
_PROGRESS_LEVELS: Final = {"ERROR": logging.ERROR, "FAIL": logging.ERROR, "WARN": logging.WARNING}

# The columns of dbt Fusion: a word that ends in the tenth column, and usually a duration.
_FUSION: Final = re.compile(r"(?=.{10} ) {0,7}([A-Z][a-z]{2,9})(?<=^.{10}) (\[[^\]\n]{1,12}\] )?")
_FUSION_LEVELS: Final = {
    "Failed": logging.ERROR,
    "Errored": logging.ERROR,
    "Stale": logging.ERROR,
    "Warned": logging.WARNING,
    "Cancelled": logging.WARNING,
}
_FUSION_WORDS: Final = frozenset(
    {
        *("Analyzing", "Building", "Cleaned", "Cleaning", "Cloned", "Compiled", "Compiling", "Debugged"),
        *(
            "Debugging",
            "Downloaded",
            "Executing",
            "Fetching",
            "Finished",
            "Generated",
            "Hydrated",
            "Hydrating",
        ),
        *("Installed", "Installing", "Loaded", "Loading", "Parsed", "Parsing", "Rendered", "Rendering"),
        *("Resolving", "Running", "Scheduled", "Started", "Suggestion", "Target", "Uploading", "Written"),
    }
)

_CANNOT_RUN: Final = "(?:not found|No such file or directory|Permission denied)"
# Warnings are matched before errors: "Encountered an error while generating catalog" is only a warning of dbt.
_WARNINGS: Final = (
    # dbt 0.x to 1.12, each with the words of the event.
    r"\[WARN(?:ING)?\]",
    r"\* Deprecation Warning",
    r"Warning in ",
    r"W(?:arning|ARNING)(?:\[[^\]\n]{0,100}\])?:",
    r"Got [0-9]+ results?, configured to warn",
    r"The selection criterion '[^\n]{0,2000}' does not match any ",
    r"Nothing to do\. Try checking ",
    r"No nodes selected!",
    r"Encountered an error while generating catalog",
    r"Data type of snapshot table timestamp columns ",
    r"Detected secret env var in ",
    r"Internal logging/event buffer full",
    r"Error sending message, disabling tracking",
    # dbt Fusion, and other programs.
    r"warning(?:\[[^\]\n]{0,100}\])?:",
    r"\[warn(?:ing)?\]",
)
_ERRORS: Final = (
    # dbt 0.x to 1.12.
    r"\[ERROR\]",
    r"Encountered an error",
    r"Failure in ",
    r"Unhandled error while executing ",
    r"Error (?:while parsing node: |uploading artifacts to |retrieving modification time for )",
    # "on-run-end failed, error:", and "shop.on-run-end.0 failed, error:" from dbt 1.9 on.
    r"[A-Za-z_][^\s]{0,300} failed, error:",
    r"The YAML provided in the --[a-z-]{1,40} argument is not valid",
    r"CANCEL query ",
    r"Make sure git is installed on your machine",
    r"dbt encountered [0-9]+ failures? while writing the catalog",
    # "Runtime Error in model ...", "Database Error", and a driver's "Conversion Error: ...".
    r"(?:[A-Z][A-Za-z]{1,30} ){1,3}Error(?:$|(?=\n)| in |:)",
    r"Got [0-9]+ results?, (?:configured to fail|expected 0)",
    # dbt Fusion: "error: dbt1005: ..." and "[error] ..."; git. "Error: No such command" is of dbt's command line.
    r"(?:fatal|[eE]rror|FATAL|ERROR)(?:\[[^\]\n]{0,100}\])?:",
    r"\[error\]",
    r"Test failed(?: \([0-9,]{1,20} failed row\(s\)\))?: ",
    # Python: the first and the last line of a traceback, and the line between two tracebacks.
    r"Traceback \(most recent call last\)",
    r"(?:During handling of the above exception|The above exception was the direct cause)",
    r"[A-Za-z_][A-Za-z0-9_.]{0,100}(?:Error|Exception):",
    # A shell says that it cannot run a command; make or npm says that a command failed.
    r"(?:[^\s:]{0,100}/)?(?:ba|da|z|k|a)?sh(?:\[[0-9]{1,9}\])?: [^\n]{0,300}" + _CANNOT_RUN,
    r"[^\s:]{1,100}: line [0-9]{1,9}: [^\n]{0,300}" + _CANNOT_RUN,
    r"g?make(?:\[[0-9]{1,9}\])?: \*\*\* |npm (?:ERR!|error) ",
)
# The lookahead comes first and saves time: none of the patterns begins with a digit.
HEAD: Final = (
    rf"[^\S\n]*(?=[A-Za-z_./~*\[-])(?:(?P<warning>{'|'.join(_WARNINGS)})|(?P<error>{'|'.join(_ERRORS)}))"
)
_HEAD: Final = re.compile(HEAD)
_HEAD_LEVELS: Final = {"warning": logging.WARNING, "error": logging.ERROR}

# Lines that git prints to standard error when there is no error.
GIT: Final = (
    r"(?:Cloning into |Submodule |remote: (?:Enumerating|Counting|Compressing|Finding|Total|[^\S\n]*$)"
    r"|(?:remote: )?[A-Z][a-z]+ (?:[a-z]+ )?[a-z]+: +[0-9]{1,3}% \(|From [^\s]+$|HEAD is now at |Note: switching to "
    r"|Switched to |Already on | \* \[new | [*+=-] [0-9a-f]{7,40}\.\.|   [0-9a-f]{7,40}\.\."
    # git's advice after the checkout of a commit without a branch.
    r"|You are in 'detached HEAD' state|changes and commit them, and |state without impacting any branches"
    r"|If you want to create a new branch to retain |do so \(now or later\) by using |Or undo this operation with:"
    r"|  git switch |Turn off this advice by )"
)
_GIT: Final = re.compile(GIT)


class LogLine(NamedTuple):
    """One line of a command's output, with its level and its progress.

    Attributes:
        level: A level of the ``logging`` module.
        message: The text without colours and without dbt's time of day; of a JSON line, only dbt's message, which may
            have several lines.
        progress: ``(n, m)`` of a line "n of m ...". Hooks are counted separately: "1 of 1" after "19 of 19" is correct.
        status: The word after the progress: START when node n begins; OK, PASS, ERROR, FAIL, WARN, SKIP, ... when
            node n has ended. Nodes do not end in order. So to count ended nodes, count these lines and do not use
            ``n``.
    """

    level: int
    message: str
    progress: tuple[int, int] | None = None
    status: str | None = None


def parse_line(line: str) -> LogLine:
    """Return the level, message and progress of any line.

    Args:
        line: A line of standard output or standard error, with or without its line break.
    """
    return understand(clean(line).rstrip("\n"))[0]


def understand(line: str) -> tuple[LogLine, Origin]:
    """Return the level, message and progress of a line, and the format of the line.

    Args:
        line: The line after `clean`, without its line break.

    Returns:
        The line and its format: ``text``, ``debug``, ``json`` or ``fusion`` for lines of dbt; ``plain`` for a
        further line of a dbt message, or for a line of another program.
    """
    if line.startswith("{"):
        event = _json_event(line)
        if event is not None:
            return event, "json"
    time = _TIME.match(line)
    message = line[time.end() :] if time else line
    declared = _DECLARED.match(message) if time else None
    if declared:
        message = message[declared.end() :]
    progress, status, level = _progress(message)
    if declared:
        return LogLine(_LEVELS.get(declared[1], logging.INFO), message, progress, status), "debug"
    if status is None:
        if not time:
            fusion = _FUSION.match(message)
            if fusion and (fusion[2] or fusion[1] in _FUSION_WORDS):
                return LogLine(_FUSION_LEVELS.get(fusion[1], logging.INFO), message), "fusion"
        head = _HEAD.match(message)
        level = _HEAD_LEVELS[str(head.lastgroup)] if head else logging.INFO
    return LogLine(level, message, progress, status), "text" if time else "plain"


def is_git_progress(line: str) -> bool:
    """Whether a line is a progress message of git, which git prints to standard error."""
    return _GIT.match(line) is not None


def _progress(message: str) -> tuple[tuple[int, int] | None, str | None, int]:
    found = _PROGRESS.match(message)
    if found is None:
        return None, None, logging.INFO
    at, total, word = int(found[1]), int(found[2]), found[3]
    if not 0 < at <= total:
        return None, None, logging.INFO
    level = _PROGRESS_LEVELS.get(word, logging.INFO)
    if word == "SKIP" and "[ERROR SKIP" in message:
        level = logging.ERROR
    return None if _BATCH.match(message) else (at, total), word, level


def _json_event(line: str) -> LogLine | None:
    """Return the dbt event in a JSON line; None if the line is other JSON or not JSON."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    info = content["info"] if isinstance(content.get("info"), dict) else content
    for level_key, message_key in _JSON_KEYS:
        level, message = info.get(level_key), info.get(message_key)
        if isinstance(level, str) and isinstance(message, str):
            break
    else:
        return None
    message = clean(message)
    time = _TIME.match(message)
    progress, status, _ = _progress(message[time.end() :] if time else message)
    if status is None:
        progress = _counted(content.get("data"))
    return LogLine(_LEVELS.get(level.strip().lower(), logging.INFO), message, progress, status)


def _counted(data: Any) -> tuple[int, int] | None:
    """Return the progress from an event's data, for an event whose message contains no progress."""
    if not isinstance(data, dict):
        return None
    at, total = data.get("index"), data.get("total")
    # In Python, a bool is an int, too.
    if type(at) is int and type(total) is int and 0 < at <= total:
        return at, total
    return None
