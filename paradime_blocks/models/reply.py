"""What all models of Bolt's replies have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from paradime_blocks.models.dates import parse_bolt_date

Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]


def empty_for_none(value: object) -> object:
    """Return an empty list where Bolt gives none."""
    return [] if value is None else value


class Reply(BaseModel):
    """A part of a reply."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="allow",
        frozen=True,
        # What is wrong with a reply stands in tracebacks, and so in logs; what it says must not.
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
