"""Finds out when signed links expire, and writes links safely in markdown."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from paradime_blocks.models import parse_bolt_date
from paradime_blocks.text import cell, one_line

_SIGNED_DATE: Final = "%Y%m%dT%H%M%SZ"
# A smaller number would be a time before 2001, so a smaller number is not the time at which a link expires.
_LEAST_EPOCH: Final = 1_000_000_000.0


def link_expiry(url: str) -> datetime | None:
    """Return when a signed link expires, in UTC; None if the link contains no such time.

    The links of AWS and Google Cloud contain a date and a number of seconds, or a time in seconds since 1970. The
    links of Azure contain a time (`se`).

    Args:
        url: The link.
    """
    try:
        found = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    except ValueError:
        return None
    for kind in ("amz", "goog"):
        expiry = _signed(found.get(f"x-{kind}-date"), found.get(f"x-{kind}-expires"))
        if expiry is not None:
            return expiry
    for name in ("expires", "x-expires"):
        expiry = _since_epoch(found.get(name))
        if expiry is not None:
            return expiry
    azure = parse_bolt_date(found.get("se"))
    return azure if isinstance(azure, datetime) else None


def _signed(date: str | None, seconds: str | None) -> datetime | None:
    try:
        signed = datetime.strptime(date or "", _SIGNED_DATE).replace(tzinfo=timezone.utc)
        return signed + timedelta(seconds=float(seconds or ""))
    except (ValueError, OverflowError):
        return None


def _since_epoch(seconds: str | None) -> datetime | None:
    try:
        value = float(seconds or "")
        return datetime.fromtimestamp(value, timezone.utc) if value >= _LEAST_EPOCH else None
    except (ValueError, OverflowError, OSError):
        return None


def safe_url(url: str) -> str | None:
    """Return a URL that is safe in a markdown link; None if a browser should not open it.

    Args:
        url: The URL, as Bolt returns it.
    """
    if not url.lower().startswith(("https://", "http://")):
        return None
    # Characters that are already percent-encoded stay as they are. Characters that would end the link, or the table
    # cell around the link, are encoded.
    return quote(url, safe="%/:?#@!$&'*+,;=-._~")


def markdown_link(text: str, url: str | None, limit: int, what: str) -> str:
    """Return a markdown link whose text comes from Bolt. If there is no URL, return only the text.

    Prefect's V1 UI shows escape characters in the text of a link. So if the text has an escape character, the text
    is not part of the link: the link comes after the text.

    Args:
        text: The text, as Bolt returns it.
        url: The URL. It comes from `safe_url` or from our own code.
        limit: The largest number of characters of the text.
        what: The text of the link, if the link comes after the text.
    """
    escaped = cell(text, limit)
    if url is None:
        return escaped
    return f"[{escaped}]({url})" if escaped == one_line(text, limit) else f"{escaped} ([{what}]({url}))"
