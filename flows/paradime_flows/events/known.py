"""Asks Prefect which events it has stored.

Automations have already acted on a stored event. If a late observer sends this event again, the automations act a
second time.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from typing import Final
from uuid import UUID

import anyio
from prefect.events.filters import EventFilter, EventIDFilter, EventOccurredFilter

from paradime_flows.prefect_api import prefect_client, run_logger, times

# The largest page that Prefect returns.
_AT_ONCE: Final = 50


def is_recent(moment: datetime | None) -> bool:
    """Whether Prefect still ignores a repetition of an event from this moment. None counts as now."""
    if moment is None:
        return True
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return datetime.now(timezone.utc) - aware < timedelta(seconds=times().event_memory_seconds)


async def known_events(ids: Collection[UUID]) -> set[UUID]:
    """Return the ids of the events that Prefect has stored. If Prefect does not answer, return no ids.

    The caller then sends the events. An event that is sent twice does less harm than a missing event.

    Args:
        ids: The ids of events.
    """
    return await _stored(ids) or set()


async def unstored_events(ids: Collection[UUID]) -> set[UUID]:
    """Wait until Prefect has stored events that were just sent. Return the ids of the events that were not stored.

    The wait has a time limit. If Prefect does not answer, return no ids.

    Args:
        ids: The ids of the events.
    """
    left = set(ids)
    with anyio.move_on_after(times().event_stored_seconds):
        while left:
            found = await _stored(left)
            if found is None:
                return set()
            left -= found
            if left:
                await anyio.sleep(times().event_poll_seconds)
    return left


async def _stored(ids: Collection[UUID]) -> set[UUID] | None:
    wanted: list[UUID] = list(dict.fromkeys(ids))
    found: set[UUID] = set()
    try:
        async with prefect_client() as client:
            for at in range(0, len(wanted), _AT_ONCE):
                # The clock of another observer may be ahead of the clock of this machine.
                until = EventOccurredFilter(until=datetime.now(timezone.utc) + timedelta(days=1))
                some = EventFilter(id=EventIDFilter(id=wanted[at : at + _AT_ONCE]), occurred=until)
                with anyio.fail_after(times().prefect_answer_seconds):
                    page = await client.read_events(some, limit=_AT_ONCE)
                found |= {event.id for event in page.events}
    except Exception as error:  # noqa: BLE001 - an event must never harm a run
        run_logger().warning("Could not ask Prefect which events it has stored: %s", error)
        return None
    return found
