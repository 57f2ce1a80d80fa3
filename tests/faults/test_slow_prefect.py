"""Prefect stores a write late, since its client repeats a refused write seconds later: nothing is lost by it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from faults.attempts import begun, record_of, running
from faults.bench import SCHEDULE, credentials_for
from prefect.client.schemas.objects import StateType
from prefect.flows import Flow

from paradime_blocks.errors import BoltAuthError, BoltUnavailable
from paradime_blocks.testing import faults
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.supervision import Event, clean_up_interrupted, reconcile_run

if TYPE_CHECKING:
    from collections.abc import Callable

# Prefect's client repeats a write after 2, 4 and 8 seconds.
LATE_SECONDS = 14


def stores_late(prefect: Any, is_late: Callable[[], bool] = lambda: True) -> Any:
    """Make Prefect store labels late while `is_late` returns True."""
    store = prefect.update_flow_run_labels

    async def late(*args: Any) -> None:
        await asyncio.sleep(LATE_SECONDS if is_late() else 0)
        await store(*args)

    return mock.patch.object(prefect, "update_flow_run_labels", late)


async def test_the_hook_leaves_what_an_interrupt_has_left(simulator, prefect) -> None:
    """The hook for the crash reads in the record that the run was left; so the record is written, however late."""
    flow_run_id = running(prefect)
    lifecycle = await begun(simulator, flow_run_id, on_interrupt="leave")
    await lifecycle.obtain()
    with stores_late(prefect):
        await clean_up_interrupted(lifecycle.record, credentials_for(simulator), asyncio.CancelledError())
    state = prefect.set_state(flow_run_id, StateType.CRASHED, "Crashed")
    await cancel_owned_runs(Flow(lambda: None, name="daily"), prefect.flow_runs[flow_run_id], state)
    assert [run.state for run in simulator.runs()] == ["RUNNING"]


async def test_a_refused_trigger_is_withdrawn(simulator, prefect) -> None:
    """Otherwise a clean-up would search for its run, and would cancel the run of another client."""
    flow_run_id = running(prefect)
    lifecycle = await begun(simulator, flow_run_id)
    simulator.inject(faults.Status(403, operation="triggerBoltRun"))
    with (
        stores_late(prefect, lambda: simulator.count("triggerBoltRun") > 0),
        pytest.raises(BoltAuthError),
    ):
        async with lifecycle.cleaning_up():
            await lifecycle.obtain()
    async with credentials_for(simulator).get_client() as client:
        other = await client.trigger_bolt_run(SCHEDULE)
    record = record_of(prefect, flow_run_id)
    await reconcile_run(record, credentials_for(simulator), Event.CANCELLED, "The flow run was cancelled.")
    assert simulator.run(other).state == "RUNNING"


async def test_a_cancel_that_is_read_back_with_the_outcome_counts(simulator, prefect, monkeypatch) -> None:
    """Prefect does not answer the question before the write, but the write reads the state back."""

    async def unanswered(_flow_run_id: object) -> None:
        """No answer."""

    flow_run_id = running(prefect)
    lifecycle = await begun(simulator, flow_run_id)
    await lifecycle.obtain()
    prefect.set_state(flow_run_id, StateType.CANCELLING)
    module = sys.modules["paradime_flows.runner.lifecycle"]
    monkeypatch.setattr(module, "reason_to_stop_if_known", unanswered)
    _, message = await lifecycle.finish(BoltUnavailable("Bolt is unreachable."))
    assert "is being cancelled" in str(message)
    assert [run.state for run in simulator.runs()] == ["CANCELED"]
