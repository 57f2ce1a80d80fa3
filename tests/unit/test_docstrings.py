"""Every Python example in a docstring runs."""

from __future__ import annotations

import ast
import os
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import paradime_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(paradime_blocks.__file__).resolve().parent
FENCED = re.compile(r"^( *)```python\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
# What shows that an example needs blocks that are saved on a Prefect server.
SAVED = (".save(", ".load(")


def _examples() -> Iterator[Any]:
    """Each fenced Python block in the docstrings of paradime_blocks; the simulator's are its own tests'."""
    for path in sorted(ROOT.glob("*.py")):
        tree = ast.parse(path.read_text())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        for node in ast.walk(tree):
            if not isinstance(node, documented):
                continue
            docstring = ast.get_docstring(node, clean=False) or ""
            for found in FENCED.finditer(docstring):
                code = textwrap.dedent(found[2])
                name = f"{path.stem}.{getattr(node, 'name', 'module')}"
                marks = [pytest.mark.e2e] if any(text in code for text in SAVED) else []
                yield pytest.param(code, id=name, marks=marks)


EXAMPLES = list(_examples())


@pytest.fixture
def no_trace(monkeypatch):
    """Takes back what an example sets in the environment."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        monkeypatch.delenv(name)


@pytest.fixture
def saved_blocks(request):
    """Saves the credentials that the examples load, if the example needs a Prefect server."""
    if request.node.get_closest_marker("e2e") is None:
        yield
        return
    request.getfixturevalue("prefect_server")
    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

    with BoltSimulator(speed=1000) as simulator:
        simulator.add_schedule("daily", commands=["dbt run"])
        credentials = ParadimeCredentials(
            api_endpoint=simulator.api_endpoint, api_key=simulator.api_key, api_secret=simulator.api_secret
        )
        for name in ("production", "block-name"):
            credentials.save(name, overwrite=True)
        yield


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs_as_it_stands(code, saved_blocks, no_trace):
    """Whoever pastes it gets what it promises. BLOCK_NAME stands for a name of the reader's own."""
    code = code.replace('"BLOCK_NAME"', '"block-name"')
    exec(compile(code, "<docstring>", "exec"), {"__name__": "__example__"})  # noqa: S102 - our own docstrings


def test_the_public_classes_have_examples():
    """The examples above are not none by a slip of the pattern."""
    names = {case.id for case in EXAMPLES}
    wanted = {"client.BoltClient", "credentials.ParadimeCredentials", "schedule.BoltSchedule", "run.BoltRun"}
    assert wanted - names == set()
