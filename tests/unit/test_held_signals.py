"""Which signals are held back, and which had an effect."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator

import anyio
import pytest
from prefect.exceptions import Pause

from paradime_blocks import signals
from paradime_blocks.signals import heard_since, signals_held_off, to_the_end


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The SIGTERMs that reach the earlier handler."""
    signals: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    yield signals
    signal.signal(signal.SIGTERM, previous)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int, int]]:
    """The signals that the process has noted: none so far."""
    noted: list[tuple[float, int, int]] = []
    monkeypatch.setattr(signals, "_heard", noted)
    return noted


def test_a_handler_restored_after_its_hold_passes_signals_on(heard: list[int]) -> None:
    """An engine that starts during a hold saves our handler as the one to restore, and may end after the hold."""
    with signals_held_off():
        found = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGTERM, found)
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    with signals_held_off() as hold:
        signal.raise_signal(signal.SIGTERM)
        hold.drop()
    assert heard == [signal.SIGTERM]
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM, signal.SIGTERM]


@pytest.mark.parametrize("by_scope", [False, True], ids=["the task", "a scope around it"])
async def test_a_second_cancel_does_not_interrupt_a_clean_up(by_scope: bool) -> None:
    """The cancel may be of the task itself, or of a scope, which cancels each await again."""
    done = []
    scope = anyio.CancelScope()
    waits, cleans_up, may_end = (asyncio.Event() for _ in range(3))

    async def clean_up() -> str:
        cleans_up.set()
        await may_end.wait()
        done.append("cleaned up")
        return "result"

    async def work() -> None:
        with scope:
            try:
                waits.set()
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                done.append(await to_the_end(clean_up()))
                raise

    task = asyncio.create_task(work())
    await waits.wait()
    task.cancel()
    await cleans_up.wait()
    if by_scope:
        scope.cancel()
    task.cancel()
    # A scope cancels again in each iteration of the event loop.
    for _ in range(10):
        await asyncio.sleep(0)
    assert done == []
    may_end.set()
    await asyncio.wait({task})
    assert done == ["cleaned up", "result"]
    assert by_scope or task.cancelled()


async def test_an_error_in_a_clean_up_is_raised() -> None:
    """This includes exceptions that are not an `Exception`, such as Prefect's signals."""

    async def clean_up() -> None:
        raise Pause

    with pytest.raises(Pause):
        await to_the_end(clean_up())


def test_a_held_signal_is_delivered_unless_another_had_an_effect(
    heard: list[int], notes: list[tuple[float, int, int]]
) -> None:
    """The work that is stopping must not be interrupted once more."""
    with signals_held_off():
        signal.raise_signal(signal.SIGTERM)
        assert heard == []
    assert heard == [signal.SIGTERM]
    # Two signals are noted, and one is held off: so the other is the reason for the clean-up.
    notes[:] = [(time.monotonic(), signal.SIGTERM, 1)] * 2
    with signals_held_off():
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.usefixtures("notes")
def test_a_held_signal_is_delivered_once_when_the_last_hold_ends(heard: list[int], *, dropped: bool) -> None:
    """Clean-ups of one process may overlap, and may end in any order."""
    first, second = signals_held_off(), signals_held_off()
    first.__enter__()
    hold = second.__enter__()
    signal.raise_signal(signal.SIGTERM)
    if dropped:
        hold.drop()
    first.__exit__(None, None, None)
    signal.raise_signal(signal.SIGTERM)
    assert heard == []
    second.__exit__(None, None, None)
    assert heard == ([] if dropped else [signal.SIGTERM])


def test_a_signal_counts_from_a_moment_on_unless_it_was_held_back(
    notes: list[tuple[float, int, int]],
) -> None:
    """A signal before the execution does not count for it. Ctrl-C is asyncio's own affair, so it can be left out."""
    notes += [(1.0, signal.SIGTERM, 1), (2.0, signal.SIGINT, 1), (3.0, signal.SIGTERM, 1)]
    notes.append((3.0, signal.SIGTERM, -1))
    assert [heard_since(moment) for moment in (0.0, 1.5, 2.5)] == [2, 1, 0]
    assert [heard_since(moment, (signal.SIGTERM,)) for moment in (0.0, 1.5)] == [1, 0]
