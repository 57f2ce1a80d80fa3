"""What a process remembers about its flow runs, and for how long."""

from __future__ import annotations

from uuid import uuid4

from paradime_flows.ledger.store import Lease
from paradime_flows.prefect_api.supervisor import (
    FLOW_RUNS_KEPT,
    Supervisor,
    start_new_supervisor,
    the_supervisor,
)


def test_the_flow_runs_that_were_used_last_are_remembered() -> None:
    """A script can run any number of flows."""
    known, used, unused, executed = Supervisor(), uuid4(), uuid4(), uuid4()
    first, forgotten, alive = known.of(used), known.of(unused), known.of(executed)
    alive.is_alive = True
    for _ in range(FLOW_RUNS_KEPT):
        known.of(uuid4())
        assert known.of(used) is first
    assert known.of(unused) is not forgotten
    assert known.of(executed) is alive


def test_a_reset_process_remembers_nothing() -> None:
    """Each test needs that: no flow runs and tokens of earlier tests."""
    flow_run_id = uuid4()
    before = the_supervisor().of(flow_run_id)
    the_supervisor().leases[flow_run_id] = Lease(1, "an execution")
    start_new_supervisor()
    assert the_supervisor().of(flow_run_id) is not before
    assert the_supervisor().leases == {}
