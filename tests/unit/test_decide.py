"""What an event does to a Bolt run: the table, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from paradime_blocks.models import BoltRunState
from paradime_flows.ledger import Record as RealRecord
from paradime_flows.ledger.phase import Phase, Relation
from paradime_flows.supervision.decide import Action, Event, decide, event_of, event_of_orphan

if TYPE_CHECKING:
    from paradime_flows.choices import OnInterrupt, Policy


@dataclass
class Record:
    """A record that is running, ours, and of a flow of this package, unless a case says otherwise."""

    phase: Phase = Phase.RUNNING
    relation: Relation = Relation.OURS
    run_id: int | None = 7
    state: BoltRunState | None = BoltRunState.RUNNING
    on_interrupt: OnInterrupt = "auto"
    is_rescheduled: bool = False
    on_crash: Policy = "cancel"
    on_timeout: Policy = "cancel"
    left: bool = False
    unreachable: bool = False
    is_of_task: bool = False
    is_open = RealRecord.is_open
    is_unreported = RealRecord.is_unreported
    may_be_cancelled = RealRecord.may_be_cancelled


ENDS = set(Event) - {Event.BEGUN, Event.FLOW_FAILED, Event.SWEEPER_WAITS}
LEAVE = {"on_interrupt": "leave", "on_crash": "leave", "on_timeout": "leave"}
LEFT_BY_POLICY = {Event.INTERRUPTED, Event.PREFECT_TIMED_OUT, Event.CRASHED, Event.TIME_LIMIT}


@pytest.mark.parametrize("event", sorted(ENDS))
def test_each_event_cancels_a_run_of_ours(event):
    assert decide(Record(), event) is Action.CANCEL


@pytest.mark.parametrize("event", sorted(ENDS))
def test_a_policy_leaves_the_run_at_its_own_event_only(event):
    expected = Action.LEAVE if event in LEFT_BY_POLICY else Action.CANCEL
    assert decide(Record(**LEAVE), event) is expected


@pytest.mark.parametrize(
    "policy, events",
    [
        ("on_interrupt", {Event.INTERRUPTED, Event.PREFECT_TIMED_OUT}),
        ("on_crash", {Event.CRASHED}),
        ("on_timeout", {Event.TIME_LIMIT}),
    ],
)
def test_the_events_of_each_policy(policy, events):
    assert {each for each in ENDS if decide(Record(**{policy: "leave"}), each) is Action.LEAVE} == events


@pytest.mark.parametrize("event", sorted(ENDS))
def test_an_interrupt_leaves_the_run_of_a_flow_run_that_prefect_runs_again(event):
    """Nothing else does, if no policy says so."""
    expected = Action.LEAVE if event is Event.INTERRUPTED else Action.CANCEL
    assert decide(Record(is_rescheduled=True), event) is expected


@pytest.mark.parametrize("event", sorted(ENDS))
def test_a_policy_to_cancel_applies_wherever_the_flow_run_runs(event):
    assert decide(Record(on_interrupt="cancel", is_rescheduled=True), event) is Action.CANCEL


@pytest.mark.parametrize("event", sorted(ENDS))
@pytest.mark.parametrize(
    "record",
    [Record(relation=Relation.MAYBE_OURS), Record(relation=Relation.ATTACHED), Record(left=True)],
    ids=["maybe ours", "attached", "left"],
)
def test_a_run_that_is_not_ours_alone_is_released(record, event):
    assert decide(record, event) is Action.RELEASE


@pytest.mark.parametrize("event", sorted({*ENDS, Event.FLOW_FAILED, Event.SWEEPER_WAITS}))
@pytest.mark.parametrize("phase", [Phase.TAKEN, Phase.ENDED, Phase.RELEASED, Phase.REPORTED])
def test_nothing_happens_to_a_record_that_is_not_open(phase, event):
    assert decide(Record(phase), event) is Action.NOTHING


@pytest.mark.parametrize("event", sorted({*ENDS, Event.SWEEPER_WAITS}))
@pytest.mark.parametrize(
    "is_absent, action",
    [(None, Action.SEARCH), (True, Action.WITHDRAW), (False, Action.KEEP)],
)
@pytest.mark.parametrize("relation", Relation)
def test_an_unknown_run_is_searched_before_anything_else(event, is_absent, action, relation):
    assert decide(Record(Phase.SENDING, relation, run_id=None), event, is_absent=is_absent) is action


@pytest.mark.parametrize("event", sorted(LEFT_BY_POLICY))
@pytest.mark.parametrize("is_absent", [None, True, False])
def test_an_unknown_run_that_is_left_is_not_searched(event, is_absent):
    record = Record(Phase.SENDING, run_id=None, **LEAVE)
    assert decide(record, event, is_absent=is_absent) is Action.LEAVE


def test_the_sweeper_waits_for_a_known_run_whatever_the_policies_say():
    assert decide(Record(**LEAVE), Event.SWEEPER_WAITS) is Action.RESUME


@pytest.mark.parametrize(
    "is_of_task, unreachable, action",
    [
        (True, False, Action.CANCEL),
        (True, True, Action.LEAVE),
        (False, False, Action.LEAVE),
        (False, True, Action.LEAVE),
    ],
)
def test_a_failed_flow_ends_the_runs_of_its_tasks(is_of_task, unreachable, action):
    """But not if the flow failed since Bolt was unreachable: the run may be healthy."""
    assert decide(Record(is_of_task=is_of_task, unreachable=unreachable), Event.FLOW_FAILED) is action


SUCCESS, FAILED = BoltRunState.SUCCESS, BoltRunState.FAILED


@pytest.mark.parametrize(
    "phase, run_id, state, action",
    [
        (Phase.TAKEN, None, None, Action.SEND),
        (Phase.SENDING, None, None, Action.SEARCH),
        (Phase.RUNNING, 7, BoltRunState.RUNNING, Action.RESUME),
        (Phase.ENDED, 7, FAILED, Action.RESUME),
        (Phase.ENDED, 7, SUCCESS, Action.RESUME),
        (Phase.ENDED, None, None, Action.SEARCH),
        (Phase.RELEASED, 7, BoltRunState.RUNNING, Action.RESUME),
        (Phase.REPORTED, 7, SUCCESS, Action.RESUME),
        (Phase.REPORTED, 7, FAILED, Action.SEND),
        (Phase.REPORTED, 7, BoltRunState.RUNNING, Action.SEND),
        (Phase.REPORTED, None, None, Action.SEND),
    ],
)
@pytest.mark.parametrize("relation", Relation)
def test_the_beginning_of_an_execution(phase, run_id, state, action, relation):
    """Whosever the Bolt run is, no second one is triggered beside it."""
    assert decide(Record(phase, relation, run_id, state), Event.BEGUN) is action


@pytest.mark.parametrize("phase", [Phase.SENDING, Phase.ENDED])
@pytest.mark.parametrize("is_absent, action", [(True, Action.SEND), (False, Action.REFUSE)])
def test_a_trigger_is_sent_again_only_if_the_first_has_started_nothing(phase, is_absent, action):
    record = Record(phase, run_id=None, state=None)
    assert decide(record, Event.BEGUN, is_absent=is_absent) is action


def _state(kind: str, name: str | None = None) -> SimpleNamespace:
    kinds = ("cancelling", "cancelled", "crashed", "failed", "completed", "running")
    return SimpleNamespace(name=name, **{f"is_{each}": lambda each=each: each == kind for each in kinds})


STATES = {
    "cancelling": (_state("cancelling"), Event.CANCELLED),
    "cancelled": (_state("cancelled"), Event.CANCELLED),
    "crashed": (_state("crashed"), Event.CRASHED),
    "timed out": (_state("failed", "TimedOut"), Event.PREFECT_TIMED_OUT),
    "failed": (_state("failed"), Event.FLOW_FAILED),
    "completed": (_state("completed"), None),
    "running": (_state("running"), None),
}


@pytest.mark.parametrize("state, event", STATES.values(), ids=STATES)
def test_the_event_of_a_flow_runs_state(state, event):
    assert event_of(state) is event


@pytest.mark.parametrize("is_young", [True, False])
@pytest.mark.parametrize("state", STATES)
def test_the_event_that_the_sweeper_sees(state, is_young):
    """A young orphan is left for a retry, if its policy says so."""
    found = event_of_orphan(STATES[state][0], is_young=is_young)
    is_left = is_young and state != "failed"
    assert found is ((STATES[state][1] or Event.CRASHED) if is_left else Event.ORPHANED)
