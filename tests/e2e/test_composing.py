"""Every example of flows/README.md runs unchanged, in the order of the page, on a real Prefect server."""

from __future__ import annotations

import json
import os
import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML
from support.processes import deploy

from paradime_blocks.options import option_types
from paradime_blocks.testing import BoltSimulator
from paradime_blocks.testing.samples import add_samples
from paradime_flows import tasks
from paradime_flows.automations import Rules
from paradime_flows.parameters import RunOptions
from paradime_flows.pipeline import Pipeline
from paradime_flows.run_pipeline import run_pipeline
from paradime_flows.run_schedule import run_schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

README = Path(__file__).resolve().parents[2] / "flows" / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[tuple[int, str]]:
    """The README's blocks of a language, each with its line number."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [(TEXT[: match.start()].count("\n") + 1, match[1]) for match in found]


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[BoltSimulator]:
    """What `python -m paradime_blocks.testing` serves, with its credentials in the environment."""
    with BoltSimulator(speed=100) as simulator:
        add_samples(simulator)
        for name, value in simulator.environment().items():
            monkeypatch.setenv(name, value)
        yield simulator


def run(line: int, text: str) -> None:
    """Run a block as a file, so that Prefect can read the source of its flows."""
    path = Path(f"readme_line_{line}.py")
    path.write_text(text, encoding="utf-8")
    runpy.run_path(str(path), run_name=path.stem)


@pytest.mark.parametrize(
    "line, text",
    [
        pytest.param(line, text, id=f"line {line}")
        for line, text in blocks("python")
        if "run_deployment" not in text and "prefect_dask" not in text
    ],
)
def test_an_example_runs_as_it_stands(line: int, text: str, workspace: BoltSimulator) -> None:
    """Afterwards nothing is running, and the files that the README shows exist."""
    for _, example in blocks("yaml"):
        if name := re.match(r"# (\S+\.yaml)\n", example):
            Path(name[1]).write_text(example, encoding="utf-8")
    run(line, text)
    assert workspace.active_runs() == []


@pytest.mark.full
@pytest.mark.processes
def test_the_example_of_dask_runs_as_a_program(workspace: BoltSimulator, processes) -> None:
    """Dask's processes import it again."""
    pytest.importorskip("prefect_dask")
    ((_, text),) = [block for block in blocks("python") if "prefect_dask" in block[1]]
    Path("on_dask.py").write_text(text, encoding="utf-8")
    program = processes.script(Path("on_dask.py").resolve(), env=workspace.environment())
    assert program.wait() == 0, program.output
    assert {found.schedule_name: found.state for found in workspace.runs()} == {
        "orders": "SUCCESS",
        "customers": "SUCCESS",
    }


@pytest.mark.full
@pytest.mark.processes
def test_the_example_of_a_deployment_runs_on_a_worker(
    bolts_deployment: None, workspace: BoltSimulator, bench
) -> None:
    """It uses `run_deployment`, with a process worker whose jobs have the credentials in their environment."""
    env = {**workspace.environment(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    deploy(run_schedule, "bolt", work_pool=bench.shared_pool(), job_variables={"env": env})
    ((line, text),) = [block for block in blocks("python") if "run_deployment" in block[1]]
    run(line, text)
    assert [found.state for found in workspace.runs("orders")] == ["SUCCESS"]


def test_the_examples_of_yaml_and_json_are_pipelines() -> None:
    """`run_pipeline` accepts what the file, prefect.yaml and the UI contain, and so on for the others."""
    texts = [text for _, text in blocks("yaml")]
    (schedules,) = [text for text in texts if text.startswith("schedules:")]
    (single, automations, *shown) = [YAML(typ="safe").load(text) for text in texts if text != schedules]
    Path("paradime_schedules.yml").write_text(schedules, encoding="utf-8")
    whole = Pipeline.from_schedules_file("paradime_schedules.yml", attach_seconds=60)
    assert [(step.key, step.after) for step in whole.steps] == [("extract", []), ("orders", ["extract"])]
    run_schedule.validate_parameters(single["parameters"])
    assert len(Rules.model_validate(automations).notify) == 2
    assert len(shown) == 2
    for data in shown:
        (deployment,) = data.get("deployments", [{"parameters": data}])
        run_pipeline.validate_parameters(deployment["parameters"])
    ((_, text),) = blocks("json")
    found = run_pipeline.validate_parameters(json.loads(text))
    assert [step.key for step in Pipeline(steps=found["steps"]).steps] == ["extract", "orders"]


def test_the_table_of_operations_is_complete() -> None:
    """Every task has its row, and every task and client method in a row exists."""
    from paradime_blocks import BoltClient

    rows = [line.split("|")[1:-1] for line in TEXT.splitlines() if line.count("|") == 5]
    rows = [row for row in rows if "---" not in row[0] and not row[0].startswith(" operation")]
    assert len(rows) > 15
    told_tasks = {name for row in rows for name in re.findall(r"`(\w+)", row[1])} - {"run_schedule"}
    told_methods = {name for row in rows for name in re.findall(r"`(\w+)`", row[2])}
    ours = {name for name in tasks.__all__ if f"a{name}" in tasks.__all__ or name == "wait_for_bolt_run"}
    assert told_tasks == ours
    assert told_methods <= set(dir(BoltClient))


def test_the_table_of_parameters_is_complete() -> None:
    """The table has every parameter of `run_schedule`, and no other."""
    table = TEXT.split("\n## Parameters of `run_schedule`\n")[1].split("\n## ")[0]
    documented = {
        name
        for line in table.splitlines()
        for name in re.findall(r"`(\w+)`", line.split(" | ")[0])
        if "|" in line
    }
    assert documented == {"schedule_name", "credentials", *option_types(RunOptions)}


def test_every_flow_and_task_has_both_forms() -> None:
    """`x` for sync callers and `ax` for async ones stand side by side."""
    for name in tasks.__all__:
        assert callable(getattr(tasks, name))
    plain = [name for name in tasks.__all__ if not name.startswith("a")]
    assert {f"a{name}" for name in plain} == {name for name in tasks.__all__ if name.startswith("a")}
