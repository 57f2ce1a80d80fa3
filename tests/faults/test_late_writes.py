"""Prefect's client repeats a write after HTTP 503, so it may arrive seconds later, when others have written since."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from faults.attempts import begun, record_of, running
from faults.bench import SCHEDULE, credentials_for
from faults.prefect_in_memory import Killed, Process, process
from prefect.client.schemas.objects import StateType

from paradime_blocks.trigger.send import Trigger
from paradime_flows.ledger import FlowRunLedger

if TYPE_CHECKING:
    from uuid import UUID

    from faults.prefect_in_memory import PrefectInMemory

    from paradime_blocks.testing import BoltSimulator


async def in_process(work: Any) -> Any:
    """Await it in a process of its own. A kill is returned."""

    async def run() -> Any:
        process.set(Process())
        try:
            return await work
        except BaseException as ended:  # noqa: BLE001 - the process is dead, or has stopped
            return ended

    return await asyncio.create_task(run())


def die(*_: Any, **__: Any) -> None:
    process.get().dead = True
    raise Killed


async def killed_before_it_sends(simulator: BoltSimulator, flow_run_id: UUID) -> None:
    """Write the intent, and die."""
    attempt = await begun(simulator, flow_run_id)
    with mock.patch.object(Trigger, "_send", side_effect=die):
        await attempt.obtain()


async def killed_before_it_writes_the_run(simulator: BoltSimulator, flow_run_id: UUID) -> None:
    """Start a Bolt run, and die."""
    attempt = await begun(simulator, flow_run_id)
    with mock.patch.object(FlowRunLedger, "started", side_effect=die):
        await attempt.obtain()


async def hook(simulator: BoltSimulator, prefect: PrefectInMemory, flow_run_id: UUID) -> None:
    from paradime_flows.supervision import Event, reconcile_run

    record = record_of(prefect, flow_run_id)
    await reconcile_run(record, credentials_for(simulator), Event.CRASHED, "The flow run crashed.")


@pytest.mark.guarantee(
    "Signals, kills, clocks",
    "Prefect stores what a killed flow run's hook has written only after the flow run was retried, and this process is "
    "killed, too",
    prefect="Crashed",
    bolt="CANCELED by the hook or the sweeper, or resumed by a retry",
    result="Nothing to do. No late write hides a Bolt run",
)
async def test_a_late_write_of_a_hook_does_not_hide_the_next_attempts_run(simulator, prefect) -> None:
    """It says that nothing was started, and arrives when the next attempt has started a run and is dead."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    flow_run_id = running(prefect)
    await in_process(killed_before_it_sends(simulator, flow_run_id))
    assert record_of(prefect, flow_run_id).is_open
    assert simulator.runs() == []
    prefect.set_state(flow_run_id, StateType.CRASHED)
    write = prefect.update_flow_run_labels
    waits, arrives = asyncio.Event(), asyncio.Event()

    async def late(written_to: UUID, labels: dict[str, Any]) -> None:
        if any('"intended_at"' not in str(value) and '"notes"' in str(value) for value in labels.values()):
            waits.set()
            await arrives.wait()
        await write(written_to, labels)

    with mock.patch.object(prefect, "update_flow_run_labels", late):
        hooks = asyncio.create_task(in_process(hook(simulator, prefect, flow_run_id)))
        await waits.wait()
        prefect.set_state(flow_run_id, StateType.RUNNING)
        with mock.patch.object(prefect, "update_flow_run_labels", write):
            await in_process(killed_before_it_writes_the_run(simulator, flow_run_id))
        prefect.set_state(flow_run_id, StateType.CRASHED)
        arrives.set()
        await hooks
    (run,) = simulator.active_runs()
    assert record_of(prefect, flow_run_id).is_open
    resumed = await in_process(hook(simulator, prefect, flow_run_id))
    assert resumed is None
    assert [(each.id, each.state) for each in simulator.runs()] == [(run.id, "CANCELED")]


async def test_a_run_that_an_older_holder_reports_late_is_known(simulator, prefect) -> None:
    """A dying process's write of the run's id arrives when the hook could not tell which run it is."""
    from paradime_flows.ledger.phase import Phase

    flow_run_id = running(prefect)
    prefect.late_by = []
    write = prefect.update_flow_run_labels
    arrives, waits = asyncio.Event(), asyncio.Event()

    async def late(written_to: UUID, labels: dict[str, Any]) -> None:
        if any(f'"phase":"{Phase.RUNNING.value}"' in str(value) for value in labels.values()):
            waits.set()
            await arrives.wait()
        await write(written_to, labels)

    async def attempt() -> None:
        await (await begun(simulator, flow_run_id)).obtain()

    with mock.patch.object(prefect, "update_flow_run_labels", late):
        first = asyncio.create_task(in_process(attempt()))
        await waits.wait()
        (ours,) = simulator.active_runs()
        # Another client starts a run that does the same: a search can tell neither.
        simulator.update_schedule(SCHEDULE, already_running="allow")
        simulator.start_run(SCHEDULE, actor="an API key")
        prefect.set_state(flow_run_id, StateType.CRASHED)
        with mock.patch.object(prefect, "update_flow_run_labels", write):
            await in_process(hook(simulator, prefect, flow_run_id))
        assert record_of(prefect, flow_run_id).run_id is None
        arrives.set()
        await first
    assert record_of(prefect, flow_run_id).run_id == ours.id
    await in_process(hook(simulator, prefect, flow_run_id))
    assert {each.id: each.state for each in simulator.runs()}[ours.id] == "CANCELED"
    assert len(simulator.active_runs()) == 1
