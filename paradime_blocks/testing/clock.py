"""The simulator's own time: the real time, multiplied by a speed, plus the seconds that a test adds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone


class Clock:
    """The virtual time. A test can speed up the virtual time, stop it (speed 0) or move it forward.

    The virtual time starts at the real time, so that dates look right to a client that compares them with its own
    clock. The simulator has no timers: whenever a run is read, its state is computed from the virtual time.

    Example:
        >>> clock = Clock(speed=0)
        >>> before = clock.now()
        >>> clock.advance(90)
        >>> (clock.now() - before).total_seconds()
        90.0
    """

    def __init__(self, speed: float = 1.0, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start the clock at the real time of day.

        Args:
            speed: Virtual seconds per real second; 0 stops the clock, so that only `advance` moves it.
            monotonic: A function that returns the real time in seconds.
        """
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._speed = _checked_speed(speed)
        self._mark = monotonic()
        self._at_mark = time.time()

    @property
    def speed(self) -> float:
        """Virtual seconds per real second."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        with self._lock:
            # The time until now passed at the old speed.
            self._at_mark = self._seconds()
            self._mark = self._monotonic()
            self._speed = _checked_speed(speed)

    def advance(self, seconds: float) -> None:
        """Move virtual time forward at once.

        Args:
            seconds: How many seconds to move, at least 0: virtual time cannot go back.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            message = f"Time only moves forward: advance() was given {seconds} seconds."
            raise ValueError(message)
        with self._lock:
            self._at_mark += seconds

    def seconds(self) -> float:
        """Return the virtual time in seconds since 1970."""
        with self._lock:
            return self._seconds()

    def now(self) -> datetime:
        """Return the virtual time as a date in UTC."""
        return as_datetime(self.seconds())

    def _seconds(self) -> float:
        return self._at_mark + (self._monotonic() - self._mark) * self._speed


def as_datetime(seconds: float) -> datetime:
    """Return a time in seconds since 1970 as a date in UTC."""
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


def as_text(seconds: float) -> str:
    """Return a time in seconds since 1970 as text in Bolt's format: in UTC, without a time zone.

    Example:
        >>> as_text(1697388256.986049)
        '2023-10-15 16:44:16.986049'
    """
    return as_datetime(seconds).strftime("%Y-%m-%d %H:%M:%S.%f")


def _checked_speed(speed: float) -> float:
    if speed < 0:
        message = f"Time only moves forward: the speed cannot be {speed}."
        raise ValueError(message)
    return speed
