"""The programs that `bench.py` measures, each in a process of its own: `programs.py NAME [NUMBER ...]`.

A program finds Prefect and Bolt in its environment, and prints its figures as one line of JSON.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from measuring import counted, report

SCHEDULES = "run-{}"
# A minute of a wait is counted from this time on, when the run is under way.
UNDER_WAY_SECONDS = 12.0


def _credentials() -> Any:
    from paradime_blocks import ParadimeCredentials

    return ParadimeCredentials.from_env()


def waiting(count: int) -> None:
    """So many `run_schedule` at once, as subflows of one flow."""
    from prefect import flow

    from paradime_flows.run_schedule import arun_schedule

    credentials = _credentials()

    @flow(name="bench-waiting")
    async def parent() -> None:
        await asyncio.gather(*(arun_schedule(SCHEDULES.format(n), credentials) for n in range(count)))

    _measure(parent)


def sleeping(count: int, seconds: float) -> None:
    """The yardstick of `waiting`: so many subflows that sleep."""
    from prefect import flow

    @flow(name="bench-sleeps")
    async def sleeps() -> None:
        await asyncio.sleep(seconds)

    @flow(name="bench-sleeping")
    async def parent() -> None:
        await asyncio.gather(*(sleeps() for _ in range(count)))

    _measure(parent)


def one(count: int) -> None:
    """One `run_schedule` that no other flow run has called."""
    from paradime_flows.run_schedule import arun_schedule

    _measure(lambda: arun_schedule(SCHEDULES.format(count), _credentials()))


def _measure(work: Any) -> None:
    with counted() as found:
        asyncio.run(work())
    a_minute = found.between(UNDER_WAY_SECONDS, UNDER_WAY_SECONDS + 60)
    report(cpu=found.cpu, requests=len(found.requests), minute=a_minute, kinds=found.kinds())


def instant(rounds: int) -> None:
    """A run that ends at once, and three empty tasks, in turn. The first of each is not counted."""
    from prefect import flow, task

    from paradime_flows.run_schedule import arun_schedule

    credentials = _credentials()

    @task
    async def empty() -> None: ...

    @flow(name="bench-three-tasks")
    async def three_tasks() -> None:
        for _ in range(3):
            await empty()

    async def run() -> None:
        await arun_schedule(SCHEDULES.format(0), credentials)

    figures: dict[str, list[Any]] = {"ours": [], "tasks": []}
    for turn in range(rounds + 1):
        for name, work in (("tasks", three_tasks), ("ours", run)):
            with counted() as found:
                asyncio.run(work())
            if turn:
                figures[name].append((len(found.requests), found.seconds, found.kinds()))
    report(**figures)


def waits(*run_ids: float) -> None:
    """Waits for so many Bolt runs at once, without Prefect."""
    from paradime_blocks import BoltRun

    credentials = _credentials()

    async def all_of_them() -> None:
        runs = [BoltRun(run_id=int(run_id), credentials=credentials) for run_id in run_ids]
        await asyncio.gather(*(run.await_for_completion() for run in runs))

    cpu = time.process_time()
    asyncio.run(all_of_them())
    report(cpu=time.process_time() - cpu)


def ends(*lengths: float) -> None:
    """How late the end of a run is known, for runs of these lengths: of the first run of a schedule, and of later runs.

    Bolt knows the usual duration of a schedule after its first run.
    """
    from paradime_blocks import BoltSchedule

    credentials = _credentials()

    async def one_after_the_other(length: float) -> list[float]:
        late = []
        schedule = BoltSchedule(credentials=credentials, schedule_name=SCHEDULES.format(f"{length:g}"))
        for _ in range(max(1, min(3, int(45 / length)))):
            run = await schedule.atrigger()
            began = time.monotonic()
            await run.await_for_completion()
            late.append(time.monotonic() - began - length)
        return late

    async def all_of_them() -> list[list[float]]:
        return await asyncio.gather(*map(one_after_the_other, lengths))

    report(late=asyncio.run(all_of_them()))


def logs(_: float) -> None:
    """One run whose log is shown while it runs."""
    from paradime_flows.run_schedule import arun_schedule

    _measure(lambda: arun_schedule(SCHEDULES.format(0), _credentials(), live_logs="all"))


def long(wait: str) -> None:
    """One run of a deployment, waited for in the process or without it: how long there is a process, and what it asks.

    While the flow run is suspended, one observer looks each minute, as `watch_runs` does.
    """
    from contextlib import suppress

    from prefect.client.orchestration import get_client
    from prefect.exceptions import Pause
    from prefect.flow_engine import run_flow_async

    from paradime_flows.run_schedule import run_schedule
    from paradime_flows.supervision import resume_suspended

    parameters = {"schedule_name": SCHEDULES.format(0), "wait": wait}
    held = watched = 0.0

    async def once() -> None:
        nonlocal held, watched
        async with get_client() as client:
            flow_id = await client.create_flow(run_schedule)
            deployment = await client.create_deployment(flow_id, name=f"bench-{wait}")
            made = await client.create_flow_run_from_deployment(deployment, parameters=parameters)
        while True:
            began = time.monotonic()
            with suppress(Pause):
                await run_flow_async(run_schedule, flow_run=made, parameters=parameters)
            held += time.monotonic() - began
            async with get_client() as client:
                made = await client.read_flow_run(made.id)
                while made.state is not None and made.state.name == "Suspended":
                    await asyncio.sleep(60)
                    watched += 1
                    await resume_suspended(client, _credentials())
                    made = await client.read_flow_run(made.id)
            if made.state is not None and made.state.is_final():
                return

    with counted() as found:
        asyncio.run(once())
    # The row counts what the flow run costs: an observer reads all suspended flow runs in one request.
    report(held=held, cpu=found.cpu, requests=len(found.requests) - int(2 * watched), state=str(wait))


if __name__ == "__main__":
    globals()[sys.argv[1]](
        *(float(word) if "." in word else int(word) if word.isdigit() else word for word in sys.argv[2:])
    )
