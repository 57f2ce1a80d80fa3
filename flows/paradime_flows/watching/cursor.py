"""The cursor of `watch_runs`: which Bolt runs are done, and which events were sent for the other Bolt runs.

A Bolt run is done if no more events are to be sent for it. Bolt lists runs by their ids. If two runs start together,
the run with the greater id may become visible first. So the cursor is not a single number: it has a number, `floor`,
and the id of each run above `floor` that is done. This module does no I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, Field, model_serializer, model_validator

from paradime_blocks.models import BoltRunRecord, BoltRunState
from paradime_flows.events import RunEvent, ended_event

# How many ids above `floor` the cursor keeps: more than the number of runs that can become visible late. The cursor
# must fit into a variable of Prefect, which can have 5,000 characters.
MOST_DONE: Final = 150
MOST_OPEN: Final = 100
# A run in one of these states has started. A run that was cancelled or skipped may never have started.
_STARTED: Final = frozenset({BoltRunState.RUNNING, BoltRunState.SUCCESS, BoltRunState.FAILED})
# A run that is late by less than a minute is not overdue, even if the run is usually very short.
_LEAST_LATE_SECONDS: Final = 60.0


class OpenRun(BaseModel):
    """A Bolt run that has not ended.

    Attributes:
        started: Whether the event that the run has started was sent. For a run of the first poll, this is true although
            the event was not sent.
        overdue: Whether the event that the run is overdue was sent.
        usual: How many seconds the runs of the schedule usually take; None if this is unknown.
    """

    started: bool = False
    overdue: bool = False
    usual: float | None = None

    @model_serializer
    def _short(self) -> str:
        # The text is short, because a variable can have few characters. `so600` is a run that has started, is overdue,
        # and usually takes ten minutes.
        usual = "" if self.usual is None else f"{self.usual:.0f}"
        return f"{'s' if self.started else ''}{'o' if self.overdue else ''}{usual}"

    @model_validator(mode="before")
    @classmethod
    def _long(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return {"started": "s" in value, "overdue": "o" in value, "usual": value.lstrip("so") or None}


class Cursor(BaseModel):
    """Which Bolt runs are done.

    Attributes:
        floor: All Bolt runs up to this id are done, except for the runs in `open`.
        done: The Bolt runs above the floor that are done.
        open: The Bolt runs that have not ended. The key is the id.
    """

    floor: int = 0
    done: list[int] = Field(default_factory=list)
    open: dict[int, OpenRun] = Field(default_factory=dict)

    def is_new(self, run_id: int) -> bool:
        """Whether a Bolt run has not been seen yet."""
        return run_id > self.floor and run_id not in self.done and run_id not in self.open


@dataclass(frozen=True)
class Seen:
    """An event of a Bolt run, as found by a poll of Bolt.

    Attributes:
        run: The Bolt run.
        event: What happened.
        seconds: How many seconds an overdue run has taken so far.
        usual: How many seconds the runs of the schedule usually take; None if this is unknown.
    """

    run: BoltRunRecord
    event: RunEvent
    seconds: float = 0.0
    usual: float | None = None


def first_cursor(runs: Iterable[BoltRunRecord], usual: Mapping[int, float]) -> Cursor:
    """Return the cursor after the first poll.

    The runs that have ended are done. For the other runs, only later events will be sent.

    Args:
        runs: The Bolt runs as they are now.
        usual: For each run, how many seconds the runs of its schedule usually take. The key is the id of the run.
    """
    known = list(runs)
    ended = sorted(run.id for run in known if run.state.is_terminal)
    running = {
        run.id: OpenRun(started=True, usual=usual.get(run.id)) for run in known if not run.state.is_terminal
    }
    floor = min((run.id for run in known), default=1) - 1
    return _trimmed(floor, ended, running)


def advance(
    cursor: Cursor,
    runs: Iterable[BoltRunRecord],
    *,
    now: datetime | None = None,
    usual: Mapping[int, float] | None = None,
    overdue_factor: float = 2.0,
    unsent: Collection[int] = (),
) -> tuple[list[Seen], Cursor]:
    """Return the events since the last poll, oldest run first, and the new cursor.

    Args:
        cursor: The cursor after the last poll.
        runs: The Bolt runs as they are now.
        now: The time by Bolt's clock; None if no run can be overdue.
        usual: For each new run, how many seconds the runs of its schedule usually take. The key is the id of the run.
        overdue_factor: A run is overdue if it takes this many times its usual duration.
        unsent: The runs whose events Prefect has not stored. The next poll shows their events again.
    """
    events: list[Seen] = []
    done, running = list(cursor.done), dict(cursor.open)
    for run in sorted((one for one in runs if one.id not in unsent), key=lambda one: one.id):
        known = running.get(run.id)
        if known is None and not cursor.is_new(run.id):
            continue
        if known is None:
            events.append(Seen(run, RunEvent.TRIGGERED))
        entry = (known or OpenRun(usual=(usual or {}).get(run.id))).model_copy()
        end = ended_event(run.state)
        if not entry.started and run.state in _STARTED:
            events.append(Seen(run, RunEvent.STARTED))
            entry.started = True
        if end is not None:
            events.append(Seen(run, end))
            running.pop(run.id, None)
            done.append(run.id)
            continue
        seconds = _seconds(run, now)
        if not entry.overdue and _is_late(seconds, entry.usual, overdue_factor):
            events.append(Seen(run, RunEvent.OVERDUE, seconds, entry.usual))
            entry.overdue = True
        running[run.id] = entry
    return events, _trimmed(cursor.floor, done, running, below=min(unsent, default=None))


def _seconds(run: BoltRunRecord, now: datetime | None) -> float:
    return 0.0 if now is None or run.start_dttm is None else (now - run.start_dttm).total_seconds()


def _is_late(seconds: float, usual: float | None, factor: float) -> bool:
    return usual is not None and seconds - usual >= max(_LEAST_LATE_SECONDS, usual * (factor - 1))


def _trimmed(floor: int, done: list[int], running: dict[int, OpenRun], *, below: int | None = None) -> Cursor:
    """Return a cursor that fits into a variable. If there are too many ids, the floor rises above the oldest ids."""
    ordered = sorted(set(done))
    if len(ordered) > MOST_DONE:
        highest = ordered[-MOST_DONE - 1]
        floor = max(floor, highest if below is None else min(highest, below - 1))
    kept = dict(sorted(running.items())[-MOST_OPEN:])
    return Cursor(floor=floor, done=[id_ for id_ in ordered if id_ > floor], open=kept)
