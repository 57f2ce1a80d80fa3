"""Cron in words."""

from __future__ import annotations

import pytest

from paradime_flows.cron_words import cron_in_words


@pytest.mark.parametrize(
    "cron, words",
    [
        (None, "no timer"),
        ("OFF", "no timer"),
        ("0 3 * * *", "at 03:00"),
        ("30 6 * * 1-5", "Monday to Friday at 06:30"),
        ("30 6 * * MON-FRI", "Monday to Friday at 06:30"),
        ("0 6,18 * * *", "at 06:00, 18:00"),
        ("0 6 * * 1,3", "Monday and Wednesday at 06:00"),
        ("0 6 * * 0", "Sunday at 06:00"),
        ("0 6 1,15 * *", "on day 1 and 15 of the month at 06:00"),
        ("*/15 * * * *", "every 15 minutes"),
        ("*/15 8-17 * * *", "every 15 minutes from 08:00 to 17:59"),
        ("0 * * * *", "every hour"),
        ("5 * * * *", "every hour at 5 past"),
        ("0 */2 * * *", "every 2 hours"),
        ("0 8-17 * * 1-5", "Monday to Friday every hour from 08:00 to 17:59"),
        ("@daily", "at 00:00"),
        ("* * * * *", "every minute"),
        ("0 6 1 1 *", "0 6 1 1 *"),
        ("0 6 * * 1#1", "0 6 * * 1#1"),
        ("1-5 6 * * *", "1-5 6 * * *"),
        ("nonsense", "nonsense"),
    ],
)
def test_common_shapes_are_told_in_words_and_others_as_they_are(cron: str | None, words: str) -> None:
    """A shape that is not known must not be told wrongly."""
    assert cron_in_words(cron) == words
