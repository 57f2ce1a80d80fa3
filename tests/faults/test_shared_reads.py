"""Flow runs of one event loop are read with one request for all who ask at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from faults.attempts import running
from faults.bench import bolt, credentials_for, reached

from paradime_blocks.schedule import BoltSchedule
from paradime_blocks.testing import SimulatedCommand
from paradime_flows.prefect_api import prefect_client, read_flow_run
from paradime_flows.runner.lifecycle import RunLifecycle, RunPolicies
from paradime_flows.time_limits import times

if TYPE_CHECKING:
    from uuid import UUID

    from faults.prefect_in_memory import PrefectInMemory


class SlowPrefect:
    """Makes each read of flow runs take a time of its own, and counts the reads that have begun."""

    def __init__(self, prefect: PrefectInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float] = []
        self.begun = 0
        self._begins = asyncio.Event()
        answer = prefect._read

        async def read() -> None:
            self.begun += 1
            self._begins.set()
            await asyncio.sleep(self.seconds.pop(0) if self.seconds else 0)
            await answer()

        monkeypatch.setattr(prefect, "_read", read)

    async def begins(self) -> None:
        """Wait until another read begins."""
        self._begins.clear()
        await self._begins.wait()


@pytest.fixture
def slow(prefect: PrefectInMemory, monkeypatch: pytest.MonkeyPatch) -> SlowPrefect:
    return SlowPrefect(prefect, monkeypatch)


async def _read(flow_run_id: UUID) -> UUID:
    async with prefect_client() as client:
        return (await read_flow_run(client, flow_run_id)).id


async def test_who_asks_during_a_request_shares_the_next_one(
    prefect: PrefectInMemory, slow: SlowPrefect
) -> None:
    flow_runs = [running(prefect) for _ in range(5)]
    slow.seconds = [0.5]
    first = asyncio.create_task(_read(flow_runs[0]))
    await slow.begins()
    assert await asyncio.gather(first, *map(_read, flow_runs[1:])) == flow_runs
    assert slow.begun == 2


async def test_if_the_caller_that_asks_for_all_is_cancelled_another_asks(
    prefect: PrefectInMemory, slow: SlowPrefect
) -> None:
    flow_runs = [running(prefect) for _ in range(3)]
    slow.seconds = [0.5]
    first, asks, waits = (asyncio.create_task(_read(one)) for one in flow_runs)
    await slow.begins()
    asks.cancel()
    assert await asyncio.gather(first, waits) == [flow_runs[0], flow_runs[2]]
    assert asks.cancelled()


async def test_a_request_that_hangs_does_not_stop_the_others(
    prefect: PrefectInMemory, slow: SlowPrefect
) -> None:
    flow_runs = [running(prefect) for _ in range(2)]
    slow.seconds = [1000]
    hangs = asyncio.create_task(_read(flow_runs[0]))
    await slow.begins()
    answer = await asyncio.wait_for(_read(flow_runs[1]), times().prefect_answer_seconds)
    assert answer == flow_runs[1]
    hangs.cancel()


async def test_all_runs_are_cancelled_if_the_event_loop_ends_during_a_read(
    prefect: PrefectInMemory, slow: SlowPrefect
) -> None:
    """After a SIGTERM, `asyncio.run` cancels all tasks at once, also those that read flow runs."""
    names = ["one", "two", "three"]
    with bolt("timeout", speed=1) as simulator:
        for name in names:
            endless = SimulatedCommand("dbt run", duration_seconds=float("inf"))
            simulator.add_schedule(name, commands=[endless])

        async def work(name: str) -> None:
            schedule = BoltSchedule(credentials=credentials_for(simulator), schedule_name=name)
            lifecycle = await RunLifecycle.begin(
                schedule, running(prefect), RunPolicies(), schedule.request()
            )
            async with lifecycle.cleaning_up():
                await lifecycle.wait(await lifecycle.obtain())

        tasks = [asyncio.create_task(work(name)) for name in names]
        await reached(simulator, lambda bolt: len(bolt.active_runs()) == len(names))
        slow.seconds = [0.5] * 50
        reads = [asyncio.create_task(_read(running(prefect)))]
        await slow.begins()
        # These wait for the request that is under way.
        reads += [asyncio.create_task(_read(running(prefect))) for _ in range(2)]
        await asyncio.sleep(0.1)
        everything = asyncio.all_tasks() - {asyncio.current_task()}
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, *reads, *tasks, return_exceptions=True)
        assert [run.state for run in simulator.runs()] == ["CANCELED"] * len(names)
