"""The blocks' public calls in code with and without `await`."""

from __future__ import annotations

import inspect

from support.credentials import credentials_for

from paradime_blocks import BoltRunState, BoltSchedule
from paradime_blocks.testing import SimulatedCommand


def _schedule(simulator) -> BoltSchedule:
    simulator.add_schedule("daily", commands=["dbt run", SimulatedCommand("dbt test", return_code=0)])
    return BoltSchedule(
        schedule_name="daily", credentials=credentials_for(simulator), poll_interval_seconds=0.5
    )


async def test_plain_names_can_be_awaited_in_async_code(simulator):
    """As in Prefect, they return an awaitable to an async caller."""
    schedule = _schedule(simulator)
    waiting = [schedule.credentials.check(), schedule.trigger()]
    assert [inspect.iscoroutine(each) for each in waiting] == [True, True]
    assert (await waiting[0]).ok
    run = await waiting[1]
    simulator.clock.advance(600)
    assert await run.wait_for_completion() is BoltRunState.SUCCESS
    assert (await run.fetch_result()).run_id == run.run_id
    assert await run.cancel() is await run.state() is BoltRunState.SUCCESS
    assert len(await run.commands()) == 4


def test_plain_names_give_results_in_sync_code(simulator):
    """There is no coroutine that is never awaited."""
    schedule = _schedule(simulator)
    assert schedule.credentials.check().ok
    run = schedule.trigger()
    simulator.clock.advance(600)
    assert run.wait_for_completion() is BoltRunState.SUCCESS
    assert run.fetch_result().run_id == run.run_id
    assert run.cancel() is run.state() is BoltRunState.SUCCESS
    assert len(run.commands()) == 4


async def test_async_names_give_results_in_async_code(simulator):
    """Type checkers understand this form."""
    schedule = _schedule(simulator)
    run = await schedule.atrigger()
    simulator.clock.advance(600)
    assert await run.await_for_completion() is BoltRunState.SUCCESS
    assert (await run.afetch_result()).state is await run.astate() is BoltRunState.SUCCESS
