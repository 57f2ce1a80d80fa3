"""The only poll loop: it polls, yields the result, and sleeps."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.errors import BoltAuthError, BoltError, BoltUnavailable
from paradime_blocks.models import BoltRunStatus

# The default times of a wait, in seconds; blocks, tasks and flows have parameters for them.
TIMEOUT_SECONDS = 86_400.0
POLL_INTERVAL_SECONDS = 15.0
MAX_OUTAGE_SECONDS = 600.0
CANCEL_GRACE_SECONDS = 60.0
# Few retries for a single poll: the poll loop polls again, and a poll must not last beyond the deadline.
POLL_POLICY = RetryPolicy(attempts=2, total_seconds=5.0)
_FIRST_DELAY_SECONDS = 0.5
_SHARE_OF_ELAPSED = 0.1
_LEAST_POLL_SECONDS = 5.0
# A gateway can refuse credentials that Bolt accepts. A refusal is final after so many refusals in a row that last so
# long.
_REFUSED_POLLS = 3
_REFUSED_SECONDS = 60.0


@dataclass(frozen=True)
class Clock:
    """The clock of a wait; tests replace it.

    Attributes:
        monotonic: Returns seconds that never jump; each wait is measured with them.
        wall: Returns seconds since the epoch, only for times that are stored.
        sleep: How to wait.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep


SYSTEM_CLOCK = Clock()


def system_clock() -> Clock:
    """Return the default clock. It is looked up at each call, so that a test of a whole flow can replace it."""
    return SYSTEM_CLOCK


def _poll_limit(deadline: Deadline) -> float | None:
    """Return how long a poll may take, in seconds: until the deadline, but at least 5 s for one answer."""
    return None if deadline.remaining is None else max(_LEAST_POLL_SECONDS, deadline.remaining)


@dataclass(frozen=True)
class Observation:
    """The result of one poll.

    Attributes:
        status: The run's status; None if the poll failed.
        error: The error, if the poll failed.
        elapsed_seconds: The time since the first poll.
        outage_seconds: The time since the last poll that succeeded; 0 if this one did.
        past_deadline: Whether the time limit had passed at the end of this poll.
    """

    status: BoltRunStatus | None
    error: BoltError | None = None
    elapsed_seconds: float = 0.0
    outage_seconds: float = 0.0
    past_deadline: bool = False


def asked_to_wait(error: BaseException | None) -> float:
    """Return the wait that Bolt asked for with `Retry-After`, in seconds, at most 60; 0 if Bolt asked for none."""
    asked = error.retry_after_seconds if isinstance(error, BoltUnavailable) else None
    return min(asked or 0.0, RetryPolicy.longest_retry_after_seconds)


def next_poll_delay(
    elapsed_seconds: float,
    ceiling_seconds: float,
    remaining_seconds: float | None,
    asked_seconds: float = 0.0,
) -> float:
    """Return how long to sleep before the next poll.

    The sleep is a tenth of the time since the first poll. So new runs are polled more often. The end of a run is
    noticed late by about a tenth of the time waited, at most. The last sleep ends at the deadline.

    Args:
        elapsed_seconds: The time since the first poll.
        ceiling_seconds: The longest sleep.
        remaining_seconds: The time until the deadline; None if there is no deadline.
        asked_seconds: The wait that Bolt asked for; it may be longer than the longest sleep.
    """
    delay = min(ceiling_seconds, max(_FIRST_DELAY_SECONDS, _SHARE_OF_ELAPSED * elapsed_seconds))
    delay = max(delay, asked_seconds)
    return delay if remaining_seconds is None else max(0.0, min(delay, remaining_seconds))


@dataclass
class Deadline:
    """A time limit that does not depend on the wall clock.

    Attributes:
        seconds: The time limit, counted from the creation of this object; None for no limit.
        clock: The clock.
    """

    seconds: float | None
    clock: Clock = field(default_factory=system_clock)

    def __post_init__(self) -> None:
        """Start counting."""
        self._end = None if self.seconds is None else self.clock.monotonic() + self.seconds

    @property
    def remaining(self) -> float | None:
        """The seconds left, 0 after the deadline; None for no limit."""
        return None if self._end is None else max(0.0, self._end - self.clock.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the deadline has passed."""
        remaining = self.remaining
        return remaining is not None and remaining <= 0


async def observe(
    poll: Callable[[], Awaitable[BoltRunStatus]],
    *,
    poll_interval_seconds: float,
    deadline: Deadline,
    clock: Clock | None = None,
) -> AsyncIterator[Observation]:
    """Poll a run until it has ended.

    The iteration stops after a terminal state. After a failed poll, or after the deadline, the caller decides whether
    to continue.

    Args:
        poll: Fetches the run's status.
        poll_interval_seconds: The longest sleep between two polls.
        deadline: The time limit. The last sleep before the deadline ends at the deadline.
        clock: The time; for tests.

    Yields:
        The result of each poll.

    Raises:
        BoltAuthError: Bolt refused the credentials before the first poll that succeeded, or for a minute later on.
    """
    clock = clock or system_clock()
    began = last_success = clock.monotonic()
    seen = False
    refused: list[float] = []
    while True:
        status, failure = None, None
        try:
            # A poll that hangs must not continue after the deadline.
            with anyio.move_on_after(_poll_limit(deadline)):
                status = await poll()
        except BoltError as error:
            # The run exists. So an error instead of its state is an outage, and does not mean that the run has ended.
            failure = error
        now = clock.monotonic()
        refused = [*refused, now] if isinstance(failure, BoltAuthError) else []
        is_final = len(refused) >= _REFUSED_POLLS and now - refused[0] >= _REFUSED_SECONDS
        if failure is not None and refused and (is_final or not seen):
            raise failure
        if status is not None:
            last_success, seen = now, True
        yield Observation(status, failure, now - began, now - last_success, deadline.passed)
        if status is not None and status.state.is_terminal:
            return
        elapsed = clock.monotonic() - began
        remaining = None if deadline.passed else deadline.remaining
        await clock.sleep(next_poll_delay(elapsed, poll_interval_seconds, remaining, asked_to_wait(failure)))
