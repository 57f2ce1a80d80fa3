"""The examples in the docstrings of both packages."""

from __future__ import annotations

import ast
import os
import re
import textwrap
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import paradime_blocks
import paradime_flows

BLOCKS = Path(paradime_blocks.__file__).resolve().parent
FLOWS = Path(str(paradime_flows.__file__)).resolve().parent
_FENCED = re.compile(r"^( *)```python\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
# What shows that an example needs a Prefect server: blocks that are saved there, flows and tasks.
_ON_A_SERVER = (".save(", ".load(", "from paradime_flows.")


class Example(NamedTuple):
    """A fenced Python block of a docstring.

    Attributes:
        name: The module, and what the docstring is of.
        code: The code.
        needs_prefect: Whether it needs a Prefect server.
    """

    name: str
    code: str
    needs_prefect: bool


def _found() -> list[Example]:
    found = []
    for path in sorted([*BLOCKS.rglob("*.py"), *FLOWS.rglob("*.py")]):
        if path.parent.name == "testing":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for fenced in _FENCED.finditer(ast.get_docstring(node, clean=False) or ""):
                code = textwrap.dedent(fenced[2])
                name = f"{path.stem}.{getattr(node, 'name', 'module')}"
                found.append(Example(name, code, any(text in code for text in _ON_A_SERVER)))
    return found


EXAMPLES = _found()


def run_example(code: str) -> None:
    """Run an example; what it sets in the environment is taken back."""
    with mock.patch.dict(os.environ):
        exec(compile(code, "<docstring>", "exec"), {"__name__": "__example__"})  # noqa: S102 - our own docstrings
