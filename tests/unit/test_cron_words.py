"""Cron in words."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paradime_flows.reporting.cron_words import cron_in_words


@pytest.mark.parametrize(
    "cron, words",
    [
        (None, "no timer"),
        (" ", "no timer"),
        ("OFF", "no timer"),
        ("0 3 * * *", "At 03:00 every day"),
        ("30 6 * * 1-5", "At 06:30 on Monday through Friday"),
        ("30 6 * * MON-FRI", "At 06:30 on Monday through Friday"),
        ("0 6,18 * * *", "At 06:00 and 18:00 every day"),
        ("0 6 * * 0", "At 06:00 on Sunday"),
        ("0 6 * * 7", "At 06:00 on Sunday"),
        ("0 6 ? * Mon", "At 06:00 on Monday"),
        ("0 6 1,15 * ?", "At 06:00 on the first and the 15th day of month"),
        ("0 6 12,22 * *", "At 06:00 on the 12th and the 22nd day of month"),
        ("0 6 1 jan,JUL *", "At 06:00 on the first day of January and July"),
        ("*/15 * * * *", "Every 15th minute of every hour"),
        ("*/15 8-17 * * *", "Every 15th minute from 08:00 through 17:59"),
        ("5,35 * * * *", "At minutes 5 and 35 of every hour"),
        ("0 * * * *", "At the start of every hour"),
        ("0 */2 * * *", "At minute 0 past every second hour"),
        ("0 6-18/2 * * *", "At minute 0 past every second hour from 6 through 18"),
        ("* * * * *", "Every minute"),
        ("*/1 * * * *", "Every minute"),
        ("@daily", "At 00:00 every day"),
        ("@Yearly", "At 00:00 on January 1"),
        ("0 6 * * 1#1", "At 06:00 on the first Monday of the month"),
        ("\x1b[31m0 3 * * *\x1b[0m", "At 03:00 every day"),
    ],
)
def test_a_cron_is_described_in_words(cron: str | None, words: str) -> None:
    """It covers lists, ranges, steps, names and macros."""
    assert cron_in_words(cron) == words


@pytest.mark.parametrize(
    "cron, words",
    [
        ("*/45 * * * *", "At minutes 0 and 45 of every hour"),
        ("0-59/45 * * * *", "At minutes 0 and 45 of every hour"),
        ("0/45,50 * * * *", "At minutes 0, 45, and 50 of every hour"),
        ("*/60 * * * *", "At the start of every hour"),
        ("0 */5 * * *", "At minute 0 past hours 0, 5, 10, 15, and 20"),
        ("0 6 * * */2", "At 06:00 on Sunday, Tuesday, Thursday, and Saturday"),
        ("0 6 1 */5 *", "At 06:00 on the first day of January, June, and November"),
        ("*/7 * * * *", "*/7 * * * *"),
        ("0 6 */2 * *", "0 6 */2 * *"),
    ],
)
def test_an_uneven_step_is_not_described_as_even(cron: str, words: str) -> None:
    """Cron starts again with each hour, day, month and week."""
    assert cron_in_words(cron) == words


@pytest.mark.parametrize(
    "cron",
    [
        pytest.param("0 6 15 * 5", id="a day and a weekday: crons differ on either or both"),
        pytest.param("0 3 31 2 *", id="never"),
        pytest.param("0 0 3 * * *", id="seconds, or years"),
        pytest.param("@reboot", id="unknown macro"),
        pytest.param("*/0 * * * *", id="no step"),
        pytest.param("nonsense", id="nonsense"),
    ],
)
def test_an_unknown_cron_is_shown_unchanged(cron: str) -> None:
    """A wrong description would be worse."""
    assert cron_in_words(cron) == cron


FIELD = st.text("0123456789*/,-?#LWMONJA@\x1b[m ٣", max_size=8)


@given(st.one_of(st.text(max_size=50), st.lists(FIELD, min_size=5, max_size=5).map(" ".join)))
@example("x" * 300)
@example("1,2,3,4,5,6,7,8,9,10 " * 40)
def test_any_cron_becomes_one_clean_short_line(cron: str) -> None:
    """It comes from Bolt, and is shown in a table."""
    words = cron_in_words(cron)
    assert words
    assert len(words) <= 200
    assert re.search(r"[\x00-\x1f\x7f\n]", words) is None
