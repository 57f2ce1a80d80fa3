"""Dates as Bolt writes them: text in UTC without a zone (`facts.md`: an inference from the vendor's own clients)."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Annotated

from pydantic import BeforeValidator

# Ten digits are seconds from 2001 to 2286, thirteen are milliseconds; eight would be a day without dashes.
_EPOCH = re.compile(r"\d{9,13}(?:\.\d+)?")
_LEAST_MILLISECONDS = 1e11


def parse_bolt_date(value: object) -> object:
    """Read a date: as Bolt writes it, in ISO 8601, RFC 1123, or as seconds or milliseconds since 1970.

    Empty or unreadable text is no date rather than an error: it must not stop a wait, and no decision hangs on
    one.
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
    # An unset time of some languages is 0.
    if number <= 0:
        return None
    seconds = number / 1000 if number >= _LEAST_MILLISECONDS else number
    return datetime.fromtimestamp(seconds, timezone.utc)


def _for_python_310(text: str) -> str:
    """Return a date as Python 3.10 reads it: without "Z", with a colon in the zone, with six digits of fraction."""
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
