"""Decides which failures of a Bolt run are worth a retry, and what a retry requests. This module does no I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paradime_blocks.errors import BoltRunError
    from paradime_blocks.trigger.request import TriggerRequest

# A person has to fix these: the project, the git branch, the credentials. A failed test is not one of them, because
# data may arrive late. An error that may be an outage is not one of them either.
DEFAULT_NON_RETRYABLE_ERRORS: tuple[str, ...] = (
    # dbt cannot read the project, or cannot compile it.
    r"compilation error",
    r"parsing error",
    r"dependency error",
    r"no dbt_project\.yml found",
    r"env var required but not provided",
    r"could not find profile named",
    r"no such command|is not a valid command|no such option",
    # The warehouse cannot read the SQL.
    r"syntax error",
    # The warehouse or the git server rejects the credentials or the permissions.
    r"(incorrect|invalid|bad|wrong) (username|user name|user|password|credentials?|api key|access token)",
    r"(login|authentication|authorization|authorisation) (failed|failure|error)",
    r"(insufficient|missing) (privileges?|permissions?)",
    r"(permission|access) denied",
    r"not authorized|not authorised",
    # The branch, commit or repository does not exist.
    r"remote branch .* not found",
    r"pathspec .* did not match",
    r"repository .*not found",
    r"could not read username",
)


def check_pattern(pattern: str) -> str:
    """Return a pattern if it is a regular expression.

    Raises:
        ValueError: The pattern is not a valid regular expression, or is empty.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        msg = f"{pattern!r} is not a regular expression ({error}): escape it with re.escape"
        raise ValueError(msg) from None
    if not pattern.strip():
        msg = "it is an empty pattern, which would match every failure: remove it, or set retries to 0"
        raise ValueError(msg)
    return pattern


def why_not_retry(error: BoltRunError, patterns: Sequence[str]) -> str | None:
    """Return the line of a failure which shows that a retry would fail, too. None if there is no such line.

    Args:
        error: The failure, with the end of the failing command's log and dbt's own errors.
        patterns: Regular expressions. Upper and lower case letters are treated as the same.
    """
    text = "\n".join([*error.dbt_errors, error.log_tail or ""])
    for pattern in patterns:
        found = re.search(pattern, text, re.IGNORECASE)
        if found is not None:
            start = text.rfind("\n", 0, found.start()) + 1
            end = text.find("\n", found.end())
            return text[start : end if end >= 0 else None].strip()
    return None


def retry_of(request: TriggerRequest, run_id: int) -> TriggerRequest:
    """Return the request that retries a failed run: from the command that failed, with the schedule's own commands.

    Args:
        request: The request that started the run.
        run_id: The id of the run that failed.
    """
    return replace(request.with_options(commands=None), retry_of=run_id, retry_everything=False)
