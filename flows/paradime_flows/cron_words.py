"""A cron expression in words, for the shapes that people use; any other stands as it is."""

from __future__ import annotations

import re
from typing import Final

_DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DAY_NAMES: Final = {day[:3].upper(): str(number) for number, day in enumerate(_DAYS[:7])}
_MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
_FIELDS: Final = 5


def cron_in_words(cron: str | None) -> str:
    """Return a cron expression in words, such as "Monday to Friday at 06:30"; Bolt's times are UTC.

    Args:
        cron: The expression; None, empty or `OFF` for a schedule without a timer.
    """
    text = " ".join((cron or "").split())
    if not text or text.upper() == "OFF":
        return "no timer"
    fields = _MACROS.get(text.lower(), text).split()
    if len(fields) != _FIELDS:
        return text
    minute, hour, day, month, weekday = fields
    when = _days(day, month, weekday)
    time = _time(minute, hour)
    return text if when is None or time is None else " ".join(part for part in (when, time) if part)


def _time(minute: str, hour: str) -> str | None:
    """Return the time of the day in words; None for a shape that is not known."""
    if (minute, hour) == ("*", "*"):
        return "every minute"
    if match := re.fullmatch(r"\*/(\d+)", minute):
        within = "" if hour == "*" else _hours(hour)
        return None if within is None else f"every {int(match[1])} minutes{within}"
    return _on_the_minute(int(minute), hour) if minute.isdigit() else None


def _on_the_minute(minute: int, hour: str) -> str | None:
    past = f" at {minute} past" if minute else ""
    if re.fullmatch(r"\d+(,\d+)*", hour):
        return "at " + ", ".join(f"{int(each):02}:{minute:02}" for each in hour.split(","))
    if hour == "*":
        return f"every hour{past}"
    if match := re.fullmatch(r"\*/(\d+)", hour):
        return f"every {int(match[1])} hours{past}"
    within = _hours(hour)
    return None if within is None else f"every hour{within}{past}"


def _hours(hour: str) -> str | None:
    match = re.fullmatch(r"(\d+)-(\d+)", hour)
    return f" from {int(match[1]):02}:00 to {int(match[2]):02}:59" if match else None


def _days(day: str, month: str, weekday: str) -> str | None:
    """Return the days in words, empty for every day; None for a shape that is not known."""
    if (day, month, weekday) == ("*", "*", "*"):
        return ""
    if weekday == month == "*" and re.fullmatch(r"\d+(,\d+)*", day):
        return f"on day {' and '.join(day.split(','))} of the month"
    if (day, month) != ("*", "*"):
        return None
    for name, number in _DAY_NAMES.items():
        weekday = re.sub(name, number, weekday, flags=re.IGNORECASE)
    if match := re.fullmatch(r"([0-7])-([0-7])", weekday):
        return f"{_DAYS[int(match[1])]} to {_DAYS[int(match[2])]}"
    if re.fullmatch(r"[0-7](,[0-7])*", weekday):
        return " and ".join(_DAYS[int(each)] for each in weekday.split(","))
    return None
