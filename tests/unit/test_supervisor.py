"""What a process remembers about its flow runs, and for how long."""

from __future__ import annotations

from datetime import datetime, timezone
from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from paradime_flows.ledger.lease import Lease
from paradime_flows.prefect_api.supervisor import Supervisor, start_new_supervisor, the_supervisor
from paradime_flows.time_limits import Timing, use_timing


def context_of(flow_run_id: UUID) -> FlowRunContext:
    flow_run = FlowRun(id=flow_run_id, flow_id=uuid4(), name="one")
    return FlowRunContext.model_construct(flow_run=flow_run, start_time=datetime.now(timezone.utc))


def test_an_ended_execution_is_forgotten() -> None:
    """It stays while it may be needed, and while its hooks run."""
    known, flow_run_id = Supervisor(), uuid4()
    with context_of(flow_run_id) as context:
        first = known.of(flow_run_id)
    known.of(uuid4())
    assert known.of(flow_run_id) is first, "a task that outlives the attempt may need it"
    with use_timing(Timing(hooks_seconds=0.0)):
        known.of(uuid4())
        assert known.of(flow_run_id) is first
    del context
    known.of(uuid4())
    assert known.of(flow_run_id) is first, "its hooks run"
    with use_timing(Timing(hooks_seconds=0.0)):
        known.of(uuid4())
    assert known.of(flow_run_id) is not first


def test_a_flow_run_that_awaits_a_retry_is_remembered() -> None:
    """None of its code runs except the heartbeat thread."""
    known, flow_run_id = Supervisor(), uuid4()
    waits = known.of(flow_run_id)
    waits.alive_for = flow_run_id
    with use_timing(Timing(hooks_seconds=0.0)):
        known.of(uuid4())
        assert known.of(flow_run_id) is waits
        waits.alive_for = None
        known.of(uuid4())
        assert known.of(flow_run_id) is not waits


def test_each_record_left_is_taken_over_by_one_intent() -> None:
    """This lasts until it gives the record back."""
    known, left, one, other = Supervisor(), (uuid4(), "run"), uuid4(), uuid4()
    assert known.take_over(left, one, "run")
    assert known.take_over(left, one, "run")
    assert not known.take_over(left, one, "another key")
    assert not known.take_over(left, other, "run")
    known.of(one).taken_over.clear()
    assert known.take_over(left, other, "run")


def test_a_reset_process_remembers_nothing() -> None:
    """Each test needs that: no flow runs and tokens of earlier tests."""
    flow_run_id = uuid4()
    before = the_supervisor().of(flow_run_id)
    the_supervisor().leases[flow_run_id] = {Lease(1, "an execution")}
    start_new_supervisor()
    assert the_supervisor().of(flow_run_id) is not before
    assert the_supervisor().leases == {}
