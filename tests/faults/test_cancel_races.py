"""A cancel while something else happens: the run's real end is reported, and uncertainty is reported too."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import anyio
import pytest
from faults.bench import SCHEDULE, bolt, credentials_for, reached

from paradime_blocks.errors import BoltCancelUnconfirmed, BoltRunTimedOut, BoltUnavailable
from paradime_blocks.models import BoltRunState
from paradime_blocks.schedule import BoltSchedule
from paradime_blocks.testing import BoltSimulator, faults
from paradime_blocks.testing.faults import Fault


@dataclass(frozen=True)
class EndsFirst(Fault):
    """The run ends just before the cancel arrives."""

    simulator: BoltSimulator
    state: str

    def answer(self, exchange):
        for run in self.simulator.active_runs():
            self.simulator.finish(run.id, self.state)
        return exchange.act()


async def started(simulator, *, patience: float = 5.0, **options):
    block = BoltSchedule(
        credentials=credentials_for(simulator, request_timeout_seconds=patience),
        schedule_name=SCHEDULE,
        **{"timeout_seconds": 5.0, "cancel_grace_seconds": 20.0, **options},
    )
    return await block.atrigger()


async def test_a_cancel_that_hangs_is_sent_again_within_the_grace_period() -> None:
    """The request's own time limit is longer than the grace period; the cancel was not executed when it ends."""
    with bolt("timeout") as simulator:
        run = await started(simulator, patience=120.0)
        simulator.inject(faults.Hang(120, operation="cancelBoltRun"))
        assert await run.acancel(grace_seconds=9.0) == BoltRunState.CANCELED
        assert simulator.count("cancelBoltRun") == 2


@pytest.mark.guarantee(
    "Time limit, and cancels that Bolt does not carry out",
    "The run ends on its own while it is cancelled for its time limit",
    prefect="As the run ended",
    bolt="As it ended",
    result="The run's result, or its error",
)
@pytest.mark.parametrize("state", ["SUCCESS", "FAILED"])
async def test_a_run_that_ends_during_its_cancel_keeps_its_state(simulator, state) -> None:
    """Both the cancel and a wait whose time limit cancelled it report the run's real end."""
    run = await started(simulator)
    simulator.inject(EndsFirst(simulator, state, operation="cancelBoltRun"))
    assert await run.acancel() == BoltRunState(state)
    run = await started(simulator)
    simulator.inject(EndsFirst(simulator, state, operation="cancelBoltRun"))
    assert await run.await_for_completion() == BoltRunState(state)


async def test_cancelling_an_ended_run_is_no_error(simulator) -> None:
    """Not even twice, or if Bolt returns an error for it."""
    run = await started(simulator)
    assert await run.acancel() is BoltRunState.CANCELED
    assert await run.acancel() is BoltRunState.CANCELED
    simulator.update_schedule(SCHEDULE, cancel="refuse")
    assert await run.acancel() is BoltRunState.CANCELED


@pytest.mark.guarantee(
    "Time limit, and cancels that Bolt does not carry out",
    "Bolt refuses or ignores the cancel of a run whose time limit is reached, or the one that "
    "`cancel_run` asks for",
    prefect="Failed",
    bolt="May keep running",
    result="`BoltCancelUnconfirmed` with the run's link. Look in Paradime",
)
@pytest.mark.parametrize("how", ["refuse", "not_ok", "ignore"])
async def test_an_unconfirmed_cancel_is_an_error(simulator, how, record_figures) -> None:
    """Within the grace period, an error names the run and its last state."""
    run = await started(simulator)
    simulator.update_schedule(SCHEDULE, cancel=how)
    began = time.monotonic()
    with pytest.raises(BoltCancelUnconfirmed) as caught:
        await run.acancel(10)
    assert time.monotonic() - began <= 11
    assert caught.value.run_id == run.run_id
    assert caught.value.state == "RUNNING"
    assert str(run.run_id) in str(caught.value)
    assert "may still be running" in str(caught.value)
    assert ("did not accept" in str(caught.value)) == (how != "ignore")
    with pytest.raises(BoltCancelUnconfirmed, match=r"did not end within 1 s\. Bolt (accepted|did not)"):
        await run.await_for_completion(1)


async def test_a_slow_cancel_is_waited_for(simulator) -> None:
    """A run that ends slowly is waited for; the cancel is sent once."""
    run = await started(simulator)
    simulator.update_schedule(SCHEDULE, cancel_seconds=8)
    assert await run.acancel() is BoltRunState.CANCELED
    assert simulator.count("cancelBoltRun") == 1


async def test_a_lost_cancel_is_sent_again(simulator) -> None:
    """An outage during a cancel does not stop it."""
    run = await started(simulator)
    simulator.inject(
        faults.CutConnection(operation="cancelBoltRun", times=5),
        faults.Status(503, operation="boltRunStatus", times=5),
    )
    assert await run.acancel() is BoltRunState.CANCELED


async def test_a_cancel_that_hangs_is_bounded(simulator) -> None:
    """Bolt does not respond: soon after the grace period, an error says so, long before a request would end."""
    run = await started(simulator, patience=0.4)
    simulator.inject(faults.Hang(30, times=None))
    began = time.monotonic()
    with pytest.raises(BoltCancelUnconfirmed):
        await run.acancel(5)
    assert time.monotonic() - began < 15


async def test_a_foreign_run_is_never_cancelled(simulator) -> None:
    """Neither the time limit nor an interrupt of the wait cancels an attached run."""
    ours = await started(simulator)
    block = BoltSchedule(credentials=ours.credentials, schedule_name=SCHEDULE, timeout_seconds=3)
    foreign = block.attach(ours.run_id)
    with pytest.raises(BoltRunTimedOut, match="is still running"):
        await foreign.await_for_completion()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(foreign.await_for_completion(3600), 0.3)
    assert simulator.run(ours.run_id).cancel_requests == 0


@pytest.mark.parametrize("how", ["asyncio", "anyio"])
async def test_an_interrupt_cancels_our_run(simulator, how) -> None:
    """This holds for both kinds of cancel of the waiting coroutine."""
    run = await started(simulator, timeout_seconds=3600)
    if how == "anyio":
        with anyio.move_on_after(0.3):
            await run.await_for_completion()
    else:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(run.await_for_completion(), 0.3)
    assert simulator.run(run.run_id).state == "CANCELED"


async def test_an_interrupt_does_not_stop_a_time_limits_cancel(simulator) -> None:
    """The time limit cancels the run, the request hangs, and then the wait is interrupted as well."""
    run = await started(simulator, timeout_seconds=2)
    simulator.inject(faults.Hang(1.0, then="cut", operation="cancelBoltRun"))
    waiting = asyncio.create_task(run.await_for_completion())
    await reached(simulator, lambda bolt: bolt.count("cancelBoltRun") > 0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert simulator.run(run.run_id).state == "CANCELED"


async def test_an_outage_never_cancels(simulator) -> None:
    """The wait stops after its longest outage and does not touch the healthy run."""
    run = await started(simulator, timeout_seconds=3600, max_outage_seconds=5)
    simulator.inject(faults.Status(503, operation="boltRunStatus", times=None))
    with pytest.raises(BoltUnavailable, match="not cancelled") as caught:
        await run.await_for_completion()
    assert caught.value.run_id == run.run_id
    assert simulator.run(run.run_id).cancel_requests == 0
    assert simulator.active_runs()
