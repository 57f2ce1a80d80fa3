"""The only poll loop: look, decide, then sleep. Whoever waits consumes it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.errors import BoltAuthError, BoltError, BoltUnavailable
from paradime_blocks.models import BoltRunStatus

# The poll loop tries again by itself, and goes by the deadline; a poll must not be longer than it.
POLL_POLICY = RetryPolicy(attempts=2, total_seconds=5.0)
_FIRST_DELAY_SECONDS = 0.5
_SHARE_OF_ELAPSED = 0.1
_LEAST_LOOK_SECONDS = 5.0
# A gateway can refuse credentials that Bolt takes: how often in a row, and for how long, until it is believed.
_REFUSED_LOOKS = 3
_REFUSED_SECONDS = 60.0


@dataclass(frozen=True)
class Clock:
    """The time as a wait sees it; all of it is replaceable in tests.

    Attributes:
        monotonic: Seconds that never jump; all waiting is measured with it.
        wall: Seconds since the epoch, only for what must survive a restart.
        sleep: How to wait.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep


SYSTEM_CLOCK = Clock()


def system_clock() -> Clock:
    """Return the clock of whoever is given none; looked up late, so that a test of a whole flow can speed it up."""
    return SYSTEM_CLOCK


def _look_limit(deadline: Deadline) -> float | None:
    """Return how long a look may take, in seconds: to the deadline, and past it long enough for one answer."""
    return None if deadline.remaining is None else max(_LEAST_LOOK_SECONDS, deadline.remaining)


@dataclass(frozen=True)
class Observation:
    """What one look at a run gave.

    Attributes:
        status: The run's status; None if the look failed.
        error: Why the look failed.
        elapsed_seconds: Since the first look.
        outage_seconds: Since the last look that succeeded; 0 if this one did.
        past_deadline: Whether the time limit had passed by the end of this look.
    """

    status: BoltRunStatus | None
    error: BoltError | None = None
    elapsed_seconds: float = 0.0
    outage_seconds: float = 0.0
    past_deadline: bool = False


def asked_to_wait(error: BaseException | None) -> float:
    """Return how long Bolt asked us to stay away (`Retry-After`), in seconds, up to a minute; 0 if it did not."""
    asked = error.retry_after_seconds if isinstance(error, BoltUnavailable) else None
    return min(asked or 0.0, RetryPolicy.longest_retry_after_seconds)


def next_poll_delay(
    elapsed_seconds: float,
    ceiling_seconds: float,
    remaining_seconds: float | None,
    asked_seconds: float = 0.0,
) -> float:
    """Return how long to sleep before the next look.

    A tenth of the time already waited: quick at first, slower as the run goes on, so that the end of a run is
    seen late by a tenth of its length at most. The last sleep ends at the deadline.

    Args:
        elapsed_seconds: Time since the first look.
        ceiling_seconds: The longest sleep.
        remaining_seconds: Time to the deadline; None without one.
        asked_seconds: How long Bolt asked us to stay away, which may be longer than the longest sleep.
    """
    delay = min(ceiling_seconds, max(_FIRST_DELAY_SECONDS, _SHARE_OF_ELAPSED * elapsed_seconds))
    delay = max(delay, asked_seconds)
    return delay if remaining_seconds is None else max(0.0, min(delay, remaining_seconds))


@dataclass
class Deadline:
    """A time limit that survives restarts and does not mind clocks that jump.

    Attributes:
        seconds: Time left when it was made; None for no limit.
        clock: The clock.
    """

    seconds: float | None
    clock: Clock = field(default_factory=system_clock)

    def __post_init__(self) -> None:
        """Start counting."""
        self._end = None if self.seconds is None else self.clock.monotonic() + self.seconds

    @property
    def remaining(self) -> float | None:
        """Seconds left, 0 once it has passed; None for no limit."""
        return None if self._end is None else max(0.0, self._end - self.clock.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the limit is reached."""
        remaining = self.remaining
        return remaining is not None and remaining <= 0


async def observe(
    look: Callable[[], Awaitable[BoltRunStatus]],
    *,
    poll_interval_seconds: float,
    deadline: Deadline,
    clock: Clock | None = None,
) -> AsyncIterator[Observation]:
    """Look at a run again and again until it has ended.

    The iteration stops by itself after the observation of a terminal state. Whether to go on after a failed look
    or past the deadline is the consumer's to decide: each observation says what there is to know.

    Args:
        look: Fetches the run's status.
        poll_interval_seconds: The longest sleep between two looks.
        deadline: The time limit; the last sleep before it ends at it.
        clock: The time; for tests.

    Yields:
        What each look gave.

    Raises:
        BoltAuthError: The credentials are refused before the run has been seen, or for a minute after that.
    """
    clock = clock or system_clock()
    began = last_good = clock.monotonic()
    seen = False
    refused: list[float] = []
    while True:
        status, failure = None, None
        try:
            # A look that hangs must not carry the wait past its deadline.
            with anyio.move_on_after(_look_limit(deadline)):
                status = await look()
        except BoltError as error:
            # The run exists, so whatever Bolt says instead of its state is an outage, never an end.
            failure = error
        now = clock.monotonic()
        refused = [*refused, now] if isinstance(failure, BoltAuthError) else []
        for_good = len(refused) >= _REFUSED_LOOKS and now - refused[0] >= _REFUSED_SECONDS
        if failure is not None and refused and (for_good or not seen):
            raise failure
        if status is not None:
            last_good, seen = now, True
        yield Observation(status, failure, now - began, now - last_good, deadline.passed)
        if status is not None and status.state.is_terminal:
            return
        elapsed = clock.monotonic() - began
        remaining = None if deadline.passed else deadline.remaining
        await clock.sleep(next_poll_delay(elapsed, poll_interval_seconds, remaining, asked_to_wait(failure)))
