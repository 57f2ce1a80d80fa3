"""Virtual time."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from paradime_blocks.testing import Clock


class Real:
    """Real time, controlled by a test."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_virtual_time_starts_at_the_real_time_of_day() -> None:
    """A client that compares Bolt's dates with its own clock finds them about right."""
    assert abs(Clock(speed=0).seconds() - time.time()) < 60


def test_speed_multiplies_real_time() -> None:
    """At speed 60, a minute passes in a second."""
    real = Real()
    clock = Clock(60, monotonic=real)
    before = clock.now()
    real.seconds += 1
    assert clock.now() - before == timedelta(minutes=1)


def test_a_new_speed_does_not_change_the_time_already_passed() -> None:
    """A change of speed causes no jump, forwards or backwards."""
    real = Real()
    clock = Clock(2, monotonic=real)
    before = clock.now()
    real.seconds += 10
    clock.speed = 100
    assert clock.now() - before == timedelta(seconds=20)
    real.seconds += 1
    assert clock.now() - before == timedelta(seconds=120)


def test_advance_moves_a_stopped_clock() -> None:
    """At speed 0 only `advance` moves time."""
    real = Real()
    clock = Clock(0, monotonic=real)
    before = clock.now()
    real.seconds += 1000
    clock.advance(5)
    assert clock.now() - before == timedelta(seconds=5)


def test_time_never_goes_back() -> None:
    """Negative steps and speeds are refused."""
    clock = Clock()
    with pytest.raises(ValueError, match="only moves forward"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="only moves forward"):
        clock.speed = -1
