"""Waits with the same credentials share their polls: requests are counted over a real socket."""

from __future__ import annotations

import asyncio

import pytest

from paradime_blocks import BoltRun, BoltRunState, BoltUnavailable
from paradime_blocks.testing import SimulatedCommand, faults


@pytest.fixture
def start(simulator, credentials):
    """Starts a run of a schedule of its own, and returns its handle."""

    def start(name: str, seconds: float = 1.0, **options) -> BoltRun:
        simulator.add_schedule(name, [SimulatedCommand("dbt run", seconds)], setup_commands=False)
        options = {"poll_interval_seconds": 0.1, **options}
        return BoltRun(simulator.start_run(name), credentials, **options)

    return start


def sizes(simulator) -> list[int]:
    """For how many runs each request asked."""
    return [len(each.variables) for each in simulator.requests if each.operations == ("boltRunStatus",)]


async def _after(simulator, requests: int) -> None:
    await asyncio.to_thread(simulator.wait_for, lambda bolt: bolt.count("boltRunStatus") >= requests)


async def test_a_hundred_waits_need_one_request_at_a_time(simulator, start):
    """Each request asks for all runs that have not ended, or, on a busy machine, for most of them."""
    runs = [start(f"s{n}", 1 if n < 50 else 2) for n in range(100)]
    waits = [asyncio.create_task(run.await_for_completion()) for run in runs]
    await _after(simulator, 3)
    simulator.clock.advance(1)
    await asyncio.gather(*waits[:50])
    assert not any(wait.done() for wait in waits[50:])
    simulator.clock.advance(1)
    assert set(await asyncio.gather(*waits)) == {BoltRunState.SUCCESS}
    asked = sizes(simulator)
    assert asked[0] == 100
    assert sum(asked) >= 25 * len(asked)


async def test_waits_that_begin_one_after_the_other_are_polled_together(simulator, start):
    """Their first polls wait for each other for a moment."""
    waits = []
    for n in range(20):
        waits.append(asyncio.create_task(start(f"s{n}").await_for_completion()))
        await asyncio.sleep(0.002)
    simulator.clock.advance(1)
    await asyncio.gather(*waits)
    assert len(sizes(simulator)) <= 5


async def test_waits_with_other_credentials_share_nothing(simulator, start):
    """A request reads one workspace only."""
    one, other = start("one"), start("other")
    other = BoltRun(
        other.run_id, one.credentials.model_copy(update={"request_timeout_seconds": 7.0}), timeout_seconds=0
    )
    simulator.clock.advance(1)
    await asyncio.gather(one.await_for_completion(0), other.await_for_completion())
    assert sizes(simulator) == [1, 1]


async def test_a_run_that_bolt_does_not_return_does_not_affect_the_others(simulator, start, credentials):
    """The error belongs to one wait; this run is polled alone from then on."""
    runs = [start(f"s{n}") for n in range(3)]
    missing = BoltRun(999_999, credentials, poll_interval_seconds=0.1, max_outage_seconds=1)
    waits = [asyncio.create_task(run.await_for_completion()) for run in (missing, *runs)]
    with pytest.raises(BoltUnavailable, match="could not be polled"):
        await waits[0]
    assert not any(wait.done() for wait in waits[1:])
    simulator.clock.advance(1)
    assert set(await asyncio.gather(*waits[1:])) == {BoltRunState.SUCCESS}
    first, *later = [list(each.variables.values()) for each in simulator.requests]
    assert len(first) == 4
    assert {len(run_ids) for run_ids in later if missing.run_id in run_ids} == {1}


async def test_an_internal_error_about_one_run_does_not_affect_the_others(simulator, start):
    """The wait for this run continues, and so do the others, although nothing is repeated for them."""
    runs = [start(f"s{n}") for n in range(3)]
    simulator.clock.advance(1)
    simulator.inject(OneFails(operation="boltRunStatus"))
    states = await asyncio.gather(*(run.await_for_completion() for run in runs))
    assert set(states) == {BoltRunState.SUCCESS}
    assert sizes(simulator) == [3, 1]


class OneFails(faults.Fault):
    """The status of the first run is missing, with an error that names it."""

    def answer(self, exchange):
        import json

        from paradime_blocks.testing.reply import Reply

        data = json.loads(bytes(exchange.act().body))["data"]
        error = {"message": "Internal error", "path": ["a0"]}
        return Reply.of_json({"data": {**data, "a0": None}, "errors": [error]})


async def test_the_end_of_a_wait_does_not_end_a_request_for_others(simulator, start):
    """The wait that sent the request is cancelled while the request is on its way."""
    runs = [start(f"s{n}") for n in range(3)]
    simulator.clock.advance(1)
    simulator.inject(faults.Slow(0.3, operation="boltRunStatus"))
    waits = [asyncio.create_task(run.await_for_completion()) for run in runs]
    await _after(simulator, 1)
    waits[0].cancel()
    assert await asyncio.gather(*waits[1:]) == [BoltRunState.SUCCESS] * 2
    assert waits[0].cancelled()
    assert sizes(simulator) == [3]


async def test_a_backend_that_refuses_aliases_is_polled_for_each_run(simulator, start):
    """It refuses once; then each wait polls for itself."""
    simulator.lacks(aliases=True)
    waits = [asyncio.create_task(start(f"s{n}").await_for_completion()) for n in range(3)]
    await _after(simulator, 8)
    simulator.clock.advance(1)
    assert set(await asyncio.gather(*waits)) == {BoltRunState.SUCCESS}
    first, *later = sizes(simulator)
    assert (first, set(later)) == (3, {1})


def test_waits_in_threads_are_polled_separately(simulator, start):
    """Each sync wait has an event loop of its own, and shares nothing with the others."""
    from concurrent.futures import ThreadPoolExecutor

    runs = [start(f"s{n}") for n in range(2)]
    simulator.clock.advance(1)
    with ThreadPoolExecutor() as pool:
        states = list(pool.map(lambda run: run.wait_for_completion(), runs))
    assert states == [BoltRunState.SUCCESS] * 2
    assert sizes(simulator) == [1, 1]
