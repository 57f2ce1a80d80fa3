"""What a process remembers about its flow runs, for how long, and which signals count for which."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from paradime_blocks import signals
from paradime_blocks.signals import SignalCount
from paradime_flows.ledger.lease import Lease
from paradime_flows.prefect_api.supervisor import (
    FLOW_RUNS_KEPT,
    Supervisor,
    start_new_supervisor,
    the_supervisor,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def comes(number: int) -> None:
    """A signal, as the listening thread passes it on."""
    for each in signals._counts:
        each.heard.append((0.0, number))


@pytest.fixture
def count() -> Iterator[SignalCount]:
    count = SignalCount()
    yield count
    count.end()


def test_the_flow_runs_that_were_used_last_are_remembered(count: SignalCount) -> None:
    """A script can run any number of flows. The count of the signals of a forgotten flow run ends."""
    known, used, unused = Supervisor(), uuid4(), uuid4()
    first = known.of(used)
    known.of(unused).signals["its execution"] = count
    for _ in range(FLOW_RUNS_KEPT):
        known.of(uuid4())
        assert known.of(used) is first
    assert len(known.all()) == FLOW_RUNS_KEPT
    comes(signal.SIGTERM)
    assert not known.of(unused).signals
    assert count.interrupts == 0


def test_a_reset_process_remembers_nothing() -> None:
    """Each test needs that: no flow runs, tokens and signals of earlier tests."""
    flow_run_id = uuid4()
    before = the_supervisor().of(flow_run_id)
    the_supervisor().leases[flow_run_id] = {Lease(1, "an execution")}
    before.signals["its execution"] = count = SignalCount()
    start_new_supervisor()
    comes(signal.SIGINT)
    assert the_supervisor().of(flow_run_id) is not before
    assert (the_supervisor().leases, count.interrupts) == ({}, 0)


def test_a_signal_counts_for_the_executions_active_at_its_arrival(count: SignalCount) -> None:
    """It does not count for a later or an ended execution; a signal that was held back has no effect."""
    comes(signal.SIGTERM)
    later = SignalCount()
    comes(signal.SIGTERM)
    later.end()
    comes(signal.SIGINT)
    assert (count.interrupts, count.terminations, count.had()) == (3, 2, 3)
    assert (later.interrupts, later.terminations) == (1, 1)
    count.held_off.append((0.0, signal.SIGTERM))
    assert (count.interrupts, count.terminations) == (3, 1)


def test_a_swallowed_signal_is_sent_again_once_for_all_flow_runs(
    count: SignalCount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds for any number of flow runs in the process; if it is swallowed too, it is sent once more."""
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
