"""Flows and tasks that Prefect sends to another process by value: `.serve()`, process pools, Dask.

A worker imports a deployment's module, and so do the programs of the other tests here; cloudpickle sends the function
with as much of its module as it uses.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.tasks import Task
from support.bench import PROGRAMS
from support.processes import wait_for_flow_run, wait_until

import paradime_flows
from paradime_blocks.testing import BoltSimulator, SimulatedCommand

if TYPE_CHECKING:
    from pathlib import Path

    from support.processes import Processes


def public_runnables() -> dict[str, Any]:
    """The flows and tasks of the public modules, in both forms."""
    found = {}
    for module in pkgutil.iter_modules(paradime_flows.__path__):
        names = vars(importlib.import_module(f"paradime_flows.{module.name}"))
        runnables = {name: each for name, each in names.items() if isinstance(each, (Flow, Task))}
        found |= runnables
        found |= {f"a{name}": names[f"a{name}"] for name in runnables if f"a{name}" in names}
    return found


@pytest.mark.parametrize("how", ["cloudpickle", "dask"])
def test_every_flow_and_task_checks_arguments_in_another_process(how: str, tmp_path: Path):
    """A function sent by value needs the types themselves: their names do not arrive with it."""
    runnables = public_runnables()
    dumps = cloudpickle.dumps
    if how == "dask":
        pytest.importorskip("prefect_dask")
        from distributed.protocol.pickle import dumps
    (tmp_path / "sent").write_bytes(dumps(runnables))
    done = subprocess.run(
        [sys.executable, PROGRAMS / "check_arguments.py", how, tmp_path / "sent"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(runnables)
    assert {"run_schedule", "arun_pipeline", "trigger_bolt_run", "alatest_manifest"} <= set(runnables)


def deployed(name: str) -> Any:
    """The deployment, once it exists."""
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        return client.read_deployment_by_name(name)
    return None


# The arguments of each flow (by default its schedule), and the ends of its schedule's runs (by default one success).
RUN_ID = object()
PARAMETERS: dict[str, dict[str, Any]] = {
    "run_pipeline": {"steps": [{"schedule_name": "run_pipeline"}]},
    "sweep_orphans": {"action": "report"},
    "list_schedules": {},
    **{name: {"run_id": RUN_ID} for name in ("archive_run", "cancel_run", "inspect_run", "retry_run")},
}
ENDS = {
    "sweep_orphans": [],
    "list_schedules": [],
    "archive_run": ["FAILED"],
    "inspect_run": ["FAILED"],
    "retry_run": ["FAILED", "SUCCESS"],
    "cancel_run": ["CANCELED"],
}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("run_schedule", "in_processes"), id="always"),
        pytest.param(("run_pipeline", "trigger_only", "sync_parent", "async_parent"), marks=pytest.mark.full),
        pytest.param(("of_tasks", "sweep_orphans", "list_schedules", "on_dask"), marks=pytest.mark.full),
        pytest.param(("archive_run", "inspect_run", "cancel_run", "retry_run"), marks=pytest.mark.full),
    ],
)
def test_flows_run_where_serve_sends_them(names: tuple[str, ...], processes: Processes):
    """Our own flows, and a user's flow that calls them: in its code, in tasks of a process pool, or on Dask."""
    if "on_dask" in names:
        pytest.importorskip("prefect_dask")
    deployment = f"by-value-{uuid.uuid4().hex[:8]}"
    with BoltSimulator(speed=100) as bolt, get_client(sync_client=True) as client:
        processes.script(PROGRAMS / "serve_by_value.py", deployment, *names, env=bolt.environment())
        started = {}
        for name in names:
            endless = SimulatedCommand("dbt run", duration_seconds=1e9)
            commands = [endless] if name == "cancel_run" else ["dbt run"]
            bolt.add_schedule(name, commands=commands, setup_commands=False)
            parameters = dict(PARAMETERS.get(name, {"schedule_name": name}))
            if "run_id" in parameters:
                parameters["run_id"] = bolt.start_run(name)
            if "FAILED" in ENDS.get(name, []):
                bolt.finish(parameters["run_id"], "FAILED")
            found = wait_until(partial(deployed, f"{name.replace('_', '-')}/{deployment}-{name}"), name)
            started[name] = client.create_flow_run_from_deployment(found.id, parameters=parameters).id
        for name, flow_run_id in started.items():
            state = wait_for_flow_run(flow_run_id).state
            assert state.is_completed(), f"{name}: {state}"
        wait_until(lambda: not bolt.active_runs(), "the end of what was only triggered")
        ends = {name: [run.state for run in bolt.runs(name)] for name in names}
        assert ends == {name: ENDS.get(name, ["SUCCESS"]) for name in names}
