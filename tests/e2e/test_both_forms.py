"""Each flow, task and block method has a sync form and an async form; both do the same."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from support.credentials import credentials_for

import paradime_flows
from paradime_blocks import BoltRun, BoltRunState, BoltSchedule, ParadimeCredentials
from paradime_blocks.testing import BoltSimulator, SimulatedCommand, SimulatedRun
from paradime_flows.prefect_api.dispatch import DispatchedFlow, DispatchedTask

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server", "swept_tag")]

PATH = "target/run_results.json"
QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5, "live_logs": "off"}


@dataclass
class World:
    """A Bolt with three schedules: one succeeds, one fails the first time, one never ends."""

    bolt: BoltSimulator
    credentials: ParadimeCredentials

    def ended(self, schedule: str = "daily") -> SimulatedRun:
        """An ended run of the schedule."""
        run_id = self.bolt.start_run(schedule)
        self.bolt.wait_for(lambda bolt: not bolt.run(run_id).is_active)
        return self.bolt.run(run_id)

    def going(self) -> SimulatedRun:
        """A run that is active."""
        return self.bolt.run(self.bolt.start_run("endless"))

    @property
    def schedule(self) -> BoltSchedule:
        return BoltSchedule(schedule_name="daily", credentials=self.credentials, poll_interval_seconds=0.5)

    def handle(self, run: SimulatedRun) -> BoltRun:
        return self.schedule.attach(run.id)

    def command_id(self) -> int:
        return self.ended().commands[-1].id

    def resource_id(self) -> int:
        return next(each.id for each in self.ended().commands[-1].resources if each.path == PATH)


@pytest.fixture
def world() -> Iterator[World]:
    with BoltSimulator(speed=100) as bolt:
        bolt.add_schedule("daily", commands=["dbt run"])
        bolt.add_schedule("broken", commands=[SimulatedCommand("dbt run", return_code=(1, 0))])
        bolt.add_schedule("endless", commands=[SimulatedCommand("dbt run", duration_seconds=1e6)])
        credentials = credentials_for(bolt)
        yield World(bolt, credentials)


# The arguments of a call, and what its result must contain.
Given = Callable[[World], tuple[tuple[Any, ...], dict[str, Any]]]
Good = Callable[[World, Any], object]
CALLS: dict[str, tuple[Given, Good]] = {
    # Flows
    "run_schedule": (
        lambda w: (("daily", w.credentials), QUICK),
        lambda w, answer: answer.run_id == w.bolt.runs()[0].id and answer.state == "SUCCESS",
    ),
    "run_pipeline": (
        lambda w: (([{"schedule_name": "daily"}], w.credentials), QUICK),
        lambda w, answer: [step.run_id for step in answer.steps] == [run.id for run in w.bolt.runs()],
    ),
    "trigger_only": (
        lambda w: (("endless", w.credentials), {}),
        lambda w, answer: [answer.run_id] == [run.id for run in w.bolt.active_runs()],
    ),
    "retry_run": (
        lambda w: ((w.ended("broken").id, w.credentials), QUICK),
        lambda w, answer: answer.run_id == w.bolt.runs()[1].id and answer.state == "SUCCESS",
    ),
    "cancel_run": (
        lambda w: ((w.going().id, w.credentials), {}),
        lambda w, answer: answer.state == w.bolt.runs()[0].state == "CANCELED",
    ),
    "inspect_run": (
        lambda w: ((w.ended().id, w.credentials), {}),
        lambda w, answer: (answer.run_id, answer.state) == (w.bolt.runs()[0].id, "SUCCESS"),
    ),
    "list_schedules": (
        lambda w: ((w.credentials,), {}),
        lambda w, answer: {entry.name for entry in answer} == {"daily", "broken", "endless"},
    ),
    "archive_run": (
        lambda w: ((w.ended().id, w.credentials), {}),
        lambda w, answer: (answer.run_id, answer.state) == (w.bolt.runs()[0].id, "SUCCESS"),
    ),
    "sweep_orphans": (
        lambda w: ((w.credentials,), {"action": "report"}),
        lambda w, answer: answer == [],
    ),
    "watch_runs": (
        lambda w: ((w.credentials,), {}),
        lambda w, answer: answer == [],
    ),
    "report_run": (
        lambda w: (([w.ended().commands[-1].id], w.credentials), {}),
        lambda w, answer: [run.run_id for run in answer] == [w.bolt.runs()[0].id],
    ),
    # Tasks
    "trigger_bolt_run": (
        lambda w: (("daily", w.credentials), {}),
        lambda w, answer: [answer] == [run.id for run in w.bolt.runs()],
    ),
    "retry_bolt_run": (
        lambda w: ((w.ended("broken").id, w.credentials), {}),
        lambda w, answer: answer == w.bolt.runs()[1].id,
    ),
    "retry_bolt_schedule": (
        lambda w: ((w.ended("broken").schedule_name, w.credentials), {}),
        lambda w, answer: answer == w.bolt.runs()[1].id,
    ),
    "wait_for_bolt_run": (
        lambda w: ((w.bolt.start_run("daily"), w.credentials), {"poll_interval_seconds": 0.5}),
        lambda w, answer: (answer.run_id, answer.state) == (w.bolt.runs()[0].id, "SUCCESS"),
    ),
    "cancel_bolt_run": (
        lambda w: ((w.going().id, w.credentials), {}),
        lambda w, answer: answer == w.bolt.runs()[0].state == "CANCELED",
    ),
    "get_bolt_run": (
        lambda w: ((w.ended().id, w.credentials), {}),
        lambda w, answer: answer.state == "SUCCESS" and answer.commands[-1].command == "dbt run",
    ),
    "get_bolt_command": (
        lambda w: ((w.command_id(), w.credentials), {}),
        lambda w, answer: answer.command == "dbt run" and answer.stdout,
    ),
    "get_bolt_command_logs": (
        lambda w: ((w.command_id(), w.credentials), {}),
        lambda w, answer: answer.lines,
    ),
    "get_bolt_resource_url": (
        lambda w: ((w.resource_id(), w.credentials), {}),
        lambda w, answer: answer.startswith(w.bolt.url),
    ),
    "download_bolt_resource": (
        lambda w: ((w.resource_id(), w.credentials), {}),
        lambda w, answer: b'"results"' in answer,
    ),
    "list_bolt_schedules": (
        lambda w: ((w.credentials,), {}),
        lambda w, answer: {entry.name for entry in answer} == {"daily", "broken", "endless"},
    ),
    "get_bolt_schedule": (
        lambda w: ((w.ended().schedule_name, w.credentials), {}),
        lambda w, answer: answer.latest_run_id == w.bolt.runs()[0].id,
    ),
    "list_bolt_runs": (
        lambda w: ((w.ended().schedule_name, w.credentials), {}),
        lambda w, answer: [entry.id for entry in answer] == [w.bolt.runs()[0].id],
    ),
    "suspend_bolt_schedule": (
        lambda w: (("daily", w.credentials), {}),
        lambda w, answer: answer is True and w.bolt.count("suspendBoltSchedule") == 1,
    ),
    "latest_artifact": (
        lambda w: ((w.ended().schedule_name, PATH, w.credentials), {"command_index": -1}),
        lambda w, answer: b'"results"' in answer,
    ),
    "latest_artifact_url": (
        lambda w: ((w.ended().schedule_name, PATH, w.credentials), {}),
        lambda w, answer: answer.startswith(w.bolt.url),
    ),
    "latest_manifest": (
        lambda w: ((w.ended().schedule_name, w.credentials), {}),
        lambda w, answer: "nodes" in answer,
    ),
}
# Block methods: the object, the method's name, its arguments.
BLOCK_CALLS: dict[str, tuple[Callable[[World], Any], Good]] = {
    "check": (lambda w: w.credentials, lambda w, answer: answer.ok),
    "trigger": (lambda w: w.schedule, lambda w, answer: [answer.run_id] == [run.id for run in w.bolt.runs()]),
    "state": (lambda w: w.handle(w.ended()), lambda w, answer: answer is BoltRunState.SUCCESS),
    "commands": (lambda w: w.handle(w.ended()), lambda w, answer: answer[-1].command == "dbt run"),
    "wait_for_completion": (
        lambda w: w.handle(w.bolt.run(w.bolt.start_run("daily"))),
        lambda w, answer: answer is BoltRunState.SUCCESS,
    ),
    "fetch_result": (lambda w: w.handle(w.ended()), lambda w, answer: answer.state == "SUCCESS"),
    "cancel": (
        lambda w: w.handle(w.going()),
        lambda w, answer: answer == w.bolt.runs()[0].state == "CANCELED",
    ),
}


def public() -> dict[str, DispatchedFlow[..., Any] | DispatchedTask[..., Any]]:
    """All flows and tasks of the package, by name."""
    modules = [importlib.import_module(f"paradime_flows.{each.name}") for each in _modules()]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, DispatchedFlow | DispatchedTask) and not name.startswith("_")
    }


def _modules() -> Iterator[Any]:
    return iter(pkgutil.iter_modules(paradime_flows.__path__))


def in_both_forms(call: Any, form: str, *arguments: Any, **options: Any) -> Any:
    """Call the sync form without an event loop, or the async form in its own loop."""
    answer = call(*arguments, **options)
    assert inspect.iscoroutine(answer) == (form == "async")
    return asyncio.run(answer) if form == "async" else answer


def test_the_table_has_all_flows_and_tasks() -> None:
    """A new one needs its line above."""
    assert set(public()) == set(CALLS)


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("name", CALLS)
def test_a_flow_or_task_works_in_both_forms(name: str, form: str, world: World) -> None:
    """`x` runs to its end, `ax` is a coroutine."""
    runnable = public()[name]
    module = importlib.import_module(runnable.fn.__module__)
    call = runnable if form == "sync" else getattr(module, f"a{name}")
    given, good = CALLS[name]
    arguments, options = given(world)
    answer = in_both_forms(call, form, *arguments, **options)
    assert good(world, answer), answer


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("name", BLOCK_CALLS)
def test_a_block_method_works_in_both_forms(name: str, form: str, world: World) -> None:
    """`x` runs to its end, `ax` is a coroutine."""
    on, good = BLOCK_CALLS[name]
    answer = in_both_forms(getattr(on(world), name if form == "sync" else f"a{name}"), form)
    assert good(world, answer), answer
