"""The records of the Bolt runs that a flow run tracks, and the flow run's lease. Other packages import these names."""

from paradime_flows.ledger.callers import Caller, caller_of, tasks_around, write_callers, written_caller
from paradime_flows.ledger.earlier_calls import calls_by_tasks, earlier_calls, newer_call
from paradime_flows.ledger.record import (
    FLOW_KEY,
    Ownership,
    read_if_leased,
    read_ownerships,
    tag_flow_run,
    write_ownership,
)
from paradime_flows.ledger.store import (
    Superseded,
    check_lease,
    execution_began_at,
    execution_of,
    lost_lease,
    supersede,
    take_lease,
    write_labels,
)
from paradime_flows.ledger.writer import FlowRunLedger

__all__ = [
    "FLOW_KEY",
    "Caller",
    "FlowRunLedger",
    "Ownership",
    "Superseded",
    "caller_of",
    "calls_by_tasks",
    "check_lease",
    "earlier_calls",
    "execution_began_at",
    "execution_of",
    "lost_lease",
    "newer_call",
    "read_if_leased",
    "read_ownerships",
    "supersede",
    "tag_flow_run",
    "take_lease",
    "tasks_around",
    "write_callers",
    "write_labels",
    "write_ownership",
    "written_caller",
]
