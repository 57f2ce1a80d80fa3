"""Serves flows as `flow.serve(name=...)` does: Prefect sends each to the process of its flow run by value.

`serve(...)` of several deployments has the process import them.
"""

import asyncio
import sys
from typing import Any

from prefect import flow, task
from prefect.runner import Runner
from prefect.task_runners import ProcessPoolTaskRunner

from paradime_flows.archive_run import archive_run
from paradime_flows.cancel_run import cancel_run
from paradime_flows.inspect_run import inspect_run
from paradime_flows.list_schedules import list_schedules
from paradime_flows.retry_run import retry_run
from paradime_flows.run_pipeline import run_pipeline
from paradime_flows.run_schedule import arun_schedule, run_schedule
from paradime_flows.sweep_orphans import sweep_orphans
from paradime_flows.tasks import atrigger_bolt_run, wait_for_bolt_run
from paradime_flows.trigger_only import trigger_only


@flow
def sync_parent(schedule_name: str) -> str:
    return str(run_schedule(schedule_name).state)


@flow
async def async_parent(schedule_name: str) -> str:
    return str((await arun_schedule(schedule_name)).state)


@flow
async def of_tasks(schedule_name: str) -> str:
    return str((await wait_for_bolt_run(await atrigger_bolt_run(schedule_name))).state)


@task
def in_a_task(schedule_name: str) -> str:
    return str(run_schedule(schedule_name).state)


@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def in_processes(schedule_name: str) -> str:
    return in_a_task.submit(schedule_name).result()


def on_dask() -> Any:
    from prefect_dask import DaskTaskRunner

    runner = DaskTaskRunner(
        cluster_kwargs={"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    )

    @flow(name="on-dask", task_runner=runner)
    def of_one_task(schedule_name: str) -> str:
        return in_a_task.submit(schedule_name).result()

    return of_one_task


FLOWS = {
    each.fn.__name__: each
    for each in (
        *(archive_run, cancel_run, inspect_run, list_schedules, retry_run, run_pipeline, run_schedule),
        *(sweep_orphans, trigger_only, sync_parent, async_parent, of_tasks, in_processes),
    )
}


def main(deployment: str, *names: str) -> None:
    runner = Runner(name=deployment, limit=4)
    for name in names:
        runner.add_flow(on_dask() if name == "on_dask" else FLOWS[name], name=f"{deployment}-{name}")
    asyncio.run(runner.start())


if __name__ == "__main__":
    main(*sys.argv[1:])
