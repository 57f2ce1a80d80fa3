"""Makes the signatures and docstrings of flows and tasks. Each option is described in one place only."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_args

from paradime_blocks.options import PlainBox, default_of, doc_of, option_types
from paradime_flows.form_groups import FormGroup

F = TypeVar("F", bound=Callable[..., Any])


def spread_options(function: F, boxes: Mapping[str, type[FormGroup]] | None = None) -> F:
    """Give a function that takes `**options: Unpack[Group]` a signature and a docstring that list each option.

    Prefect checks the arguments of a call against the signature, and shows the docstring as help in a form. The
    annotations of the new signature are types, not texts, so that the function can be sent to another process.

    Args:
        function: The function. Its signature and docstring are replaced.
        boxes: The boxes of the form. The key is the name of the parameter. The function takes the boxes in addition to
            the options.
    """
    signature = inspect.signature(function, eval_str=True)
    parameters = [*signature.parameters.values()]
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        (group,) = get_args(parameters.pop().annotation)
        options = option_types(group)
        parameters += [_keyword(name, hint, default_of(hint)) for name, hint in options.items()]
        parameters += [_keyword(name, box | None, None) for name, box in (boxes or {}).items()]
        described = {name: doc_of(hint) for name, hint in options.items()}
        described.update({name: str(box.__doc__) for name, box in (boxes or {}).items()})
        function.__doc__ = _with_arguments(function.__doc__ or "", described)
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[_drawn_plainly(each) for each in parameters]
    )
    return function


def form_signature(function: Callable[..., Any], boxes: Mapping[str, type[FormGroup]]) -> inspect.Signature:
    """Return the signature for a flow's form. If an option is in a box, the form shows the option only in the box."""
    signature = inspect.signature(function)
    boxed = {option for box in boxes.values() for option in box.model_fields}
    parameters = [
        _keyword(name, boxes[name], boxes[name]()) if name in boxes else each
        for name, each in signature.parameters.items()
        if name not in boxed
    ]
    return signature.replace(parameters=parameters)


def _keyword(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _drawn_plainly(parameter: inspect.Parameter) -> inspect.Parameter:
    # Prefect shows a block picker only if the parameter may be None.
    if parameter.default is not None or parameter.name == "credentials":
        return parameter
    return parameter.replace(annotation=Annotated[parameter.annotation, PlainBox()])


def filled(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a group. An option that the caller did not pass has its default."""
    return {name: options.get(name, default_of(hint)) for name, hint in option_types(kind).items()}


_OPTIONS = "    options: "


def _with_arguments(docstring: str, options: Mapping[str, str]) -> str:
    """Replace the line for `options` in a docstring by one entry for each option."""
    # Python 3.13 removes the indentation of a docstring itself.
    lines = inspect.cleandoc(docstring).splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.startswith(_OPTIONS)]
    after = at + 1
    while lines[after : after + 1] and lines[after].startswith(" " * 8):
        after += 1
    described = [
        line
        for name, text in options.items()
        for line in textwrap.wrap(
            f"{name}: {text}",
            width=106,
            initial_indent=" " * 4,
            subsequent_indent=" " * 8,
            # A form shows a line break as a space, which must not be inside of a word such as `head-and-tail`.
            break_on_hyphens=False,
            break_long_words=False,
        )
    ]
    return "\n".join([*lines[:at], *described, *lines[after:]])
