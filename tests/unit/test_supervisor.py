"""What a process remembers of its flow runs, and for how long; which signals count for which of them."""

from __future__ import annotations

import signal
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from paradime_blocks import signals
from paradime_blocks.signals import SignalCount
from paradime_flows.prefect_api.supervisor import Supervisor, begin_anew, the_supervisor
from paradime_flows.prefect_api.timing import Timing, going_by

if TYPE_CHECKING:
    from collections.abc import Iterator


def context_of(flow_run_id: UUID) -> FlowRunContext:
    flow_run = FlowRun(id=flow_run_id, flow_id=uuid4(), name="one")
    return FlowRunContext.model_construct(flow_run=flow_run, start_time=datetime.now(timezone.utc))


def comes(number: int) -> None:
    """A signal, as the thread that listens hands it out."""
    for each in signals._counts:
        each.heard.append((0.0, number))


@pytest.fixture
def count() -> Iterator[SignalCount]:
    count = SignalCount()
    yield count
    count.end()


def test_what_is_known_of_a_flow_run_goes_when_its_execution_has_ended() -> None:
    """Not while somebody can ask for it, nor while its hooks run; and then with the count of its signals."""
    known, flow_run_id = Supervisor(), uuid4()
    with context_of(flow_run_id) as context:
        first = known.of(flow_run_id)
        first.signals["its execution"] = count = SignalCount()
    known.of(uuid4())
    assert known.of(flow_run_id) is first, "a task that outlives the body can ask"
    with going_by(Timing(hooks_seconds=0.0)):
        known.of(uuid4())
        assert known.of(flow_run_id) is first
    del context
    known.of(uuid4())
    assert known.of(flow_run_id) is first, "its hooks run"
    with going_by(Timing(hooks_seconds=0.0)):
        known.of(uuid4())
    comes(signal.SIGTERM)
    assert known.of(flow_run_id) is not first
    assert count.interrupts == 0


def test_a_flow_run_that_awaits_a_retry_is_remembered() -> None:
    """Nothing of it runs, but the thread that gives signs of life for it."""
    known, flow_run_id = Supervisor(), uuid4()
    waits = known.of(flow_run_id)
    waits.alive_for = flow_run_id
    with going_by(Timing(hooks_seconds=0.0)):
        known.of(uuid4())
        assert known.of(flow_run_id) is waits
        waits.alive_for = None
        known.of(uuid4())
        assert known.of(flow_run_id) is not waits


def test_of_several_intents_one_takes_over_what_another_has_left() -> None:
    """Until it gives that back."""
    known, left, one, other = Supervisor(), (uuid4(), "run"), uuid4(), uuid4()
    assert known.take_over(left, one, "run")
    assert known.take_over(left, one, "run")
    assert not known.take_over(left, one, "another key")
    assert not known.take_over(left, other, "run")
    known.of(one).taken_over.clear()
    assert known.take_over(left, other, "run")


def test_a_process_that_begins_anew_knows_nothing() -> None:
    """As a test is to: of flow runs, tokens and signals of those before."""
    flow_run_id = uuid4()
    before = the_supervisor().of(flow_run_id)
    the_supervisor().tokens[flow_run_id] = {"a token"}
    before.signals["its execution"] = count = SignalCount()
    begin_anew()
    comes(signal.SIGINT)
    assert the_supervisor().of(flow_run_id) is not before
    assert (the_supervisor().tokens, count.interrupts) == ({}, 0)


def test_a_signal_counts_for_whoever_counts_as_it_comes(count: SignalCount) -> None:
    """Not for an execution that begins later, nor for one that has ended; one that was held off has no effect."""
    comes(signal.SIGTERM)
    later = SignalCount()
    comes(signal.SIGTERM)
    later.end()
    comes(signal.SIGINT)
    assert (count.interrupts, count.terminations, count.had()) == (3, 2, 3)
    assert (later.interrupts, later.terminations) == (1, 1)
    count.held_off.append((0.0, signal.SIGTERM))
    assert (count.interrupts, count.terminations) == (3, 1)


def test_a_swallowed_signal_is_sent_again_once_for_all_who_count(
    count: SignalCount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many flow runs of the process look for it; and once more if that one is swallowed, too."""
    sent = []

    class Timer:
        def __init__(self, _: float, function: object, arguments: tuple[int, int]) -> None:
            self.sent = (function, arguments[1])

        def start(self) -> None:
            sent.append(self.sent)

    monkeypatch.setattr(signals.threading, "Timer", Timer)
    other = SignalCount()
    for expected in (1, 2):
        comes(signal.SIGTERM)
        for _ in range(2):
            other.send_again_if_swallowed()
            count.send_again_if_swallowed()
        assert sent == [(signals.os.kill, signal.SIGTERM)] * expected
    other.end()
