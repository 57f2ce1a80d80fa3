"""How a flow's options are drawn in the form of Prefect's UI: plain fields, and boxes of those that few runs need.

In Python each option is a keyword argument of the flow. A form with all of them in one column is hard to read, so the
flow's parameters in Prefect are the main options and a box for each group; `grouped` and `flat` translate.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
)

from paradime_blocks.options import PlainBox, default_of, doc_of, option_types

T = TypeVar("T")


class FormGroup(BaseModel):
    """Options that a form draws as one box."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A form starts from a box's defaults, and its plain fields take no null.
        return {name: value for name, value in handler(self).items() if value is not None}


def form_group(name: str, title: str, kind: type, *, module: str) -> Any:
    """Return the model of a box.

    Args:
        name: The name that the model is assigned to in its module, so that another process can import it.
        title: What the form shows.
        kind: The options in it.
        module: The module's name.
    """
    fields: dict[str, Any] = {
        option: (Annotated[hint, PlainBox()], Field(default=default_of(hint), description=doc_of(hint)))
        for option, hint in option_types(kind).items()
    }
    base: Any = type(name, (FormGroup,), {"__module__": module, "model_config": ConfigDict(title=title)})
    return create_model(name, __base__=base, __module__=module, __doc__=kind.__doc__, **fields)


def grouped(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's keyword arguments with each option in the box that it belongs to.

    Args:
        function: The flow's function; its signature names the boxes.
        given: The arguments: options by themselves, boxes as models or mappings, anything else.
    """
    parameters = inspect.signature(function).parameters
    boxes = {
        name: each.annotation
        for name, each in parameters.items()
        if isinstance(each.annotation, type) and issubclass(each.annotation, FormGroup)
    }
    found = dict(given)
    for name, box in boxes.items():
        own = {option: found.pop(option) for option in box.model_fields if option in found}
        if own:
            found[name] = {**dict(found.get(name) or {}), **own}
    return found


def flat(options: T) -> T:
    """Return options with those in boxes beside the others, as the flow's function takes them."""
    found: dict[str, Any] = {}
    for name, value in cast("Mapping[str, Any]", options).items():
        found.update(dict(value) if isinstance(value, FormGroup) else {name: value})
    return cast("T", found)
