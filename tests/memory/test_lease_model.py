"""Every interleaving of two attempts and a settler, each killed at any step, also with a write that arrives later.

The steps are a model. What the labels mean and what is to be done is decided by the package itself: `Lease`, `fold`
and `decide`.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import pytest
from prefect.client.schemas.objects import FlowRun

from paradime_blocks.models import BoltRunState
from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest
from paradime_flows.ledger import Phase, Record, read_records
from paradime_flows.ledger.store import SETTLER, Lease, top_lease
from paradime_flows.supervision import Action, Event, decide

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOW_RUN = UUID(int=1)
REQUEST = TriggerRequest(schedule_name="daily")
ENDED = ("dead", "gone", "end")
# Two attempts that begin at once may take the lease from each other again and again.
MOST_EPOCHS = 3


class Entry(NamedTuple):
    """What a holder has written about the intent.

    Attributes:
        lease: Its lease.
        phase: How far the intent is.
        run: The Bolt run; None if it is unknown.
        trigger: Which trigger it is; None if none was sent.
    """

    lease: Lease
    phase: Phase
    run: int | None
    trigger: int | None


Label = Lease | Entry
Labels = frozenset[Label]


@dataclass(frozen=True)
class Process:
    """An attempt (`one`, `two`) or the settler.

    Attributes:
        name: Its holder.
        at: The step that it takes next.
        lease: The lease that it takes, or has taken.
        seen: The lease that it has seen.
        record: What it has read, or will write, about the intent.
        late: A write of this dead process that has not arrived yet.
    """

    name: str
    at: str = "start"
    lease: Lease | None = None
    seen: Lease | None = None
    record: Entry | None = None
    late: Label | None = None

    @property
    def writes(self) -> Label | None:
        """The label that its next step writes; None if it writes none."""
        if self.at in {"take", "settle"}:
            return self.lease
        return self.record if self.at.startswith("write") else None


@dataclass(frozen=True)
class State:
    """Everything: the labels of the flow run, the runs in Bolt (whether each is active), and the processes."""

    labels: Labels
    runs: tuple[bool, ...]
    processes: tuple[Process, ...]

    def with_process(self, new: Process) -> State:
        changed = tuple(new if each.name == new.name else each for each in self.processes)
        return replace(self, processes=changed)


@functools.cache
def stored(entry: Entry) -> dict[str, object]:
    intent = None if entry.trigger is None else TriggerIntent(latest_run_id=0, intended_at=entry.trigger)
    state = None if entry.run is None else BoltRunState.RUNNING
    if entry.phase in {Phase.ENDED, Phase.REPORTED}:
        state = BoltRunState.FAILED
    record = Record(
        flow_run_id=FLOW_RUN,
        lease=entry.lease,
        request=REQUEST,
        intent=intent,
        run_id=entry.run,
        phase=entry.phase,
        state=state,
    )
    return {name: value for name, value in record.to_labels().items() if name.endswith(entry.lease.holder)}


@functools.cache
def read(labels: Labels) -> tuple[Lease, Record]:
    """Return the lease that counts, and the record, as the package reads them from the flow run's labels."""
    flow_run = FlowRun.model_construct(id=FLOW_RUN, labels={})
    for label in labels:
        flow_run.labels.update({label.label: ""} if isinstance(label, Lease) else stored(label))
    (found,) = read_records(flow_run) or [Record(flow_run_id=FLOW_RUN, request=REQUEST)]
    return top_lease(flow_run.labels), found


def leases(labels: Labels) -> dict[str, str]:
    return {label.label: "" for label in labels if isinstance(label, Lease)}


def next_lease_of(state: State, each: Process) -> Lease:
    return Lease(top_lease(leases(state.labels)).epoch + 1, each.name)


def entry_of(found: Record, lease: Lease) -> Entry:
    trigger = None if found.intent is None else int(found.intent.intended_at)
    return Entry(lease, found.phase, found.run_id, trigger)


class Model:
    """The steps of each process.

    Args:
        looks_again: Whether an attempt reads the leases once more between the intent and the trigger.
        one_writer: Whether each holder has a label of its own for the intent.
    """

    def __init__(self, *, looks_again: bool = True, one_writer: bool = True) -> None:
        self.looks_again = looks_again
        self.one_writer = one_writer

    def with_label(self, state: State, label: Label) -> State:
        """Write a label in place of the one of the same name."""

        def is_replaced(each: Label) -> bool:
            if isinstance(each, Lease) or isinstance(label, Lease):
                return False
            return each.lease == label.lease or not self.one_writer

        kept = {each for each in state.labels if not is_replaced(each)}
        return replace(state, labels=frozenset({*kept, label}))

    def steps(self, state: State) -> Iterator[State]:
        for each in state.processes:
            if each.late is not None:
                yield self.with_label(state, each.late).with_process(replace(each, late=None))
            if each.at in ENDED:
                continue
            if each.at != "start":
                yield state.with_process(replace(each, at="dead"))
                if each.writes is not None:
                    yield state.with_process(replace(each, at="dead", late=each.writes))
            step = getattr(self, each.at.split(":")[0])
            yield from step(state, each)

    def start(self, state: State, each: Process) -> Iterator[State]:
        dead = any(one.at == "dead" for one in state.processes)
        if each.name == "settler":
            lease, found = read(state.labels)
            # The hook begins when a process has died, and something is open.
            if dead and decide(found, Event.CRASHED) is not Action.NOTHING:
                lease_to_take = Lease(lease.epoch + 1, f"{SETTLER}{each.name}")
                yield state.with_process(replace(each, at="look", seen=lease, lease=lease_to_take))
        elif each.name == "one" or state.processes[0].at != "start":
            yield state.with_process(replace(each, at="take", lease=next_lease_of(state, each)))

    # An attempt

    def take(self, state: State, each: Process) -> Iterator[State]:
        assert each.lease is not None
        yield self.with_label(state, each.lease).with_process(replace(each, at="begin"))

    def begin(self, state: State, each: Process) -> Iterator[State]:
        """Read the lease back. If it counts, what was read with it is the record to resume."""
        top, found = read(state.labels)
        assert each.lease is not None
        if top != each.lease:
            if top.epoch < MOST_EPOCHS:
                yield state.with_process(replace(each, at="take", lease=next_lease_of(state, each)))
            return
        new = replace(each, record=entry_of(found, each.lease))
        yield state.with_process(self.as_decided(new, found))

    def as_decided(self, each: Process, found: Record, *, is_absent: bool | None = None) -> Process:
        action = decide(found, Event.BEGUN, is_absent=is_absent)
        assert each.record is not None
        if action is Action.SEARCH:
            return replace(each, at="search")
        if action is Action.RESUME:
            return replace(each, at="write:wait", record=each.record._replace(phase=Phase.RUNNING))
        assert action is Action.SEND
        assert each.lease is not None
        trigger = each.lease.epoch * 10 + (each.name == "two")
        record = Entry(each.lease, Phase.SENDING, None, trigger)
        return replace(each, at="write:check", record=record)

    def search(self, state: State, each: Process) -> Iterator[State]:
        """Find the active run. A search takes longer than any process stands before its trigger."""
        if any(one.at == "send" for one in state.processes):
            return
        assert each.record is not None
        active = [run for run, is_active in enumerate(state.runs) if is_active]
        if active:
            record = each.record._replace(phase=Phase.RUNNING, run=active[0])
            at = "hold" if each.name == "settler" else "write:wait"
            yield state.with_process(replace(each, at=at, record=record))
        elif each.name == "settler":
            yield state.with_process(replace(each, at="hold"))
        else:
            yield state.with_process(self.as_decided(each, self.found_of(each), is_absent=True))

    @staticmethod
    def found_of(each: Process) -> Record:
        """Return the record as this process has it in memory."""
        assert each.record is not None
        return read(frozenset({each.record}))[1]

    def write(self, state: State, each: Process) -> Iterator[State]:
        """Write the own label, and no other."""
        assert each.record is not None
        assert each.record.lease.holder.endswith(each.name)
        yield self.with_label(state, each.record).with_process(replace(each, at=each.at.split(":")[1]))

    def check(self, state: State, each: Process) -> Iterator[State]:
        assert each.lease is not None
        if each.lease.is_lost(leases(state.labels)) and self.looks_again:
            record = Entry(each.lease, Phase.TAKEN, None, None)
            yield state.with_process(replace(each, at="write:gone", record=record))
        else:
            yield state.with_process(replace(each, at="send"))

    def send(self, state: State, each: Process) -> Iterator[State]:
        assert each.record is not None
        yield state.with_process(replace(each, at="search"))
        record = each.record._replace(phase=Phase.RUNNING, run=len(state.runs))
        started = replace(state, runs=(*state.runs, True))
        yield started.with_process(replace(each, at="write:wait", record=record))
        yield started.with_process(replace(each, at="search"))

    def wait(self, state: State, each: Process) -> Iterator[State]:
        assert each.lease is not None
        assert each.record is not None
        assert each.record.run is not None
        if each.lease.is_lost(leases(state.labels)):
            yield state.with_process(replace(each, at="gone"))
        elif not state.runs[each.record.run]:
            record = each.record._replace(phase=Phase.REPORTED)
            yield state.with_process(replace(each, at="write:end", record=record))

    # The settler

    def look(self, state: State, each: Process) -> Iterator[State]:
        is_free = top_lease(leases(state.labels)) == each.seen
        yield state.with_process(replace(each, at="settle" if is_free else "gone"))

    def settle(self, state: State, each: Process) -> Iterator[State]:
        assert each.lease is not None
        yield self.with_label(state, each.lease).with_process(replace(each, at="judge"))

    def judge(self, state: State, each: Process) -> Iterator[State]:
        top, found = read(state.labels)
        if top != each.lease:
            yield state.with_process(replace(each, at="gone"))
            return
        new = replace(each, record=entry_of(found, each.lease))
        yield state.with_process(self.as_settled(new, found))

    def as_settled(self, each: Process, found: Record, *, is_absent: bool | None = None) -> Process:
        action = decide(found, Event.CRASHED, is_absent=is_absent)
        assert each.record is not None
        if action is Action.WITHDRAW:
            record = each.record._replace(phase=Phase.TAKEN, trigger=None)
            return replace(each, at="write:end", record=record)
        return replace(each, at={Action.SEARCH: "search", Action.CANCEL: "cancel"}.get(action, "end"))

    def hold(self, state: State, each: Process) -> Iterator[State]:
        assert each.lease is not None
        if each.lease.is_lost(leases(state.labels)):
            yield state.with_process(replace(each, at="gone"))
        else:
            yield state.with_process(self.as_settled(each, self.found_of(each), is_absent=True))

    def cancel(self, state: State, each: Process) -> Iterator[State]:
        assert each.record is not None
        runs = tuple(is_active and run != each.record.run for run, is_active in enumerate(state.runs))
        record = each.record._replace(phase=Phase.REPORTED)
        yield replace(state, runs=runs).with_process(replace(each, at="write:end", record=record))


def violation(state: State) -> str | None:
    """Return what must never be: two runs at once, or a run that nobody knows of."""
    if sum(state.runs) > 1:
        return "two runs at once"
    quiet = all(each.at in (*ENDED, "start") and each.late is None for each in state.processes)
    if not quiet or not any(state.runs):
        return None
    _, found = read(state.labels)
    action = decide(found, Event.ORPHANED)
    finds = action is Action.SEARCH or (action is Action.CANCEL and found.run_id == state.runs.index(True))
    return None if finds else "a run goes on, and no record says so"


def explored(model: Model) -> tuple[str | None, int]:
    """Return the first violation, if any, and the number of states that were visited."""
    first = State(frozenset(), (), (Process("one"), Process("two"), Process("settler")))
    seen, queue = {first}, deque([first])
    while queue:
        state = queue.popleft()
        found = violation(state)
        if found is not None:
            return found, len(seen)
        for new in model.steps(state):
            if len(new.runs) <= 3 and new not in seen:
                seen.add(new)
                queue.append(new)
    return None, len(seen)


def test_no_interleaving_loses_or_doubles_a_run() -> None:
    found, states = explored(Model())
    assert found is None
    assert states > 10_000


@pytest.mark.parametrize(
    "without, found",
    [("looks_again", "two runs at once"), ("one_writer", "a run goes on, and no record says so")],
)
def test_the_model_finds_what_each_step_prevents(without, found) -> None:
    assert explored(Model(**{without: False}))[0] == found
