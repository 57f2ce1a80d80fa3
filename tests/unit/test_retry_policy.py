"""Which failures are retried, and what is left to do after one."""

from __future__ import annotations

import pytest

from paradime_blocks import BoltRunFailed
from paradime_flows.retry_policy import (
    DEFAULT_NON_RETRYABLE_ERRORS,
    check_pattern,
    why_not_retry,
)


@pytest.mark.parametrize(
    "log",
    [
        "Compilation Error in model orders (models/orders.sql)\n  'stg' is undefined",
        "Encountered an error:\nParsing Error at path: models/schema.yml",
        "Runtime Error\n  Could not find profile named 'shop'",
        "Env var required but not provided: 'SNOWFLAKE_PASSWORD'",
        "001003 (42000): SQL compilation error: error line 1",
        'psycopg2.errors.SyntaxError: syntax error at or near "selct"',
        "250001 (08001): Incorrect username or password was specified.",
        'FATAL: password authentication failed for user "bolt"',
        "Insufficient privileges to operate on schema 'MARTS'",
        "ERROR: permission denied for relation orders",
        "fatal: Remote branch feature/x not found in upstream origin",
        "git@github.com: Permission denied (publickey).",
        "Error: No such command 'bulid'.",
    ],
)
def test_a_failure_that_only_a_person_can_fix_is_not_retried(log: str) -> None:
    """The reason is the line of the log that says so."""
    reason = why_not_retry(BoltRunFailed("It failed.", log_tail=log), DEFAULT_NON_RETRYABLE_ERRORS)
    assert reason is not None
    assert reason in log


@pytest.mark.parametrize(
    "log",
    [
        None,
        "Database Error in model orders\n  connection reset by peer",
        "Got 3 results, configured to fail if != 0",
        "Statement reached its statement or warehouse timeout and was canceled.",
        "503 Service Unavailable",
        "could not serialize access due to concurrent update",
    ],
)
def test_a_failure_that_may_pass_is_retried(log: str | None) -> None:
    """Outages, late data, and failures without a reason."""
    assert why_not_retry(BoltRunFailed("It failed.", log_tail=log), DEFAULT_NON_RETRYABLE_ERRORS) is None


def test_dbts_own_errors_count_as_the_log_does() -> None:
    """They may be missing in the end of the log."""
    error = BoltRunFailed("It failed.", dbt_errors=["model.shop.orders: Compilation Error: no such column"])
    assert why_not_retry(error, DEFAULT_NON_RETRYABLE_ERRORS) is not None
    assert why_not_retry(error, ["quota"]) is None
    assert why_not_retry(error, []) is None


@pytest.mark.parametrize("pattern", ["(", "", "  "])
def test_an_invalid_pattern_is_refused(pattern: str) -> None:
    """Nothing is sent before."""
    with pytest.raises(ValueError, match=r"not a valid regular expression|the pattern is empty"):
        check_pattern(pattern)
