"""When to try again, and how long to wait first: judgements without I/O; tenacity does the rest."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

import anyio
import tenacity

from paradime_blocks.errors import BoltUnavailable

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]
# Beyond any ceiling, and no number too large.
_MOST_DOUBLINGS = 60


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a request is tried.

    Attributes:
        attempts: How many times it is sent at most, the first included.
        total_seconds: No new attempt begins later than this after the first.
        first_wait_seconds: The wait after the first failure; it doubles with each further one.
        longest_wait_seconds: The ceiling of a wait of our own choice.
        longest_retry_after_seconds: The ceiling up to which `Retry-After` is obeyed to the letter.
        random: Gives the jitter, a number from 0 to 1.
    """

    attempts: int = 6
    total_seconds: float = 60.0
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 15.0
    longest_retry_after_seconds: float = 60.0
    random: Callable[[], float] = field(default=random.random, repr=False)


def should_retry(error: BaseException) -> bool:
    """Whether a failed request is worth sending again, given that sending it twice does no harm."""
    return isinstance(error, BoltUnavailable)


def never_arrived(error: BaseException) -> bool:
    """Whether Bolt cannot have acted on a failed request, so that even a trigger may be sent again."""
    return isinstance(error, BoltUnavailable) and not error.may_have_acted


def next_delay(attempt: int, error: BaseException | None, policy: RetryPolicy) -> float:
    """Return the wait before the next attempt, in seconds.

    Args:
        attempt: How many attempts have failed, from 1.
        error: What the last one failed with.
        policy: The policy.
    """
    asked = error.retry_after_seconds if isinstance(error, BoltUnavailable) else None
    if asked is not None:
        # Not before the time that the server named, and a little after it: not all clients at once.
        return min(asked, policy.longest_retry_after_seconds) + 0.1 * policy.random()
    ceiling = min(
        policy.longest_wait_seconds, policy.first_wait_seconds * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS)
    )
    return ceiling * (0.5 + 0.5 * policy.random())


def parse_date(value: str | None) -> float | None:
    """Read an HTTP date as seconds since the epoch; None when there is none or it cannot be read."""
    try:
        moment = parsedate_to_datetime(value or "")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Read a `Retry-After` header, seconds or an HTTP date, as seconds from now.

    Args:
        value: The header's value.
        now: The present, in UTC; for tests.

    Returns:
        Seconds, not below 0; None when there is no header or it cannot be read.
    """
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        date = parse_date(text)
        if date is None:
            return None
        seconds = date - (now or datetime.now(timezone.utc)).timestamp()
    return max(0.0, seconds) if seconds == seconds else None  # noqa: PLR0124 - a NaN is not a time


async def call_with_retries(
    call: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    retry: Callable[[BaseException], bool] = should_retry,
    sleep: Sleep = anyio.sleep,
) -> T:
    """Call until it succeeds, the error is not worth a retry, or the policy's bounds are reached.

    Args:
        call: What to do.
        policy: How often and how long.
        retry: Which errors are worth another try.
        sleep: How to wait; for tests.

    Returns:
        What the call returned.

    Raises:
        BaseException: The last error of the call itself.
    """

    async def attempt() -> T:
        # Tenacity awaits what is declared async, and a lambda that returns a coroutine is not.
        return await call()

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return next_delay(state.attempt_number, error, policy)

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(retry),
        wait=wait,
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(policy.attempts), tenacity.stop_before_delay(policy.total_seconds)
        ),
        sleep=sleep,
        reraise=True,
    )
    return await retrying(attempt)
