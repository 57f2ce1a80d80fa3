"""Groups the options of a flow for the form in Prefect's UI: plain fields for common options, boxes for rare options.

In Python, each option is a keyword argument of the flow. A form with all options in one column is hard to read. So the
form shows a plain field for each common option, and a box for each group of rare options. The flow's function accepts
single options and boxes, and `flat` takes the options out of the boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue

from paradime_blocks.options import PlainBox, default_of, doc_of, option_types

T = TypeVar("T")


class FormGroup(BaseModel):
    """A group of options that a form shows in one box."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    @model_serializer(mode="wrap")
    def _without_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Prefect fills the box with its default values, and the plain fields of a form do not accept null.
        return {name: value for name, value in handler(self).items() if value is not None}


class SavedBlock:
    """Makes a form accept only a saved block. If a person typed values, Prefect would store them in plain text."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return a JSON schema that accepts no typed values. Prefect then adds the reference to a saved block."""
        schema = handler(core)
        definition = handler.resolve_ref_schema(schema)
        definition.update(properties={}, additionalProperties=False, minProperties=1)
        definition.pop("required", None)
        return schema


def form_group(name: str, title: str, kind: type, *, module: str) -> Any:
    """Return the Pydantic model for a box of a form.

    Args:
        name: The name of the model in its module. Another process can import the model by this name.
        title: The box's title in the form.
        kind: The `TypedDict` that defines the options in the box.
        module: The name of the model's module.
    """
    fields: dict[str, Any] = {
        option: (Annotated[hint, PlainBox()], Field(default=default_of(hint), description=doc_of(hint)))
        for option, hint in option_types(kind).items()
    }
    base: Any = type(name, (FormGroup,), {"__module__": module, "model_config": ConfigDict(title=title)})
    return create_model(name, __base__=base, __module__=module, __doc__=kind.__doc__, **fields)


def flat(options: T) -> T:
    """Take all options out of their boxes, and return them as single options.

    Python calls and deployments pass single options. The form passes boxes. If an option is passed as a single option
    and in a box, the value of the single option is used, unless this value is the default. An empty list in a box is
    the same as a field that was left empty.

    Args:
        options: The options as Prefect passes them to the flow's function: single options and boxes.
    """
    found = dict(cast("Mapping[str, Any]", options))
    for name, box in [*found.items()]:
        if isinstance(box, FormGroup):
            del found[name]
            for option in box.model_fields_set:
                value = getattr(box, option)
                # Prefect's V2 UI sends an empty list if a person adds an entry to a list and deletes it again.
                if value != [] and found.get(option) == type(box).model_fields[option].default:
                    found[option] = value
    return cast("T", found)
