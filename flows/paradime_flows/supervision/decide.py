"""Decides what an event does to the Bolt run of a record.

Only this module makes these decisions. The functions in this module do no I/O.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from paradime_blocks.models import BoltRunState
from paradime_flows.choices import OnInterrupt, Policy
from paradime_flows.ledger.phase import Phase, Relation

if TYPE_CHECKING:
    from paradime_flows.ledger import Record


class Event(str, Enum):
    """What has happened to a flow run.

    Attributes:
        BEGUN: An execution of the flow run begins.
        CANCELLED: The flow run, or one of its parents, was cancelled.
        STOPPED: The flow run must stop, for example because its parent has ended.
        INTERRUPTED: SIGTERM or Ctrl-C has reached the process.
        PREFECT_TIMED_OUT: The flow run has reached Prefect's own time limit.
        CRASHED: The flow run's process has died.
        FLOW_FAILED: The flow run has failed.
        TIME_LIMIT: The Bolt run has reached its time limit.
        ORPHANED: The flow run has ended or sends no heartbeats any more. For a long time, nobody has resumed its Bolt
            run.
        REPLACED: A newer attempt requests something else, or no longer requests anything.
    """

    BEGUN = "begun"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    PREFECT_TIMED_OUT = "Prefect's time limit"
    CRASHED = "crashed"
    FLOW_FAILED = "flow failed"
    TIME_LIMIT = "time limit"
    ORPHANED = "orphaned"
    REPLACED = "replaced"


class Search(str, Enum):
    """The result of a search for the Bolt run of a trigger.

    No value says that the Bolt run was found. If the search finds the Bolt run, it writes the run to the record.

    Attributes:
        NOT_DONE: There was no search yet.
        ABSENT: The trigger has started no Bolt run.
        UNSURE: It is unknown whether the trigger has started a Bolt run, or which one.
        ALL_ENDED: The trigger may have started one of the candidates, and all candidates have ended.
    """

    NOT_DONE = "not done"
    ABSENT = "absent"
    UNSURE = "unsure"
    ALL_ENDED = "all ended"


class Action(str, Enum):
    """What to do.

    Attributes:
        NOTHING: Do nothing, because there is no Bolt run to track.
        SEARCH: Search for the Bolt run of the trigger, and decide again.
        CANCEL: Cancel the Bolt run.
        LEAVE: Leave the Bolt run running. A later execution resumes it.
        RELEASE: Stop tracking the Bolt run, because the Bolt run is not ours or the caller asked not to track it.
        KEEP: Keep the record open, because the Bolt run is unknown. The sweeper searches again.
        CLOSE: Close the record without a Bolt run. A later execution searches again and sends nothing.
        WITHDRAW: Note in the record that the trigger has started no Bolt run.
        RESUME: Wait for the known Bolt run.
        SEND: Send a trigger.
        REFUSE: Send no trigger, because it is unknown whether an earlier trigger has started a Bolt run.
    """

    NOTHING = "nothing"
    SEARCH = "search"
    CANCEL = "cancel"
    LEAVE = "leave"
    RELEASE = "release"
    KEEP = "keep"
    CLOSE = "close"
    WITHDRAW = "withdraw"
    RESUME = "resume"
    SEND = "send"
    REFUSE = "refuse"


_WHEN_IT_BEGINS = {
    Search.NOT_DONE: Action.SEARCH,
    Search.ABSENT: Action.SEND,
    Search.UNSURE: Action.REFUSE,
    Search.ALL_ENDED: Action.REFUSE,
}
_WHEN_IT_IS_OVER = {
    Search.NOT_DONE: Action.SEARCH,
    Search.ABSENT: Action.WITHDRAW,
    Search.UNSURE: Action.KEEP,
    Search.ALL_ENDED: Action.CLOSE,
}


def decide(record: Record, event: Event, search: Search = Search.NOT_DONE) -> Action:
    """Decide what an event does to the Bolt run of a record.

    Args:
        record: The record.
        event: What has happened.
        search: The result of a search for the record's Bolt run. The result is ignored if the Bolt run is known.
    """
    if event is Event.BEGUN:
        return _at_begin(record, search)
    if record.phase not in {Phase.SENDING, Phase.RUNNING}:
        return Action.NOTHING
    if not _ends(record, event):
        return Action.LEAVE
    if record.phase is Phase.SENDING:
        return _WHEN_IT_IS_OVER[search]
    return Action.CANCEL if record.relation is Relation.OURS and not record.left else Action.RELEASE


def _at_begin(record: Record, search: Search) -> Action:
    if record.phase is Phase.TAKEN:
        return Action.SEND
    if record.phase is Phase.REPORTED and record.state != BoltRunState.SUCCESS:
        return Action.SEND
    return _WHEN_IT_BEGINS[search] if record.run_id is None else Action.RESUME


def _ends(record: Record, event: Event) -> bool:
    """Whether an event ends the Bolt run, if the Bolt run is ours."""
    policies = {
        Event.INTERRUPTED: interrupt_policy(record.on_interrupt, is_rescheduled=record.is_rescheduled),
        # Prefect may start a flow run again after a SIGTERM, but not after its time limit.
        Event.PREFECT_TIMED_OUT: interrupt_policy(record.on_interrupt, is_rescheduled=False),
        Event.CRASHED: record.on_crash,
        Event.TIME_LIMIT: record.on_timeout,
    }
    if event is Event.FLOW_FAILED:
        # A flow of this package has handled its Bolt run before it failed. So only the Bolt run of a task is cancelled.
        # An unreachable Bolt run is not cancelled, because it may be healthy.
        return record.is_of_task and not record.unreachable
    return policies.get(event, "cancel") == "cancel"


def interrupt_policy(on_interrupt: OnInterrupt, *, is_rescheduled: bool) -> Policy:
    """Return what the option `on_interrupt` does to the Bolt runs of a process that is interrupted.

    "auto" depends on whether Prefect runs the flow run again after a SIGTERM.
    """
    if on_interrupt == "auto":
        return "leave" if is_rescheduled else "cancel"
    return on_interrupt


def event_of(state: Any) -> Event | None:
    """Return the event that a state in Prefect means; None if the state does not affect the flow run's Bolt run."""
    if state.is_cancelling() or state.is_cancelled():
        return Event.CANCELLED
    if state.is_crashed():
        return Event.CRASHED
    if state.name == "TimedOut":
        return Event.PREFECT_TIMED_OUT
    return Event.FLOW_FAILED if state.is_failed() else None


def event_of_orphan(state: Any, *, is_young: bool, time_is_up: bool) -> Event:
    """Return the event that an orphan means. An orphan is a flow run that no longer tracks its Bolt run.

    Args:
        state: The state of the flow run.
        is_young: Whether the flow run became an orphan so recently that a retry may still resume the Bolt run.
        time_is_up: Whether the time limit of the Bolt run has passed.
    """
    event = event_of(state) or Event.CRASHED
    if event is Event.CANCELLED:
        return event
    if not is_young or time_is_up or event is Event.FLOW_FAILED:
        return Event.ORPHANED
    return event
