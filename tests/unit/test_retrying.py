"""When to try again, and how long to wait before, decided without I/O."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paradime_blocks import BoltAuthError, BoltError, BoltRequestError, BoltUnavailable, BoltUnsupported
from paradime_blocks.client.retry import (
    RetryPolicy,
    call_with_retries,
    never_arrived,
    next_delay,
    parse_retry_after,
    should_retry,
)

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=timezone.utc)
NO_JITTER = RetryPolicy(random=lambda: 1.0)
BUSY = BoltUnavailable("Bolt cannot answer now.")


def asking_for(seconds: float) -> BoltUnavailable:
    return BoltUnavailable("Bolt cannot answer now.", retry_after_seconds=seconds)


@pytest.mark.parametrize(
    "error, again, even_a_trigger",
    [
        pytest.param(BoltUnavailable("x"), True, False, id="lost answer"),
        pytest.param(BoltUnavailable("x", may_have_acted=False), True, True, id="never arrived"),
        pytest.param(BoltUnavailable("x", may_still_act=True), True, False, id="may still act"),
        pytest.param(BoltAuthError("x"), False, False, id="bad key"),
        pytest.param(BoltRequestError("x"), False, False, id="refused"),
        pytest.param(BoltUnsupported("x"), False, False, id="unsupported"),
        pytest.param(BoltError("x"), False, False, id="another of ours"),
        pytest.param(OSError("x"), False, False, id="a stranger"),
        pytest.param(KeyboardInterrupt(), False, False, id="interrupt"),
    ],
)
def test_only_a_missing_answer_is_tried_again(error, again, even_a_trigger):
    """A trigger is only repeated if Bolt cannot have seen it."""
    assert (should_retry(error), never_arrived(error)) == (again, even_a_trigger)


@pytest.mark.parametrize(
    "attempt, seconds",
    [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 15.0), (1000, 15.0)],
)
def test_waits_double_up_to_a_ceiling(attempt, seconds):
    """They are patient with a server in trouble, and no number of failures makes them too long."""
    assert next_delay(attempt, BUSY, NO_JITTER) == seconds


@pytest.mark.parametrize(
    "asked, seconds",
    [
        pytest.param(0, 0.1, id="at once"),
        pytest.param(7, 7.1, id="longer than ours"),
        pytest.param(60, 60.1, id="at the ceiling"),
        pytest.param(86_400, 60.1, id="beyond the ceiling"),
    ],
)
def test_retry_after_replaces_our_own_wait(asked, seconds):
    """The server knows better, up to a ceiling."""
    assert next_delay(3, asking_for(asked), NO_JITTER) == pytest.approx(seconds)


@given(
    attempt=st.integers(1, 2000),
    jitter=st.floats(0, 1),
    asked=st.none() | st.floats(0, allow_nan=False),
)
def test_a_wait_is_bounded_and_never_shorter_than_the_server_asked(attempt, jitter, asked):
    """This holds for any value from the server and any random value."""
    policy = RetryPolicy(random=lambda: jitter)
    delay = next_delay(attempt, BoltUnavailable("x", retry_after_seconds=asked), policy)
    assert 0 < delay <= 60.1 if asked is None else min(asked, 60) <= delay <= 60.1


def test_jitter_spreads_clients_that_failed_together():
    """Half of the wait is fixed, the other half is random."""
    delays = [next_delay(3, BUSY, RetryPolicy(random=lambda share=share: share)) for share in (0.0, 0.5, 1.0)]
    assert delays == [1.0, 1.5, 2.0]


@pytest.mark.parametrize(
    "value, seconds",
    [
        pytest.param(None, None, id="no header"),
        pytest.param("7", 7.0, id="seconds"),
        pytest.param(" 7 ", 7.0, id="space around"),
        pytest.param("1.5", 1.5, id="fraction"),
        pytest.param("0", 0.0, id="zero"),
        pytest.param("-3", 0.0, id="negative"),
        pytest.param("nan", None, id="not a number"),
        pytest.param("soon", None, id="words"),
        pytest.param("", None, id="empty"),
        pytest.param("Tue, 24 Nov 2026 12:00:30 GMT", 30.0, id="HTTP date"),
        pytest.param("Tue, 24 Nov 2026 14:00:30 +0200", 30.0, id="date with a zone"),
        pytest.param("Tue, 24 Nov 2026 12:00:30", 30.0, id="date without a zone"),
        pytest.param("Tue, 24 Nov 2026 11:59:00 GMT", 0.0, id="date in the past"),
        pytest.param("Tue, 24 Nov 99999999999999999999 12:00:00 GMT", None, id="date beyond the calendar"),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value, seconds):
    """Both forms of HTTP are accepted; anything else is ignored."""
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@example("1 Jan 2026 00:00:00 +99999999999999999999")
def test_no_retry_after_header_breaks_the_client(value):
    """Whatever a proxy writes there, the result is seconds or nothing."""
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or seconds >= 0


@given(st.integers(0, 10**6))
def test_an_http_date_means_the_same_as_the_seconds_up_to_it(seconds):
    """The two forms agree."""
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(date, NOW) == parse_retry_after(str(seconds), NOW)


class Flaky:
    """Fails with each of the errors in turn, and then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_a_call_is_repeated_until_it_succeeds(naps):
    """The waits between the attempts grow."""
    flaky = Flaky(BUSY, BUSY, BUSY)
    assert await call_with_retries(flaky, NO_JITTER, sleep=naps) == "done"
    assert (flaky.calls, naps) == (4, [0.5, 1.0, 2.0])


async def test_attempts_are_limited_and_the_last_error_is_raised(naps):
    """It is raised unchanged, not wrapped in a library's error."""
    errors = [BoltUnavailable(f"failure {n}") for n in range(10)]
    flaky = Flaky(*errors)
    with pytest.raises(BoltUnavailable) as caught:
        await call_with_retries(flaky, RetryPolicy(attempts=3), sleep=naps)
    assert caught.value is errors[2]
    assert (flaky.calls, len(naps)) == (3, 2)


async def test_no_attempt_starts_after_the_total_time(naps):
    """A wait that would end too late does not start."""
    flaky = Flaky(*[BUSY] * 9)
    policy = RetryPolicy(attempts=9, total_seconds=5.0, random=lambda: 1.0)
    with pytest.raises(BoltUnavailable):
        await call_with_retries(flaky, policy, sleep=naps)
    assert naps == [0.5, 1.0, 2.0, 4.0]


async def test_a_retry_after_beyond_the_total_time_is_not_waited_for(naps):
    """The caller gets the error at once if Bolt is unavailable for that long."""
    flaky = Flaky(asking_for(30), asking_for(30))
    with pytest.raises(BoltUnavailable):
        await call_with_retries(flaky, RetryPolicy(total_seconds=10), sleep=naps)
    assert (flaky.calls, naps) == (1, [])


@pytest.mark.parametrize("error", [BoltAuthError("no"), BoltRequestError("no"), RuntimeError("no")])
async def test_a_permanent_error_is_not_tried_again(naps, error):
    """The error is raised unchanged."""
    flaky = Flaky(error)
    with pytest.raises(type(error)) as caught:
        await call_with_retries(flaky, NO_JITTER, sleep=naps)
    assert caught.value is error
    assert (flaky.calls, naps) == (1, [])
