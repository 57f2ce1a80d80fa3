"""Which Bolt runs a flow run answers for, and which execution drives it: what the other packages use of it."""

from paradime_flows.ledger.callers import Caller, caller_of, tasks_around, write_callers, written_caller
from paradime_flows.ledger.earlier_calls import calls_by_tasks, earlier_calls, newer_call
from paradime_flows.ledger.entry import (
    FLOW_KEY,
    Ownership,
    read_ownerships,
    see_hold,
    tag_flow_run,
    write_ownership,
)
from paradime_flows.ledger.store import (
    Superseded,
    body_began_at,
    body_of,
    check_hold,
    lost_hold,
    supersede,
    take_hold,
    write_labels,
)
from paradime_flows.ledger.writer import FlowRunLedger

__all__ = [
    "FLOW_KEY",
    "Caller",
    "FlowRunLedger",
    "Ownership",
    "Superseded",
    "body_began_at",
    "body_of",
    "caller_of",
    "calls_by_tasks",
    "check_hold",
    "earlier_calls",
    "lost_hold",
    "newer_call",
    "read_ownerships",
    "see_hold",
    "supersede",
    "tag_flow_run",
    "take_hold",
    "tasks_around",
    "write_callers",
    "write_labels",
    "write_ownership",
    "written_caller",
]
