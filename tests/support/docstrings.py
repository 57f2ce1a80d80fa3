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
# Words that show that an example needs a Prefect server: it saves blocks, or has flows and tasks.
_ON_A_SERVER = (".save(", ".load(", "from paradime_flows.")


class Example(NamedTuple):
    """A fenced Python block of a docstring.

    Attributes:
        name: The module, and the name of the documented object.
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
    """Run an example, and restore the environment afterwards."""
    with mock.patch.dict(os.environ):
        exec(compile(code, "<docstring>", "exec"), {"__name__": "__example__"})  # noqa: S102 - our own docstrings
