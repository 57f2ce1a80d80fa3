"""The events that this package sends to Prefect, about Bolt runs, failed dbt tests and stale dbt sources.

The id of an event is computed from what happened. A flow run and the flow `watch_runs` may both see that a Bolt run has
ended. Then both send an event with the same id, and Prefect stores one event. The module
`paradime_flows.events.names` has the names, labels and ids.
"""

from paradime_flows.events.bolt_runs import (
    RunSubject,
    emit_ended,
    emit_if_running,
    emit_overdue,
    emit_started,
    emit_triggered,
)
from paradime_flows.events.dbt import emit_dbt_events
from paradime_flows.events.known import is_recent, known_events, unstored_events
from paradime_flows.events.names import (
    SOURCE_STALE,
    TEST_FAILED,
    RunEvent,
    Workspace,
    ended_event,
    event_id,
    run_event_id,
    run_resource_id,
)

__all__ = [
    "SOURCE_STALE",
    "TEST_FAILED",
    "RunEvent",
    "RunSubject",
    "Workspace",
    "emit_dbt_events",
    "emit_ended",
    "emit_if_running",
    "emit_overdue",
    "emit_started",
    "emit_triggered",
    "ended_event",
    "event_id",
    "is_recent",
    "known_events",
    "run_event_id",
    "run_resource_id",
    "unstored_events",
]
