"""The base of all models of Bolt's replies."""

from __future__ import annotations

import logging
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from paradime_blocks.models.dates import parse_bolt_date
from paradime_blocks.text.reasons import reasons

T = TypeVar("T")
_logger = logging.getLogger(__name__)


def _none_if_unreadable(value: object, read: ValidatorFunctionWrapHandler) -> object:
    try:
        return read(value)
    except ValidationError:
        return None


# An invalid value does not make its object invalid, and an invalid object does not make its list invalid.
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
IfReadable = Annotated[T | None, WrapValidator(_none_if_unreadable)]


def empty_for_none(value: object) -> object:
    """Return an empty list if the value is null. Any other value does not change."""
    return [] if value is None else value


def readable(model: type[Reply], *, at_least_one: bool = False) -> BeforeValidator:
    """Return a validator that reads a list of objects and leaves out the objects that cannot be read.

    Args:
        model: The model of an object.
        at_least_one: What to do if no object of a list can be read. If true, the list is invalid. If false, the result
            is an empty list.
    """

    def read(records: object) -> object:
        if not isinstance(records, list):
            return empty_for_none(records)
        found = []
        for record in records:
            try:
                found.append(model.model_validate(record))
            except ValidationError as error:
                _logger.warning("Left out a %s that cannot be read: %s.", model.__name__, reasons(error))
        return records if at_least_one and not found else found

    return BeforeValidator(read)


def with_count(values: Any, name: str) -> Any:
    """Return a page's values with the number of objects that Bolt sent. Unreadable objects are counted, too."""
    records = values.get(name) if isinstance(values, dict) else None
    return {**values, "received": len(records)} if isinstance(records, list) else values


class Reply(BaseModel):
    """The base class of the models for the parts of a Bolt reply."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="allow",
        frozen=True,
        # Tracebacks and logs show why a reply is invalid. With this setting, they do not show the reply's values.
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _keep_what_is_no_date(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        unread = {}
        for name, field in cls.model_fields.items():
            if any(getattr(each, "func", None) is parse_bolt_date for each in field.metadata):
                value = values.get(field.alias or name, values.get(name))
                if value not in (None, "") and parse_bolt_date(value) is None:
                    unread[f"{name}_text"] = value
        return {**unread, **values}
