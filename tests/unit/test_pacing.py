"""When a run is polled: how late its end is noticed, and how many polls that takes. No test sleeps."""

from __future__ import annotations

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paradime_blocks.pacing import Progress, next_poll_delay
from paradime_blocks.polling import POLL_INTERVAL_SECONDS

HOUR = 3600.0


def polls(length: float, usual: float | None = None, ceiling: float = POLL_INTERVAL_SECONDS) -> list[float]:
    """The times of the polls of a run that takes this long; the last one finds that it has ended."""
    times = [0.0]
    while times[-1] < length:
        until_end = None if usual is None else usual - times[-1]
        times.append(times[-1] + next_poll_delay(Progress(times[-1], until_end), ceiling, None))
    return times


def delay(length: float, usual: float | None = None) -> float:
    """The median of how late the end is noticed, of runs that take about this long."""
    lengths = [length * (1 + n / 400) for n in range(-20, 21)]
    return median(polls(each, usual)[-1] - each for each in lengths)


@pytest.mark.parametrize("length", [1, 5, 8, 15, 25, 40, 55])
def test_the_end_of_a_short_run_is_noticed_within_half_a_second(length) -> None:
    """The median, whatever is known."""
    assert delay(length) < 0.55


@pytest.mark.parametrize("length", [65, 80, 100])
def test_the_end_of_a_run_of_a_minute_or_two_is_noticed_within_a_hundredth(length) -> None:
    """The median, although the usual duration is unknown."""
    assert delay(length) <= 0.011 * length


@pytest.mark.parametrize("length", [150, 300, 600, 1800, HOUR])
def test_the_end_of_a_longer_run_is_noticed_later(length) -> None:
    """The median is at most three hundredths, and never more than half a minute."""
    assert delay(length) <= min(0.03 * length, 30)


@pytest.mark.parametrize("length", [70, 120, 300, 600, 1000])
def test_a_usual_end_is_noticed_within_a_second_or_so(length) -> None:
    """Runs that take as long as they usually do, give or take a twentieth."""
    assert delay(length, usual=length) < 2
    assert polls(length, usual=length)[-1] - length <= 2


@pytest.mark.parametrize("usual", [None, HOUR, 0.9 * HOUR, 2 * HOUR, 300])
def test_an_hour_takes_at_most_two_hundred_polls(usual) -> None:
    """More only if the run takes much longer than usual."""
    assert len(polls(HOUR, usual)) <= 200 if usual != 0.9 * HOUR else 215


@given(st.floats(0, 1e7), st.floats(0.5, 3600), st.one_of(st.none(), st.floats(-1e6, 1e6)), st.floats(0, 1e6))
def test_a_sleep_is_bounded_and_never_gets_shorter(elapsed, ceiling, remaining, more) -> None:
    """Never longer than the ceiling or the deadline, never negative; it grows while the run continues."""
    found = next_poll_delay(Progress(elapsed), ceiling, remaining)
    assert 0 <= found <= ceiling
    if remaining is not None:
        assert found <= max(0.0, remaining)
    assert next_poll_delay(Progress(elapsed + more), ceiling, remaining) >= found


@given(st.floats(0, 1e6), st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(0.5, 3600))
def test_what_is_known_never_makes_a_sleep_too_short_or_too_long(elapsed, until_end, idle, ceiling) -> None:
    """At least half a second, unless the caller wants less; at most the ceiling."""
    assert 0.5 <= next_poll_delay(Progress(elapsed, until_end, idle), ceiling, None) <= ceiling


def test_a_run_without_a_running_command_is_polled_often() -> None:
    """Its next command begins soon, or it ends: also after hours. If this lasts, the polls become rare again."""
    found = [next_poll_delay(Progress(9000, None, idle), 54, None) for idle in (None, 0, 5, 60, 9000)]
    assert found == [54, 0.5, 0.5, 6, 54]


def test_a_poll_waits_as_long_as_bolt_asks() -> None:
    """Also longer than the ceiling, but not beyond the deadline."""
    assert next_poll_delay(Progress(0), 10, None, asked_seconds=30) == 30
    assert next_poll_delay(Progress(0), 10, 20, asked_seconds=30) == 20
