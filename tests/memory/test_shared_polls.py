"""Waits with different times share their polls: requests are counted in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from support.credentials import credentials_for

from paradime_blocks import BoltRun, BoltRunState
from paradime_blocks.testing import SimulatedCommand


@pytest.mark.parametrize("count", [1, 2, 30])
async def test_waits_with_different_times_need_hardly_more_requests_than_one(simulator, count):
    """A wait whose poll is due takes along those that are due soon, whenever each of them began."""
    simulator.clock.speed = 1
    credentials = credentials_for(simulator)

    async def wait(n: int) -> BoltRunState:
        name = f"s{n}"
        simulator.add_schedule(name, [SimulatedCommand("dbt run", 300)], setup_commands=False)
        await asyncio.sleep(0.37 * n)
        run = BoltRun(simulator.start_run(name), credentials, poll_interval_seconds=5 + n % 3)
        return await run.await_for_completion()

    assert set(await asyncio.gather(*map(wait, range(count)))) == {BoltRunState.SUCCESS}
    asked = [each for each in simulator.requests if each.operations == ("boltRunStatus",)]
    alone = 140
    # Half of the shortest time lies between two requests at least, and each end needs one.
    assert len(asked) <= (alone if count == 1 else 2 * alone + count)
