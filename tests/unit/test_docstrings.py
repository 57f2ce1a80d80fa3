"""Every example in a docstring runs, and what readers look up first has one."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import paradime_blocks
import paradime_flows
from paradime_blocks.testing import BoltSimulator, SimulatedCommand

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCKS = Path(paradime_blocks.__file__).resolve().parent
FLOWS = Path(str(paradime_flows.__file__)).resolve().parent
FENCED = re.compile(r"^( *)```python\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
# What shows that an example needs a Prefect server: blocks that are saved there, flows and tasks.
ON_A_SERVER = (".save(", ".load(", "from paradime_flows.")
# The id of a run in the examples; Bolt's reference has it.
SOME_RUN = "76035"


def _examples() -> Iterator[Any]:
    """Each fenced Python block in the docstrings of both packages."""
    for path in sorted([*BLOCKS.glob("*.py"), *FLOWS.glob("*.py")]):
        tree = ast.parse(path.read_text())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        for node in ast.walk(tree):
            if not isinstance(node, documented):
                continue
            docstring = ast.get_docstring(node, clean=False) or ""
            for found in FENCED.finditer(docstring):
                code = textwrap.dedent(found[2])
                name = f"{path.stem}.{getattr(node, 'name', 'module')}"
                marks = [pytest.mark.e2e] if any(text in code for text in ON_A_SERVER) else []
                yield pytest.param(code, id=name, marks=marks)


EXAMPLES = list(_examples())


@pytest.fixture
def no_trace():
    """Takes back what an example sets in the environment."""
    before = set(os.environ)
    yield
    for name in set(os.environ) - before:
        del os.environ[name]


@pytest.fixture(scope="module")
def workspace(prefect_server):
    """A Bolt, and the blocks of the examples saved in Prefect."""
    from paradime_blocks import BoltSchedule, ParadimeCredentials

    with BoltSimulator(speed=1000) as simulator:
        credentials = ParadimeCredentials(
            api_endpoint=simulator.api_endpoint, api_key=simulator.api_key, api_secret=simulator.api_secret
        )
        for name in ("production", "block-name"):
            # A copy each: Prefect overwrites the document that the object was saved as before, whatever the name.
            credentials.model_copy().save(name, overwrite=True)
        BoltSchedule(credentials=credentials, schedule_name="daily").save("block-name", overwrite=True)
        yield simulator


@pytest.fixture
def some_run(request, monkeypatch):
    """What the examples find: saved blocks, schedules, and a run that has failed; None without a server."""
    if request.node.get_closest_marker("e2e") is None:
        return None
    simulator = request.getfixturevalue("workspace")
    simulator.reset()
    # It fails the first time: there is something to retry, and the examples themselves succeed.
    failing = SimulatedCommand("dbt test", return_code=(1, 0))
    simulator.add_schedule("daily", commands=["dbt run", failing])
    for name in ("extract", "transform", "publish"):
        simulator.add_schedule(name, commands=["dbt run"])
    run_id = simulator.start_run("daily")
    simulator.wait_for(lambda s: not s.active_runs(), timeout=30)
    for name, value in simulator.environment().items():
        monkeypatch.setenv(name, value)
    return run_id


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs_as_it_stands(code, some_run, no_trace):
    """Whoever pastes it gets what it promises. Names and ids stand for those of the reader's own."""
    code = code.replace('"BLOCK_NAME"', '"block-name"').replace(SOME_RUN, str(some_run or SOME_RUN))
    exec(compile(code, "<docstring>", "exec"), {"__name__": "__example__"})  # noqa: S102 - our own docstrings


@pytest.mark.parametrize(
    "module",
    [
        f"paradime_blocks.testing.{path.stem}".removesuffix(".__init__")
        for path in sorted((BLOCKS / "testing").glob("*.py"))
        if ">>>" in path.read_text()
    ],
)
def test_a_session_in_the_simulators_docstrings_is_as_shown(module):
    """Python's own doctest."""
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted > 0
    assert done.failed == 0


def test_what_readers_look_up_first_has_an_example():
    """And the examples above are not none by a slip of the pattern."""
    names = {case.id for case in EXAMPLES}
    classes = {
        *("client.BoltClient", "credentials.ParadimeCredentials", "credentials.CredentialsCheck"),
        *("schedule.BoltSchedule", "run.BoltRun", "models.BoltRunResult", "errors.BoltError"),
    }
    flows = {
        *("run_schedule", "run_pipeline", "archive_run", "retry_run", "cancel_run", "trigger_only"),
        *("list_schedules", "inspect_run", "sweep_orphans"),
    }
    tree = ast.parse((FLOWS / "read_tasks.py").read_text())
    tasks = {
        f"read_tasks.{node.name}"
        for node in tree.body
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_")
    }
    assert len(tasks) > 10
    assert (classes | {f"{name}.{name}" for name in flows} | tasks) - names == set()
