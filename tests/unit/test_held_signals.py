"""Holding signals off while an engine of Prefect's begins or ends beside it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from paradime_blocks.interrupts import signals_held_off


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The SIGTERMs that reach the handler that was there before."""
    signals: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    yield signals
    signal.signal(signal.SIGTERM, previous)


def test_a_handler_that_is_put_back_after_its_hold_hands_on(heard: list[int]) -> None:
    """An engine that begins within a hold takes our handler for the one to put back, and may end after it."""
    with signals_held_off():
        found = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGTERM, found)
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    with signals_held_off() as hold:
        signal.raise_signal(signal.SIGTERM)
        hold.keep()
    assert heard == [signal.SIGTERM]
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM, signal.SIGTERM]
