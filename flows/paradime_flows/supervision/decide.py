"""Decides what an event does to the Bolt run of a record. Only this module decides this, and it does no I/O."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from paradime_blocks.models import BoltRunState
from paradime_flows.choices import OnInterrupt, Policy
from paradime_flows.ledger.phase import Phase

if TYPE_CHECKING:
    from paradime_flows.ledger import Record


class Event(str, Enum):
    """What has happened to a flow run, or what a process wants to do for the flow run."""

    BEGUN = "begun"  # An execution of the flow run begins.
    CANCELLED = "cancelled"  # The flow run, or one of its parents, was cancelled.
    INTERRUPTED = "interrupted"  # SIGTERM or Ctrl-C has reached the process.
    PREFECT_TIMED_OUT = "Prefect's time limit"
    CRASHED = "crashed"  # The process of the flow run has died.
    FLOW_FAILED = "flow failed"
    TIME_LIMIT = "time limit"  # The Bolt run has reached its time limit.
    ORPHANED = "orphaned"  # Nobody will resume the Bolt run: its flow run or a parent is over or replaced.
    SWEEPER_WAITS = "sweeper waits"  # The sweeper waits for the Bolt run in place of the flow run.


class Action(str, Enum):
    """What to do."""

    NOTHING = "nothing"  # There is no Bolt run to track.
    SEARCH = "search"  # Search for the Bolt run of the trigger, and decide again.
    CANCEL = "cancel"
    LEAVE = "leave"  # Leave the Bolt run running. A later execution resumes it.
    RELEASE = "release"  # Stop tracking the Bolt run: it is not ours, or the caller asked not to track it.
    KEEP = "keep"  # The Bolt run is unknown. Keep the record open, so that the sweeper searches again.
    WITHDRAW = "withdraw"  # Note in the record that the trigger has started no Bolt run.
    RESUME = "resume"  # Wait for the known Bolt run.
    SEND = "send"
    REFUSE = "refuse"  # Send no trigger: it is unknown whether an earlier trigger has started a Bolt run.


def decide(record: Record, event: Event, *, is_absent: bool | None = None) -> Action:
    """Decide what an event does to the Bolt run of a record.

    `is_absent` says whether a search has found for certain that the trigger has started none; None before a search.
    """
    if event is Event.BEGUN:
        return _at_begin(record, is_absent)
    if not record.is_open:
        return Action.NOTHING
    if not _ends(record, event):
        return Action.LEAVE
    if record.phase is Phase.SENDING:
        return {None: Action.SEARCH, True: Action.WITHDRAW, False: Action.KEEP}[is_absent]
    if event is Event.SWEEPER_WAITS:
        return Action.RESUME
    return Action.CANCEL if record.may_be_cancelled else Action.RELEASE


def _at_begin(record: Record, is_absent: bool | None) -> Action:
    if not record.is_unreported and record.state != BoltRunState.SUCCESS:
        return Action.SEND
    if record.run_id is not None:
        return Action.RESUME
    return {None: Action.SEARCH, True: Action.SEND, False: Action.REFUSE}[is_absent]


def _ends(record: Record, event: Event) -> bool:
    """Whether an event ends the work of the flow run on the Bolt run. If not, a policy leaves the Bolt run running."""
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
    """Return the policy for an interrupt. "auto" asks whether Prefect runs the flow run again after a SIGTERM."""
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


def event_of_orphan(state: Any, *, is_young: bool) -> Event:
    """Return the event that means that a flow run is gone. If `is_young`, a retry may still resume its Bolt run."""
    event = event_of(state) or Event.CRASHED
    return event if is_young and event is not Event.FLOW_FAILED else Event.ORPHANED
