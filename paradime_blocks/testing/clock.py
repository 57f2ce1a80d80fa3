"""The simulator's own time: real time, times a speed, plus whatever a test adds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone


class Clock:
    """Virtual time. A test can speed it up, stop it (speed 0) or move it forward.

    It starts at the real time of day, so that dates look right to a client that compares them with its own clock.
    Nothing ticks: the state is computed from the time whenever it is read.

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
            monotonic: The source of real time.
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
            seconds: How far. It cannot be negative, since nothing can be undone.

        Raises:
            ValueError: If `seconds` is negative.
        """
        if seconds < 0:
            message = f"Time only moves forward: advance() was given {seconds} seconds."
            raise ValueError(message)
        with self._lock:
            self._at_mark += seconds

    def seconds(self) -> float:
        """Virtual time as seconds since 1970."""
        with self._lock:
            return self._seconds()

    def now(self) -> datetime:
        """Virtual time as a date in UTC."""
        return as_datetime(self.seconds())

    def _seconds(self) -> float:
        return self._at_mark + (self._monotonic() - self._mark) * self._speed


def as_datetime(seconds: float) -> datetime:
    """Seconds since 1970 as a date in UTC."""
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


def as_text(seconds: float) -> str:
    """Seconds since 1970 in Bolt's date format: UTC, no zone, a space in the middle.

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
