"""How the form in Prefect's UI shows a flow's options: plain fields, and boxes for the options that few runs need.

In Python, each option is a keyword argument of the flow. A form with all options in one column is hard to read. So the
form shows the main options, and a box for each group of other options. The flow's function accepts single options and
boxes, and `flat` takes the options out of the boxes.
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
    """Options that a form shows in one box."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    @model_serializer(mode="wrap")
    def _without_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A form starts with the defaults of the box, and the plain fields of a form do not accept null.
        return {name: value for name, value in handler(self).items() if value is not None}


class SavedBlock:
    """Makes a form accept only a saved block, because Prefect stores values that a person types in plain text."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return a schema that no object matches that a person types. Prefect adds the reference to a saved block."""
        schema = handler(core)
        definition = handler.resolve_ref_schema(schema)
        definition.update(properties={}, additionalProperties=False, minProperties=1)
        definition.pop("required", None)
        return schema


def form_group(name: str, title: str, kind: type, *, module: str) -> Any:
    """Return the model of a box.

    Args:
        name: The model's name in its module, so that another process can import it.
        title: The box's title in the form.
        kind: The options in the box.
        module: The module's name.
    """
    fields: dict[str, Any] = {
        option: (Annotated[hint, PlainBox()], Field(default=default_of(hint), description=doc_of(hint)))
        for option, hint in option_types(kind).items()
    }
    base: Any = type(name, (FormGroup,), {"__module__": module, "model_config": ConfigDict(title=title)})
    return create_model(name, __base__=base, __module__=module, __doc__=kind.__doc__, **fields)


def flat(options: T) -> T:
    """Return the options with the boxes unpacked.

    Python calls and deployments pass single options. The form passes boxes. If an option is passed in both ways, the
    value of the single option is used.

    Args:
        options: The options as Prefect passes them to the flow's function: single options and boxes.
    """
    found = dict(cast("Mapping[str, Any]", options))
    for name, box in [*found.items()]:
        if isinstance(box, FormGroup):
            del found[name]
            for option in box.model_fields_set:
                if found.get(option) == type(box).model_fields[option].default:
                    found[option] = getattr(box, option)
    return cast("T", found)
