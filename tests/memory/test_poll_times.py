"""When a run is polled, in virtual time: around its usual end, and when there is a sign that it has ended."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from support.credentials import credentials_for

from paradime_blocks import BoltRun, BoltRunState
from paradime_blocks.models import BoltCommand, BoltRunStatus
from paradime_blocks.polling import Deadline, Observation, observe
from paradime_blocks.testing import SimulatedCommand

LENGTH = 3000.0


@pytest.fixture
def history(simulator):
    """The schedule's earlier runs have taken 3,000 seconds each."""
    simulator.add_schedule("daily", [SimulatedCommand("dbt run", LENGTH)], setup_commands=False)
    for _ in range(3):
        simulator.start_run("daily")
        simulator.clock.advance(LENGTH + 1)
    simulator.clock.speed = 1


def polled_at(simulator) -> list[float]:
    """The times of the polls, in seconds after the first."""
    times = [each.at for each in simulator.requests if each.operations == ("boltRunStatus",)]
    return [(at - times[0]).total_seconds() for at in times]


@pytest.mark.parametrize("older", [False, True], ids=["newer backend", "older backend"])
async def test_a_run_is_polled_often_around_its_usual_end(simulator, history, older):
    """The usual duration costs one request. An older backend does not tell it."""
    if older:
        simulator.lacks(operations=["listBoltRuns"])
    run = BoltRun(simulator.start_run("daily"), credentials_for(simulator), schedule_name="daily")
    assert await run.await_for_completion() is BoltRunState.SUCCESS
    polls = polled_at(simulator)
    steps = [later - earlier for earlier, later in itertools.pairwise(polls)]
    assert len(polls) <= 200
    assert max(steps) < 60
    assert polls[-1] - LENGTH < (60 if older else 2.1)
    assert simulator.count("listBoltRuns") == 1


async def test_a_run_of_an_unknown_schedule_costs_no_request_for_its_usual_end(simulator, history):
    """Nor does a run that takes less than a minute."""
    credentials = credentials_for(simulator)
    await BoltRun(simulator.start_run("daily"), credentials).await_for_completion()
    simulator.add_schedule("short", [SimulatedCommand("dbt run", 50)], setup_commands=False)
    await BoltRun(simulator.start_run("short"), credentials, schedule_name="short").await_for_completion()
    assert simulator.count("listBoltRuns") == 0


async def test_a_sign_of_the_end_is_a_reason_to_poll_at_once(simulator):
    """The sign may also come while no sleep can be ended: then the next sleep ends at once."""
    simulator.clock.speed = 1
    simulator.add_schedule("daily", [SimulatedCommand("dbt run", 1000)], setup_commands=False)
    run = BoltRun(simulator.start_run("daily"), credentials_for(simulator))
    ended_at: list[float] = []

    async def watch(seen: Observation) -> None:
        if not ended_at:
            ended_at.append(time.monotonic() + 1000)
            asyncio.get_running_loop().call_later(1000, seen.poll_now)
        elif len(ended_at) == 1 and seen.elapsed_seconds > 500:
            ended_at.append(seen.elapsed_seconds)
            seen.poll_now()

    await run.await_for_completion(watcher=watch)
    assert time.monotonic() - ended_at[0] < 0.6
    polls = polled_at(simulator)
    assert min(later - earlier for earlier, later in itertools.pairwise(polls)) < 0.1


async def test_the_time_between_two_commands_is_polled_often():
    """All commands that have begun have ended: the next one begins, or the run ends."""
    began = time.monotonic()
    polls: list[float] = []

    async def look() -> BoltRunStatus:
        polls.append(time.monotonic() - began)
        code = 0 if 600 <= polls[-1] < 700 else None
        state = BoltRunState.SUCCESS if polls[-1] > 1200 else BoltRunState.RUNNING
        return BoltRunStatus(state=state, commands=[BoltCommand(id=1, command="dbt run", return_code=code)])

    async for _ in observe(look, poll_interval_seconds=54, deadline=Deadline(None)):
        pass
    first = next(n for n, at in enumerate(polls) if 600 <= at < 700)
    assert polls[first + 1] - polls[first] <= 0.6
    assert sum(600 <= at < 700 for at in polls) >= 20
    assert sum(800 <= at < 1100 for at in polls) <= 10
