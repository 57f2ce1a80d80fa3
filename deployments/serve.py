"""Serves all deployments of `prefect.yaml` from one process. This needs no work pool and no worker.

    PARADIME_API_ENDPOINT=... PARADIME_API_KEY=... PARADIME_API_SECRET=... python deployments/serve.py

While this program is running, you can start `run-schedule/bolt` and the other flows from Prefect's UI, with `prefect
deployment run`, or with an automation. The sweeper runs here, too, on its timer and after its triggers. Stop this
program only while no flow run is running, because Prefect ends the flow runs together with the program.

The deployments have the names that they have on a work pool. If you deploy them to a work pool later, nothing that
starts them has to change.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import serve
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType
from ruamel.yaml import YAML

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

PREFECT_YAML = Path(__file__).with_name("prefect.yaml")


def deployments() -> list[RunnerDeployment]:
    """Return the deployments of `prefect.yaml`, without their work pool."""
    return [_deployment(entry) for entry in _entries()]


def environment() -> dict[str, str]:
    """Return the environment variables that `prefect.yaml` sets for the flow runs."""
    found: dict[str, str] = {}
    for entry in _entries():
        found |= entry["work_pool"]["job_variables"]["env"]
    return found


def _entries() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = YAML(typ="safe", pure=True).load(PREFECT_YAML)["deployments"]
    return entries


def _deployment(entry: dict[str, Any]) -> RunnerDeployment:
    module, _, name = entry["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    limit = entry.get("concurrency_limit")
    deployment: RunnerDeployment = flow.to_deployment(
        name=entry["name"],
        description=entry["description"],
        tags=entry["tags"],
        parameters=entry.get("parameters"),
        schedules=[
            DeploymentScheduleCreate.from_schedule(Schedule(**each)) for each in entry.get("schedules", [])
        ],
        triggers=[DeploymentEventTrigger.model_validate(each) for each in entry.get("triggers", [])],
        concurrency_limit=limit and ConcurrencyLimitConfig.model_validate(limit),
        # Prefect finds the flow by the path of its module, so the package may be installed in any folder.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return deployment


def main() -> None:
    """Serve the deployments until Ctrl-C."""
    for name, value in environment().items():
        os.environ.setdefault(name, value)
    serve(*deployments())


if __name__ == "__main__":
    main()
