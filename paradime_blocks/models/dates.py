"""Reads Bolt's dates: text in UTC without a time zone, as the vendor's own clients suggest."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Annotated

from pydantic import BeforeValidator

# Ten digits are seconds (2001 to 2286), thirteen are milliseconds. Eight digits are a day without dashes.
_EPOCH = re.compile(r"\d{9,13}(?:\.\d+)?")
_LEAST_MILLISECONDS = 1e11


def parse_bolt_date(value: object) -> object:
    """Return a date. The value is in Bolt's format, ISO 8601 or RFC 1123, or is seconds or milliseconds since 1970.

    The result is None if the value is empty or cannot be read. An unreadable date is no error, so that it does not end
    the wait for a run.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float, datetime)):
        return None
    try:
        return _in_utc(value) if isinstance(value, datetime) else _read_date(value)
    except (ValueError, OverflowError, OSError):
        return None


def _read_date(value: str | float) -> datetime | None:
    if not isinstance(value, str):
        return _of_epoch(float(value))
    text = value.strip()
    if _EPOCH.fullmatch(text):
        return _of_epoch(float(text))
    return _in_utc(
        parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(_for_python_310(text))
    )


def _of_epoch(number: float) -> datetime | None:
    # In some programming languages, a time that is not set is 0.
    if number <= 0:
        return None
    seconds = number / 1000 if number >= _LEAST_MILLISECONDS else number
    return datetime.fromtimestamp(seconds, timezone.utc)


def _for_python_310(text: str) -> str:
    """Return a date in a form that Python 3.10 reads: no "Z", a colon in the time zone, six decimals of the seconds."""
    if text.endswith(("Z", "z")):
        text = f"{text[:-1]}+00:00"
    if ":" in text:
        text = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text)
    head, dot, rest = text.partition(".")
    if dot:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{head}.{rest[:digits][:6].ljust(6, '0')}{rest[digits:]}"
    return text


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


BoltDate = Annotated[datetime | None, BeforeValidator(parse_bolt_date)]
