"""Serve `run_schedule` from one process: a deployment that needs no work pool and no worker.

    PARADIME_API_ENDPOINT=... PARADIME_API_KEY=... PARADIME_API_SECRET=... python deployments/serve.py

While this program runs, `run-schedule/bolt-served` can be started from Prefect's UI, with `prefect deployment run`, or
by an automation. Stop it only while no flow run is running, because Prefect ends the flow runs with it.
"""

from __future__ import annotations

from typing import cast

from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.types.entrypoint import EntrypointType

from paradime_flows.run_schedule import run_schedule


def main() -> None:
    """Serve one deployment. To add others, write more like `on_demand`, each with its own name."""
    on_demand = run_schedule.to_deployment(
        name="bolt-served",
        description="Runs a Paradime Bolt schedule; asks for its name.",
        tags=["paradime"],
        # With the module's path, the flow runs from the installed package, wherever that is.
        entrypoint_type=EntrypointType.MODULE_PATH,
        # Every morning at six, a schedule called `daily`:
        #   parameters={"schedule_name": "daily"}, cron="0 6 * * *",
    )
    # The type allows an awaitable, too, but only async code gets one.
    serve(cast("RunnerDeployment", on_demand))


if __name__ == "__main__":
    main()
