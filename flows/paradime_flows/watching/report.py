"""Sends the events that a poll of Bolt has found, and returns the runs whose events Prefect has not stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from paradime_blocks.models import BoltRunRecord
from paradime_flows.events import (
    RunEvent,
    RunSubject,
    emit_ended,
    emit_overdue,
    emit_started,
    emit_triggered,
    known_events,
    run_event_id,
    unstored_events,
)
from paradime_flows.watching.cursor import Seen


async def report(
    seen: Iterable[Seen], subjects: Mapping[int, RunSubject]
) -> tuple[dict[int, list[RunEvent]], set[int]]:
    """Send the events that Prefect does not have yet.

    Args:
        seen: The events.
        subjects: The subject of each Bolt run. The key is the id of the run. A run without a subject is left out.

    Returns:
        The events that were sent for each run, and the ids of the runs whose events Prefect has not stored in time.
    """
    wanted = {_id(one, subjects): one for one in seen if one.run.id in subjects}
    known = await known_events(wanted)
    sent: dict[int, list[RunEvent]] = {}
    ids: dict[UUID, int] = {}
    for id_, one in wanted.items():
        if id_ not in known and _send(one, subjects[one.run.id]):
            sent.setdefault(one.run.id, []).append(one.event)
            ids[id_] = one.run.id
    return sent, {ids[id_] for id_ in await unstored_events(ids)}


def _id(seen: Seen, subjects: Mapping[int, RunSubject]) -> UUID:
    return run_event_id(subjects[seen.run.id].workspace, seen.run.id, seen.event)


def _send(seen: Seen, subject: RunSubject) -> bool:
    run = seen.run
    if seen.event is RunEvent.TRIGGERED:
        event = emit_triggered(subject, **_facts(run))
    elif seen.event is RunEvent.STARTED:
        event = emit_started(subject, **_facts(run))
    elif seen.event is RunEvent.OVERDUE:
        event = emit_overdue(subject, seconds=seen.seconds, usual_seconds=seen.usual or 0.0)
    else:
        event = emit_ended(
            subject, run.state, started_at=run.start_dttm, ended_at=run.end_dttm, actor=run.actor
        )
    return event is not None


def _facts(run: BoltRunRecord) -> dict[str, str | None]:
    return {"started_at": run.start_dttm.isoformat() if run.start_dttm else None, "actor": run.actor}
