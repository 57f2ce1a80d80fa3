"""Tolerant reading of the JSON that dbt writes: a field is what it should be, or it is taken for absent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

_DATETIME: Final = TypeAdapter(datetime)


class DbtArtifactError(ValueError):
    """A file is not the dbt artifact that its name promises."""


def load(content: bytes, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Mapping[str, Any]:
    """Read a file that must be a JSON object.

    Args:
        content: The file.
        object_hook: Given each object within it as soon as it is read, to put something smaller in its place.

    Raises:
        DbtArtifactError: It is none.
    """
    try:
        document = json.loads(content, object_hook=object_hook)
    except (ValueError, RecursionError) as error:
        raise DbtArtifactError(f"not JSON: {type(error).__name__}") from error
    if not isinstance(document, dict):
        raise DbtArtifactError("JSON, but no object")
    return document


def mapping(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object there; an empty one if there is none."""
    value = entry.get(key)
    return value if isinstance(value, dict) else {}


def sequence(entry: Mapping[str, Any], key: str) -> list[Any]:
    """The array there; an empty one if there is none."""
    value = entry.get(key)
    return value if isinstance(value, list) else []


def mappings(entry: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The objects in the array there."""
    return [value for value in sequence(entry, key) if isinstance(value, dict)]


def text(entry: Mapping[str, Any], key: str) -> str | None:
    """The string there, or the number as one; None if it is blank."""
    value = entry.get(key)
    # A message was a number once.
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value) if str(value).strip() else None


def number(entry: Mapping[str, Any], key: str) -> float | None:
    """The number there, also from a string; None if it is none or not finite."""
    if isinstance(entry.get(key), bool):
        return None
    try:
        value = float(entry.get(key))  # type: ignore[arg-type]  # whatever it is, float() judges it
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def integer(entry: Mapping[str, Any], key: str) -> int | None:
    """The same as an integer."""
    value = number(entry, key)
    return None if value is None else int(value)


def time(entry: Mapping[str, Any], key: str) -> datetime | None:
    """The time there, in UTC where it has no zone; None if it is none."""
    value = entry.get(key)
    if not isinstance(value, str):
        return None
    try:
        parsed = _DATETIME.validate_python(value)
    except ValidationError:
        return None
    # dbt's times are UTC, also where they do not say so.
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)
