"""Decides whether a failed Bolt run is retried, and creates the request for the retry. This module does no I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paradime_blocks.errors import BoltRunError
    from paradime_blocks.trigger.request import TriggerRequest

# These errors are not retried, because a person has to fix the project, the git branch or the credentials. The list
# has no pattern for a failed test, because the missing data may arrive later. The list has no pattern for an error
# that may come from an outage, because the outage may end.
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
    """Return a pattern unchanged if it is a valid regular expression.

    Raises:
        ValueError: The pattern is not a valid regular expression, or is empty.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        msg = f"{pattern!r} is not a valid regular expression ({error}): escape the text with re.escape"
        raise ValueError(msg) from None
    if not pattern.strip():
        msg = "the pattern is empty and would match every failure: remove the pattern, or set retries to 0"
        raise ValueError(msg)
    return pattern


def why_not_retry(error: BoltRunError, patterns: Sequence[str]) -> str | None:
    """Return the first line that matches a pattern, because the line means that a retry would fail, too.

    The function searches dbt's errors and the end of the log. It returns None if no line matches a pattern.

    Args:
        error: The error of the failed Bolt run. The error contains dbt's errors and the end of the failed command's
            log.
        patterns: The regular expressions. Upper-case and lower-case letters are treated as the same.
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
    """Return the request that retries a failed Bolt run, from the failed command on.

    The request has no `commands`, because Bolt takes the commands from the failed Bolt run.

    Args:
        request: The request that started the failed Bolt run.
        run_id: The id of the failed Bolt run.
    """
    return replace(request.with_options(commands=None), retry_of=run_id, retry_everything=False)
