"""Pydantic's reasons why values are invalid, without the values: a value may be a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import ValidationError


def each_reason(error: ValidationError) -> list[tuple[str, str]]:
    """Return the path and the reason of each invalid value. If a whole model is invalid, the path is empty."""
    details = error.errors(include_input=False, include_url=False, include_context=False)
    return [
        (".".join(str(part) for part in detail["loc"]), detail["msg"].removeprefix("Value error, "))
        for detail in details
    ]


def reasons(error: ValidationError, name: Callable[[str], str] = str) -> str:
    """Return one text that says which values are invalid, and why.

    Args:
        error: Pydantic's error.
        name: A function that takes a value's path and returns the name that the user knows.

    Example:
        >>> from pydantic import BaseModel, ValidationError
        >>> class Limits(BaseModel):
        ...     seconds: float
        >>> try:
        ...     Limits(seconds="hush")
        ... except ValidationError as error:
        ...     print(reasons(error))
        seconds: Input should be a valid number, unable to parse string as a number
    """
    found = [(name(place) if place else "", reason) for place, reason in each_reason(error)]
    return "; ".join(
        f"{place}: {reason}" if place and not reason.startswith(place) else reason for place, reason in found
    )
