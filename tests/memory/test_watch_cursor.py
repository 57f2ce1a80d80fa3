"""The cursor of `watch_runs`, with runs that become visible in any order, and with lost flow runs."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone

from hypothesis import given
from hypothesis import strategies as st

from paradime_blocks.models import BoltRunRecord
from paradime_flows.events import RunEvent
from paradime_flows.watching.cursor import Cursor, advance, first_cursor

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
WHOLE = [RunEvent.TRIGGERED, RunEvent.STARTED, RunEvent.COMPLETED]


def stored(cursor: Cursor) -> Cursor:
    """The cursor as the next flow run reads it."""
    return Cursor.model_validate_json(cursor.model_dump_json(exclude_defaults=True))


@given(
    visible=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    lengths=st.lists(st.integers(0, 4), min_size=12, max_size=12),
    lost=st.sets(st.integers(0, 14)),
)
def test_each_run_is_reported_once_whatever_restarts(visible, lengths, lost):
    """Runs become visible in any order and end at any time; a flow run that is lost stores no cursor.

    What a lost flow run has sent is sent again with the same ids, which Prefect stores once.
    """
    cursor, stored_events = stored(first_cursor([], {})), []
    for look in range(16):
        found = [
            BoltRunRecord(
                id=n + 1, state="SUCCESS" if look >= at + lengths[n] else "RUNNING", start_dttm=NOON
            )
            for n, at in enumerate(visible)
            if at <= look
        ]
        seen, after = advance(cursor, found)
        stored_events += [(one.run.id, one.event) for one in seen]
        if look not in lost:
            cursor = stored(after)
    assert set(stored_events) == {(n + 1, event) for n in range(len(visible)) for event in WHOLE}
    if not lost:
        assert set(Counter(stored_events).values()) == {1}
