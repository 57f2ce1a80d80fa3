"""Holding signals off while an engine of Prefect's begins or ends beside it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import anyio
import pytest
from prefect.exceptions import Pause

from paradime_blocks.signals import signals_held_off, to_the_end


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


@pytest.mark.parametrize("by_scope", [False, True], ids=["the task", "a scope around it"])
async def test_a_further_cancel_does_not_break_off_a_clean_up(by_scope: bool) -> None:
    """Be it of the task itself, or of a scope, which cancels each await again."""
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
    # A scope cancels again with each turn of the event loop.
    for _ in range(10):
        await asyncio.sleep(0)
    assert done == []
    may_end.set()
    await asyncio.wait({task})
    assert done == ["cleaned up", "result"]
    assert by_scope or task.cancelled()


async def test_what_a_clean_up_raises_comes_out_of_it() -> None:
    """Also what is no `Exception`, as Prefect's own signals."""

    async def clean_up() -> None:
        raise Pause

    with pytest.raises(Pause):
        await to_the_end(clean_up())
