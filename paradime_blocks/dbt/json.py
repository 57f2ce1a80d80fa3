"""Reads the JSON that dbt writes. A field with a wrong type counts as missing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

_DATETIME: Final = TypeAdapter(datetime)


class DbtArtifactError(ValueError):
    """A file is not the dbt artifact that its name says."""


def load(content: bytes, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Mapping[str, Any]:
    """Read a file that must be a JSON object.

    Args:
        content: The content of the file.
        object_hook: A function that is called with each JSON object in the file. The function's result replaces the
            object.

    Raises:
        DbtArtifactError: The file is not a JSON object.
    """
    try:
        document = json.loads(content, object_hook=object_hook)
    except (ValueError, RecursionError) as error:
        raise DbtArtifactError(f"not JSON: {type(error).__name__}") from error
    if not isinstance(document, dict):
        raise DbtArtifactError("JSON, but no object")
    return document


def mapping(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a key's value if it is a JSON object; otherwise return an empty object."""
    value = entry.get(key)
    return value if isinstance(value, dict) else {}


def sequence(entry: Mapping[str, Any], key: str) -> list[Any]:
    """Return a key's value if it is a JSON array; otherwise return an empty array."""
    value = entry.get(key)
    return value if isinstance(value, list) else []


def mappings(entry: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the JSON objects in the array that is a key's value."""
    return [value for value in sequence(entry, key) if isinstance(value, dict)]


def text(entry: Mapping[str, Any], key: str) -> str | None:
    """Return a key's value as text. None if the value is blank, missing, or neither a string nor a number."""
    value = entry.get(key)
    # In one dbt version, a message was a number.
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value) if str(value).strip() else None


def number(entry: Mapping[str, Any], key: str) -> float | None:
    """Return a key's value as a number. The value may be a string. None if the value is not a finite number."""
    if isinstance(entry.get(key), bool):
        return None
    try:
        value = float(entry.get(key))  # type: ignore[arg-type]  # float() accepts or refuses any type
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def integer(entry: Mapping[str, Any], key: str) -> int | None:
    """Return a key's value as an integer. None if the value is not a finite number."""
    value = number(entry, key)
    return None if value is None else int(value)


def time(entry: Mapping[str, Any], key: str) -> datetime | None:
    """Return a key's value as a time, in UTC if the value has no time zone. None if the value is not a time."""
    value = entry.get(key)
    if not isinstance(value, str):
        return None
    try:
        parsed = _DATETIME.validate_python(value)
    except ValidationError:
        return None
    # dbt's times are in UTC, even if they have no time zone.
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)
