"""The events of a Bolt run: the run was triggered, has started, has ended, or is overdue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.events import Event

from paradime_blocks.models import BoltRunState, BoltRunStatus, run_url
from paradime_flows.events.names import (
    HasWorkspace,
    RunEvent,
    Workspace,
    ended_event,
    run_event_id,
    run_resource_id,
)
from paradime_flows.events.sending import Resource, send


@dataclass(frozen=True)
class RunSubject:
    """The Bolt run that an event is about.

    Attributes:
        run_id: The id of the Bolt run.
        workspace: The workspace of the Bolt run.
        schedule: The name or slug of the Bolt run's schedule; None if it is unknown.
        flow_run_id: The flow run that waits for the Bolt run; None for the current flow run.
    """

    run_id: int
    workspace: Workspace
    schedule: str | None = None
    flow_run_id: UUID | None = None

    @classmethod
    def of(
        cls, run_id: int, known: HasWorkspace, schedule: str | None, flow_run_id: UUID | None = None
    ) -> RunSubject:
        """Return the subject for a Bolt run. `known` is an object that names the workspace of the run."""
        return cls(run_id, Workspace.of(known), schedule, flow_run_id)

    def resource(self, state: BoltRunState | str | None) -> Resource:
        """Return the resource of an event, with the labels that automations match."""
        labels = {
            "schedule": self.schedule,
            "workspace": self.workspace.name,
            "state": None if state is None else str(state),
            "url": run_url(self.run_id),
        }
        return {
            "prefect.resource.id": run_resource_id(self.run_id),
            "prefect.resource.name": f"{self.schedule or 'Bolt run'} {self.run_id}",
            **{name: value for name, value in labels.items() if value is not None},
        }


def emit_triggered(subject: RunSubject, **payload: Any) -> Event | None:
    """Send the event that a Bolt run was triggered."""
    return _emit(RunEvent.TRIGGERED, subject, BoltRunState.STARTING, payload)


def emit_started(subject: RunSubject, **payload: Any) -> Event | None:
    """Send the event for a Bolt run that has begun to execute its commands."""
    return _emit(RunEvent.STARTED, subject, BoltRunState.RUNNING, payload)


def emit_if_running(subject: RunSubject, status: BoltRunStatus | None) -> bool:
    """Send the event for a Bolt run that has begun to execute its commands, if its status shows commands.

    Return whether the status shows commands.
    """
    if status is None or not status.commands:
        return False
    emit_started(subject, started_at=_text(status.started_at))
    return True


def emit_ended(
    subject: RunSubject,
    state: BoltRunState | None,
    *,
    cause: str | None = None,
    started_at: datetime | None = None,
    ended_at: datetime | None = None,
    **payload: Any,
) -> Event | None:
    """Send the event for the end of a Bolt run. If the Bolt run has not ended, send nothing.

    Args:
        subject: The Bolt run.
        state: The state of the Bolt run.
        cause: Why the Bolt run failed, as a sentence without secrets.
        started_at: When the Bolt run started.
        ended_at: When the Bolt run ended.
        payload: More data for the event.
    """
    event = None if state is None else ended_event(state)
    if event is None:
        return None
    times = {"started_at": _text(started_at), "ended_at": _text(ended_at)}
    return _emit(event, subject, state, {"cause": cause, **times, **payload})


def emit_overdue(subject: RunSubject, *, seconds: float, usual_seconds: float) -> Event | None:
    """Send the event `overdue`: a Bolt run takes much longer than usual for its schedule."""
    payload = {"seconds": round(seconds), "usual_seconds": round(usual_seconds)}
    return _emit(RunEvent.OVERDUE, subject, BoltRunState.RUNNING, payload)


def _emit(
    event: RunEvent, subject: RunSubject, state: BoltRunState | None, payload: dict[str, Any]
) -> Event | None:
    facts = {"run_id": subject.run_id, "schedule": subject.schedule, "url": run_url(subject.run_id)}
    return send(
        event.value,
        subject.resource(state),
        id=run_event_id(subject.workspace, subject.run_id, event),
        payload={**facts, "state": None if state is None else str(state), **payload},
        flow_run_id=subject.flow_run_id,
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
