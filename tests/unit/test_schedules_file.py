"""`Pipeline.from_schedules_file`: the order in which Bolt itself starts schedules."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from paradime_blocks import BoltRequestError
from paradime_flows.pipeline import Pipeline
from paradime_flows.schedules_file import read_schedules

OLDER = "schedule_trigger: {enabled: true, schedule_name: extract, trigger_on: [passed]}"
NEWER = "run_after: {schedule: extract, on: [passed]}"


def file(trigger: str = "", *, parent: str = "") -> str:
    Path("paradime_schedules.yml").write_text(
        f"schedules:\n  - name: extract\n    commands: [dbt seed]\n    {parent}\n"
        f"  - name: orders\n    commands: [dbt build]\n    {trigger}\n",
        encoding="utf-8",
    )
    return "paradime_schedules.yml"


def order(pipeline: Pipeline) -> dict[str, list[str]]:
    return {step.key: step.after for step in pipeline.steps}


@pytest.mark.parametrize("trigger", [OLDER, NEWER, "run_after: extract"])
def test_a_step_comes_after_the_schedule_that_starts_it_in_bolt(trigger):
    """In both spellings; the step can wait for the run that Bolt starts."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Pipeline.from_schedules_file(file(trigger), attach_seconds=60)
    assert order(found) == {"extract": [], "orders": ["extract"]}
    assert [step.attach_seconds for step in found.steps] == [0, 60]


@pytest.mark.parametrize("trigger", [OLDER, NEWER])
def test_a_step_that_would_run_twice_is_warned_of(trigger):
    """Bolt starts it, and the pipeline, too."""
    with pytest.warns(UserWarning, match="'orders' after 'extract', and so does the pipeline"):
        found = Pipeline.from_schedules_file(file(trigger))
    assert order(found) == {"extract": [], "orders": ["extract"]}


@pytest.mark.parametrize(
    "trigger, why",
    [
        ("run_after: {schedule: extract, on: [failed]}", "on failed"),
        ("run_after: {schedule: extract, on: [passed], workspace: finance}", "in workspace 'finance'"),
        ("schedule_trigger: {schedule_name: extract, workspace_name: finance}", "in workspace 'finance'"),
        ("run_after: {schedule: elsewhere, on: [passed]}", "after 'elsewhere'"),
    ],
)
def test_an_order_that_a_pipeline_does_not_have_is_warned_of(trigger, why):
    """A step starts after steps of its workspace that have succeeded."""
    with pytest.warns(UserWarning, match=why):
        found = Pipeline.from_schedules_file(file(trigger), attach_seconds=60)
    assert order(found) == {"extract": [], "orders": []}


@pytest.mark.parametrize(
    "trigger", ["", "schedule_trigger: {enabled: false, schedule_name: extract}", "run_after: null"]
)
def test_a_schedule_without_a_trigger_waits_for_nothing(trigger):
    """A trigger can be switched off."""
    assert order(Pipeline.from_schedules_file(file(trigger))) == {"extract": [], "orders": []}


def test_a_circle_is_named():
    """Bolt would start the two for ever."""
    path = file(NEWER, parent="run_after: {schedule: orders, on: [passed]}")
    with pytest.raises(BoltRequestError, match="cycle"):
        Pipeline.from_schedules_file(path, attach_seconds=60)


def test_a_folder_has_one_schedule_in_each_file():
    """The newer form: `.bolt/`."""
    Path(".bolt").mkdir()
    Path(".bolt/extract.yml").write_text("name: extract\n", encoding="utf-8")
    Path(".bolt/orders.yaml").write_text(f"name: orders\n{NEWER}\n", encoding="utf-8")
    assert [(one.name, one.after, one.on) for one in read_schedules(".bolt")] == [
        ("extract", None, ()),
        ("orders", "extract", ("passed",)),
    ]


@pytest.mark.parametrize("text", ["", "schedules: []", "a: [", "just text", "[1, 2]"])
def test_a_file_without_schedules_is_refused(text):
    """The message names the file."""
    Path("some.yml").write_text(text, encoding="utf-8")
    with pytest.raises(BoltRequestError, match=r"some\.yml"):
        read_schedules("some.yml")


def test_a_missing_file_is_named():
    with pytest.raises(BoltRequestError, match=r"nowhere\.yml cannot be read"):
        read_schedules("nowhere.yml")
