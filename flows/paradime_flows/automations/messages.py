"""The messages of our automations: Jinja templates, which Prefect fills in with the event's payload."""

from __future__ import annotations

from typing import Final

_RUN: Final = "Bolt run {{ event.payload.run_id }} of {{ event.payload.schedule }}"
_ENDED: Final = _RUN + ": {{ event.payload.state }}. {{ event.payload.cause or '' }}"
_OVERDUE: Final = (
    _RUN + " has been running for {{ (event.payload.seconds / 60)|round|int }} minutes; "
    "usually it takes {{ (event.payload.usual_seconds / 60)|round|int }}."
)
_STALE: Final = (
    "{{ event.payload.unique_id }}: {{ event.payload.status }}. "
    "The newest row is from {{ event.payload.max_loaded_at or 'an unknown time' }}."
)
_TEST: Final = "{{ event.payload.unique_id }}: {{ event.payload.message or event.payload.status }}"
# If the server does not know the address of its UI, the message has no link to the flow run.
_FLOW_RUN: Final = "{% if flow_run and flow_run|ui_url %}\nFlow run: {{ flow_run|ui_url }}{% endif %}"
_LINKS: Final = "\n{{ event.payload.url }}" + _FLOW_RUN

SUBJECTS: Final = {
    "failed": "Bolt run of {{ event.payload.schedule }} failed",
    "canceled": "Bolt run of {{ event.payload.schedule }} canceled",
    "skipped": "Bolt run of {{ event.payload.schedule }} skipped",
    "completed": "Bolt run of {{ event.payload.schedule }} completed",
    "overdue": "Bolt run of {{ event.payload.schedule }} is overdue",
    "source-stale": "dbt source {{ event.payload.unique_id }} is stale",
    "test-failed": "dbt test {{ event.payload.unique_id }} failed",
}
_OTHERS: Final = {"overdue": _OVERDUE, "source-stale": _STALE, "test-failed": _TEST}
BODIES: Final = {what: _OTHERS.get(what, _ENDED) + _LINKS for what in SUBJECTS}
