"""The view of a Bolt run without Prefect: what it does when the flow stops waiting."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from support.credentials import credentials_for

from paradime_blocks import BoltRun
from paradime_blocks.polling import Observation
from paradime_blocks.testing import SimulatedCommand
from paradime_flows.live.view import LiveView
from paradime_flows.prefect_api import ShownTaskRun
from paradime_flows.supervision.watch import TerminationSignal
from paradime_flows.time_limits import Timing, use_timing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paradime_blocks.dbt import Record
    from paradime_blocks.testing import BoltSimulator


class Notebook:
    """A journal in memory that can hang or fail."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.stored: list[str] = []
        self.hangs = self.fails = False

    async def read(self, run_id: int) -> None:
        pass

    def show(self, records: Sequence[Record], shown: ShownTaskRun | None = None) -> None:
        self.shown += [line for record in records for line in record.text.split("\n") if "── " not in line]

    async def write(self, run_id: int, kept: str) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise ConnectionError("Prefect is unreachable")
        self.stored = list(self.shown)


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """The journal of each view in the test."""
    notebook = Notebook()
    monkeypatch.setattr("paradime_flows.live.view.FlowRunJournal", lambda *_: notebook)
    monkeypatch.setattr("paradime_flows.live.view.run_logger", lambda: logging.getLogger("of-a-run"))
    return notebook


async def interrupted(
    simulator: BoltSimulator, journal: Notebook, interrupt: BaseException, *, hangs: bool = False
) -> None:
    """Interrupt a flow while lines 20 to 39 were fetched, and wait for the next batch."""
    output = "".join(f"line {n}\n" for n in range(60))
    command = SimulatedCommand("dbt run", duration_seconds=60, stdout=output)
    simulator.add_schedule("daily", commands=[command], setup_commands=False, starting_seconds=0)
    run = BoltRun(run_id=simulator.start_run("daily"), credentials=credentials_for(simulator))
    simulator.clock.advance(20.5)
    async with run.credentials.get_client() as client:
        status = await client.get_bolt_run(run.run_id, logs=False)
    with use_timing(Timing(log_batch_seconds=1000, log_longest_batch_seconds=1000)):
        async with LiveView(uuid4(), "daily", command_task_runs=False) as view:
            await view.watch(run, Observation(status))
            await asyncio.sleep(30)
            assert journal.stored == output.splitlines()[:20]
            simulator.clock.advance(20)
            await asyncio.sleep(30)
            assert journal.stored == output.splitlines()[:20]
            journal.hangs = hangs
            raise interrupt


@pytest.mark.parametrize(
    "interrupt", [TerminationSignal(15), asyncio.CancelledError(), ValueError()], ids=repr
)
async def test_lines_that_were_fetched_are_logged_after_an_interrupt(
    simulator: BoltSimulator, journal: Notebook, interrupt: BaseException
) -> None:
    """They may have waited for ten seconds, and they are what a person wants to see then."""
    with pytest.raises(type(interrupt)):
        await interrupted(simulator, journal, interrupt)
    assert journal.stored == [f"line {n}" for n in range(40)]


async def test_an_interrupt_does_not_wait_long_for_prefect(
    simulator: BoltSimulator, journal: Notebook
) -> None:
    """The process may soon be killed. The position is not stored, so the next attempt logs the lines."""
    with pytest.raises(TerminationSignal):
        await asyncio.wait_for(
            interrupted(simulator, journal, TerminationSignal(15), hangs=True), 30 + 30 + 5
        )
    assert journal.stored == [f"line {n}" for n in range(20)]


async def test_the_task_run_of_a_command_ends_after_prefect_has_its_output(
    simulator: BoltSimulator, journal: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Prefect refuses the lines, the task run waits for them."""
    begin = ShownTaskRun.begin
    begun: list[ShownTaskRun] = []

    async def begin_and_note(name: str) -> ShownTaskRun:
        begun.append(await begin(name))
        return begun[-1]

    monkeypatch.setattr(ShownTaskRun, "begin", begin_and_note)
    commands = [SimulatedCommand("dbt seed", 10, stdout="done\n"), SimulatedCommand("dbt run", 1000)]
    simulator.add_schedule("daily", commands=commands, setup_commands=False, starting_seconds=0)
    run = BoltRun(run_id=simulator.start_run("daily"), credentials=credentials_for(simulator))
    simulator.clock.advance(15)
    async with run.credentials.get_client() as client:
        status = await client.get_bolt_run(run.run_id, logs=False)
    journal.fails = True
    async with LiveView(uuid4(), "daily") as view:
        await view.watch(run, Observation(status))
        await asyncio.sleep(10)
        assert (journal.shown, journal.stored) == (["done"], [])
        assert not begun[0].ended.done()
        journal.fails = False
        await asyncio.sleep(10)
        assert journal.stored == ["done"]
        assert begun[0].ended.done()
        assert not begun[1].ended.done()
