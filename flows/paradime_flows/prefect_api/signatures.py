"""Signatures and docstrings of flows and tasks, made from the one description of each option."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

from paradime_blocks.options import default_of, doc_of, option_types

F = TypeVar("F", bound=Callable[..., Any])


def spread_options(function: F) -> F:
    """Give a function that takes `**options: Unpack[Group]` a signature and a docstring with each option by itself.

    Prefect makes parameters, checks and forms from the signature, and their help from the docstring. The annotations
    are evaluated, so that they survive being sent to another process.
    """
    signature = inspect.signature(function, eval_str=True)
    parameters = [*signature.parameters.values()]
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        (group,) = get_args(parameters.pop().annotation)
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default_of(hint), annotation=hint)
            for name, hint in option_types(group).items()
        ]
        parameters += options
        function.__doc__ = _with_arguments(function.__doc__ or "", options)
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


def filled(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's options with the defaults of those that are not given."""
    return {name: options.get(name, default_of(hint)) for name, hint in option_types(kind).items()}


_OPTIONS = "        options: "


def _with_arguments(docstring: str, options: list[inspect.Parameter]) -> str:
    """Return a docstring whose line about `options` is replaced by a line about each."""
    lines = docstring.splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.startswith(_OPTIONS)]
    described = [
        line
        for each in options
        for line in textwrap.wrap(
            f"{each.name}: {doc_of(each.annotation)}",
            width=110,
            initial_indent=" " * 8,
            subsequent_indent=" " * 12,
        )
    ]
    return "\n".join([*lines[:at], *described, *lines[at + 1 :]])
