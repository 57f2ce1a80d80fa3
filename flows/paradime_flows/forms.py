"""How a flow's options are drawn in the form of Prefect's UI: plain fields, and boxes of those that few runs need.

In Python each option is a keyword argument of the flow. A form with all of them in one column is hard to read, so it
has the main options, and a box for each group. The flow's function takes both; `flat` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def flat(options: T) -> T:
    """Return a flow's options with those of its boxes among them.

    A call in Python, or a deployment, gives an option by itself; the form gives it in its box. An option that is given
    in both places is taken as it stands by itself.

    Args:
        options: The options as Prefect hands them to the flow's function: each by itself, and the boxes.
    """
    found = dict(cast("Mapping[str, Any]", options))
    for name, box in [*found.items()]:
        if isinstance(box, FormGroup):
            del found[name]
            for option in box.model_fields_set:
                if found.get(option) == type(box).model_fields[option].default:
                    found[option] = getattr(box, option)
    return cast("T", found)
