"""Which flow runs count as orphans."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Scheduled

from paradime_blocks.trigger.request import TriggerRequest
from paradime_flows.ledger.phase import Phase
from paradime_flows.ledger.record import Record
from paradime_flows.ledger.store import Lease
from paradime_flows.supervision.decide import Event
from paradime_flows.supervision.orphans import idle_seconds, orphan_event
from paradime_flows.time_limits import times

LONG_AGO = datetime.now(timezone.utc) - timedelta(hours=2)
TOMORROW = datetime.now(timezone.utc) + timedelta(days=1)


def scheduled(
    name: str, *, limit_seconds: float = 86_400.0, due: datetime = LONG_AGO, **changes: Any
) -> FlowRun:
    """A flow run of a deployment that was scheduled two hours ago, and had a heartbeat before."""
    id_ = uuid4()
    record = Record(
        flow_run_id=id_,
        request=TriggerRequest(schedule_name="daily"),
        phase=Phase.RUNNING,
        run_id=7,
        began_at=LONG_AGO.timestamp(),
        limit_seconds=limit_seconds,
    )
    labels = {Lease(1, "before").label: f"{LONG_AGO.timestamp():.0f}", **record.to_labels()}
    state: Any = Scheduled(name=name, scheduled_time=due, timestamp=LONG_AGO)
    given = {"deployment_id": uuid4(), "labels": labels, **changes}
    return FlowRun(id=id_, flow_id=uuid4(), name="daily", state=state, **given)


@pytest.mark.parametrize(
    "flow_run, is_alive",
    [
        pytest.param(scheduled("Resuming"), True, id="it waits for a worker since it was resumed"),
        pytest.param(
            scheduled("Resuming", limit_seconds=60), False, id="its Bolt run is over its time limit"
        ),
        pytest.param(scheduled("AwaitingRetry"), False, id="its process should have retried it"),
        pytest.param(scheduled("AwaitingRetry", due=TOMORROW), True, id="its retry is not due yet"),
    ],
)
def test_a_flow_run_that_somebody_will_start_is_alive(flow_run: FlowRun, is_alive: bool) -> None:
    assert (idle_seconds(flow_run) < 0) is is_alive


@pytest.mark.parametrize("is_young", [True, False])
@pytest.mark.parametrize(
    "kind, name, event, later",
    [
        (StateType.CANCELLING, "Cancelling", Event.CANCELLED, Event.CANCELLED),
        (StateType.CANCELLED, "Cancelled", Event.CANCELLED, Event.CANCELLED),
        (StateType.CRASHED, "Crashed", Event.CRASHED, Event.ORPHANED),
        (StateType.RUNNING, "Running", Event.CRASHED, Event.ORPHANED),
        (StateType.FAILED, "TimedOut", Event.PREFECT_TIMED_OUT, Event.ORPHANED),
        (StateType.FAILED, "Failed", Event.ORPHANED, Event.ORPHANED),
        (StateType.COMPLETED, "Completed", None, None),
    ],
)
def test_the_event_that_the_sweeper_sees(
    kind: StateType, name: str, event: Event | None, later: Event | None, is_young: bool
) -> None:
    """A young orphan is left for a retry, if its policy says so."""
    age = times().left_for_retry_seconds + (-60 if is_young else 60)
    state: Any = State(type=kind, name=name, timestamp=datetime.now(timezone.utc) - timedelta(seconds=age))
    flow_run = FlowRun(flow_id=uuid4(), name="daily", state=state)
    assert orphan_event([flow_run], older_than_seconds=0) is (event if is_young else later)
    assert orphan_event([flow_run], older_than_seconds=3600) is (event if event is Event.CANCELLED else None)
