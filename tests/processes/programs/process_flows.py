"""Flows as users write them, for tests that start, stop and kill processes; workers import this module."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.flow_runs import suspend_flow_run
from prefect.futures import wait

from paradime_blocks import ParadimeCredentials
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.run_schedule import arun_schedule, run_schedule
from paradime_flows.tasks import await_for_bolt_run, trigger_bolt_run, wait_for_bolt_run
from paradime_flows.trigger_only import trigger_only

HOOKS: dict[str, Any] = {
    "on_cancellation": [cancel_owned_runs],
    "on_crashed": [cancel_owned_runs],
    "on_failure": [cancel_owned_runs],
}
QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5}

__all__ = ["trigger_only"]

# Long enough for a slow machine to see the state AwaitingRetry.
retried = run_schedule.with_options(retries=1, retry_delay_seconds=15)


@flow(retries=1, retry_delay_seconds=15)
async def retried_parent(schedule_name: str, credentials: str | None = None) -> None:
    await arun_schedule(schedule_name, credentials, **QUICK)


@flow
def sync_flow(schedule_name: str, credentials: str | None = None) -> None:
    run_schedule(schedule_name, credentials, **QUICK)


@flow(**HOOKS)
async def awaited_tasks(schedule_name: str, credentials: str | None = None) -> None:
    run_id = await trigger_bolt_run(schedule_name, credentials)
    await wait_for_bolt_run(run_id, credentials, **QUICK)


@flow
async def awaited_tasks_unhooked(schedule_name: str, credentials: str | None = None) -> None:
    run_id = await trigger_bolt_run(schedule_name, credentials)
    await wait_for_bolt_run(run_id, credentials, **QUICK)


@flow(**HOOKS)
def called_tasks(schedule_name: str, credentials: str | None = None) -> None:
    wait_for_bolt_run(trigger_bolt_run(schedule_name, credentials), credentials, **QUICK)


@flow(**HOOKS)
async def submitted_async(schedule_name: str, credentials: str | None = None) -> None:
    run_id = await trigger_bolt_run(schedule_name, credentials)
    wait_for_bolt_run.submit(run_id, credentials, **QUICK).result()


@flow(**HOOKS)
def submitted_sync(schedule_name: str, credentials: str | None = None) -> None:
    run_id = trigger_bolt_run.submit(schedule_name, credentials)
    wait_for_bolt_run.submit(run_id, credentials, **QUICK).result()


@flow(**HOOKS)
def mapped(schedule_name: list[str], credentials: str | None = None) -> None:
    run_ids = trigger_bolt_run.map(schedule_name, credentials)
    wait_for_bolt_run.map(run_ids, credentials, **QUICK).result()


@task
def run_in_a_task(name: str, credentials: str | None) -> None:
    wait_for_bolt_run(trigger_bolt_run(name, credentials), credentials, **QUICK)


@task
def run_as_a_subflow(name: str, credentials: str | None) -> None:
    run_schedule(name, credentials, **QUICK)


@flow(**HOOKS)
def in_users_tasks(schedule_name: list[str], credentials: str | None = None) -> None:
    """None of our code runs in the main thread."""
    wait([run_in_a_task.submit(name, credentials) for name in schedule_name])


@flow(**HOOKS)
def in_threads(schedule_name: list[str], credentials: str | None = None) -> None:
    """The same, in threads that Prefect does not know."""
    with ThreadPoolExecutor() as pool:
        for name in schedule_name:
            pool.submit(copy_context().run, run_in_a_task.fn, name, credentials)


@flow(**HOOKS)
def subflows_in_tasks(schedule_name: list[str], credentials: str | None = None) -> None:
    wait([run_as_a_subflow.submit(name, credentials) for name in schedule_name])


@flow
async def gathered(schedule_name: list[str], credentials: str | None = None) -> None:
    await asyncio.gather(*(arun_schedule(name, credentials, **QUICK) for name in schedule_name))


@flow(**HOOKS)
async def parent(schedule_name: str, credentials: str | None = None) -> None:
    await arun_schedule(schedule_name, credentials, **QUICK)


@flow(**HOOKS)
async def failing_parent(schedule_name: str, credentials: str | None = None, *, fail_at: str) -> None:
    """Fails beside its subflow as soon as a file of that name exists."""

    async def fail() -> None:
        while not Path(fail_at).exists():  # noqa: ASYNC110, ASYNC240 - another process creates it
            await asyncio.sleep(0.2)
        msg = "The parent failed beside its subflow."
        raise RuntimeError(msg)

    await asyncio.gather(arun_schedule(schedule_name, credentials, **QUICK), fail())


# Each has a time limit of Prefect's own; by then, the limited work has started on any machine.
LIMIT_SECONDS = 12


@flow(timeout_seconds=LIMIT_SECONDS, **HOOKS)
async def limited_flow(schedule_name: str, credentials: str | None = None) -> None:
    await arun_schedule(schedule_name, credentials, **QUICK)


@flow(timeout_seconds=LIMIT_SECONDS)
def limited_sync_flow(schedule_name: str, credentials: str | None = None) -> None:
    run_schedule(schedule_name, credentials, **QUICK)


@flow
async def limited_task(schedule_name: str, credentials: str | None = None) -> None:
    run_id = await trigger_bolt_run(schedule_name, credentials)
    wait = wait_for_bolt_run.with_options(timeout_seconds=4)
    await wait(run_id, credentials, **QUICK)


@flow
def limited_submitted_task(schedule_name: str, credentials: str | None = None) -> None:
    run_id = trigger_bolt_run(schedule_name, credentials)
    wait_for_bolt_run.with_options(timeout_seconds=4).submit(run_id, credentials, **QUICK).result()


@flow
async def limited_trigger(schedule_name: str, credentials: str | None = None) -> None:
    await trigger_bolt_run.with_options(timeout_seconds=4)(schedule_name, credentials)


@flow(**HOOKS)
async def approved(schedule_name: str, credentials: str | None = None) -> int:
    """Suspends itself between trigger and wait, as for an approval by a person."""
    run_id = await trigger_bolt_run(schedule_name, credentials)
    await suspend_flow_run(timeout=600, key="approval")
    return (await await_for_bolt_run(run_id, credentials, **QUICK)).run_id


@flow(**HOOKS)
async def approved_meanwhile(schedule_name: str, credentials: str | None = None, *, suspend_at: str) -> int:
    """Suspends itself during the wait, as soon as a file of that name exists."""
    run_id = await trigger_bolt_run(schedule_name, credentials)

    async def approval() -> None:
        while not Path(suspend_at).exists():  # noqa: ASYNC110, ASYNC240 - another process creates it
            await asyncio.sleep(0.2)
        await suspend_flow_run(timeout=600, key="approval")

    result, _ = await asyncio.gather(await_for_bolt_run(run_id, credentials, **QUICK), approval())
    return result.run_id


@flow(**HOOKS)
def triggered_then_busy(schedule_name: str, credentials: str | None = None) -> None:
    """Does something else while nothing waits for its Bolt run."""
    trigger_bolt_run(schedule_name, credentials)
    while True:
        time.sleep(1)


@flow(**HOOKS)
async def awaited_tasks_left(schedule_name: str, credentials: str | None = None) -> None:
    run_id = await trigger_bolt_run(schedule_name, credentials, on_crash="leave")
    await wait_for_bolt_run(run_id, credentials, **QUICK)


def in_code(schedule_name: str) -> None:
    """Has no flow of its own: calls ours with credentials that are in no block."""
    run_schedule(schedule_name, ParadimeCredentials.from_env(), **QUICK)
