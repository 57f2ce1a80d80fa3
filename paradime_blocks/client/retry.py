"""Decides whether to send a request again, and how long to wait before. The library tenacity does the retries."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

import anyio

from paradime_blocks.errors import BoltUnavailable

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]
# The wait doubles at most this many times. Then the wait is longer than any limit, but not too large for a float.
_MOST_DOUBLINGS = 60


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a request is tried.

    Attributes:
        attempts: How many times the request is sent at most, including the first time.
        total_seconds: How many seconds after the first attempt a new attempt may begin at the latest.
        first_wait_seconds: The wait after the first failure. The wait doubles with each further failure.
        longest_wait_seconds: The longest wait, if the server asks for no wait.
        longest_retry_after_seconds: The longest wait, if the server asks for a wait with the header `Retry-After`.
        random: A function that returns the random part of a wait, a number from 0 to 1.
    """

    attempts: int = 6
    total_seconds: float = 60.0
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 15.0
    longest_retry_after_seconds: float = 60.0
    random: Callable[[], float] = field(default=random.random, repr=False)


def should_retry(error: BaseException) -> bool:
    """Whether to send a failed request again, if the request is safe to repeat."""
    return isinstance(error, BoltUnavailable)


def never_arrived(error: BaseException) -> bool:
    """Whether it is certain that Bolt did nothing for a failed request. If so, even a trigger may be sent again."""
    return isinstance(error, BoltUnavailable) and not error.may_have_acted


def next_delay(attempt: int, error: BaseException | None, policy: RetryPolicy) -> float:
    """Return the wait before the next attempt, in seconds.

    Args:
        attempt: The number of attempts that have failed, 1 or more.
        error: The error of the last attempt.
        policy: The limits of the wait.
    """
    asked = error.retry_after_seconds if isinstance(error, BoltUnavailable) else None
    if asked is not None:
        # The wait is a little longer than the server asked for, so that not all clients send at the same moment.
        return min(asked, policy.longest_retry_after_seconds) + 0.1 * policy.random()
    ceiling = min(
        policy.longest_wait_seconds, policy.first_wait_seconds * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS)
    )
    return ceiling * (0.5 + 0.5 * policy.random())


def parse_date(value: str | None) -> float | None:
    """Return an HTTP date in seconds since 1970; None if there is no date, or the date cannot be read."""
    try:
        moment = parsedate_to_datetime(value or "")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the wait that a `Retry-After` header asks for, in seconds. The header has seconds or an HTTP date.

    Args:
        value: The header's value.
        now: The current time in UTC. Only tests set it.

    Returns:
        The wait in seconds, at least 0; None if there is no header, or the header cannot be read.
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
    """Call a function until it succeeds, until `retry` rejects its error, or until a limit of the policy is reached.

    Args:
        call: The async function.
        policy: How often and how long to try.
        retry: A function that takes an error and says whether to call again.
        sleep: Waits between two tries. Tests replace this function.

    Returns:
        The result of the call.

    Raises:
        BaseException: The error of the last call.
    """
    # Tenacity imports many modules, and is not needed before the first request.
    import tenacity  # noqa: PLC0415

    async def attempt() -> T:
        # Tenacity awaits only a function that is declared with `async`. A lambda that returns a coroutine is no such
        # function.
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
