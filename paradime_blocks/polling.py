"""The only poll loop of this package. The loop polls a Bolt run, yields the result of the poll, and sleeps."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.errors import BoltAuthError, BoltError, BoltUnavailable
from paradime_blocks.models import BoltRunStatus
from paradime_blocks.pacing import Progress, next_poll_delay

# The default times of a wait, in seconds; blocks, tasks and flows have parameters for them.
TIMEOUT_SECONDS = 86_400.0
POLL_INTERVAL_SECONDS = 54.0
MAX_OUTAGE_SECONDS = 600.0
CANCEL_GRACE_SECONDS = 60.0
# Few retries for a single poll: the poll loop polls again, and a poll must not last beyond the deadline.
POLL_POLICY = RetryPolicy(attempts=2, total_seconds=5.0)
# The usual duration of a schedule's runs is of use only for longer runs: shorter runs are polled every second.
_USUAL_END_AFTER_SECONDS = 60.0
_LEAST_POLL_SECONDS = 5.0
# A gateway can refuse credentials that Bolt accepts. So a refusal is final only after at least three refusals in a row,
# over at least 60 seconds.
_REFUSED_POLLS = 3
_REFUSED_SECONDS = 60.0


@dataclass(frozen=True)
class Clock:
    """The clock of a wait. Tests replace this clock.

    Attributes:
        monotonic: Returns a time in seconds that never jumps. All waits are measured with this time.
        wall: Returns the time in seconds since 1970. Only times that are stored come from `wall`.
        sleep: Waits for a number of seconds.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep


SYSTEM_CLOCK = Clock()


def system_clock() -> Clock:
    """Return the default clock. Each call looks the clock up again, so that a test of a whole flow can replace it."""
    return SYSTEM_CLOCK


def _poll_limit(deadline: Deadline) -> float | None:
    """Return for how many seconds a poll may last: until the deadline, but at least 5. None if there is no deadline."""
    return None if deadline.remaining is None else max(_LEAST_POLL_SECONDS, deadline.remaining)


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Observation:
    """The result of one poll.

    Attributes:
        status: The run's status; None if the poll failed.
        error: The error, if the poll failed.
        elapsed_seconds: The time since the first poll.
        outage_seconds: The time since the last poll that succeeded; 0 if this poll succeeded.
        past_deadline: Whether the time limit had passed at the end of this poll.
        poll_now: A function that ends the sleep before the next poll. Call it if there is a sign that the run has
            ended.
    """

    status: BoltRunStatus | None
    error: BoltError | None = None
    elapsed_seconds: float = 0.0
    outage_seconds: float = 0.0
    past_deadline: bool = False
    poll_now: Callable[[], None] = field(default=_nothing, repr=False, compare=False)


def asked_to_wait(error: BaseException | None) -> float:
    """Return the wait that Bolt asked for with `Retry-After`, in seconds, at most 60; 0 if Bolt asked for no wait."""
    asked = error.retry_after_seconds if isinstance(error, BoltUnavailable) else None
    return min(asked or 0.0, RetryPolicy.longest_retry_after_seconds)


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
        """Start to measure the time."""
        self._end = None if self.seconds is None else self.clock.monotonic() + self.seconds

    @property
    def remaining(self) -> float | None:
        """The seconds until the deadline: 0 after the deadline, None if there is no limit."""
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
    poll_now: Callable[[], None] = _nothing,
    until_usual_end: Callable[[BoltRunStatus], Awaitable[float | None]] | None = None,
) -> AsyncIterator[Observation]:
    """Poll a run until it has ended.

    The iteration stops after a terminal state. After a failed poll, or after the deadline, the caller decides whether
    to continue.

    Args:
        poll: Fetches the run's status.
        poll_interval_seconds: The longest sleep between two polls.
        deadline: The time limit. The last sleep before the deadline ends at the deadline.
        clock: The clock; tests replace it.
        poll_now: A function that ends the sleep of `clock`.
        until_usual_end: Returns the time until the usual end of the run, in seconds, or None if it is unknown. Called
            only for runs that take more than a minute.

    Yields:
        The result of each poll.

    Raises:
        BoltAuthError: Bolt refused the credentials before any poll had succeeded, or later for at least a minute.
    """
    clock = clock or system_clock()
    began = last_success = clock.monotonic()
    seen = False
    usual: float | None = None
    idle_since: float | None = None
    refused: list[float] = []
    while True:
        status, failure = None, None
        try:
            # When the time limit is reached, a poll that hangs is stopped here.
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
        yield Observation(status, failure, now - began, now - last_success, deadline.passed, poll_now)
        if status is not None and status.state.is_terminal:
            return
        if status is not None:
            idle_since = (idle_since or now) if status.is_idle else None
            if until_usual_end is not None and now - began >= _USUAL_END_AFTER_SECONDS:
                usual = await until_usual_end(status)
        now = clock.monotonic()
        progress = Progress(now - began, usual, None if idle_since is None else now - idle_since)
        remaining = None if deadline.passed else deadline.remaining
        await clock.sleep(next_poll_delay(progress, poll_interval_seconds, remaining, asked_to_wait(failure)))
