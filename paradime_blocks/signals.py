"""Makes SIGTERM and SIGINT visible to code outside the main thread.

Prefect raises an exception in the main thread. A task in another thread never sees it, and asyncio swallows it while an
asyncio transport sends or receives. So code that waits reads which signals were noted here. Prefect's handlers stay
set, except in `signals_held_off`: Prefect's runner asks them whether it can cancel the process
(`prefect.utilities.engine.can_ack_control_intent`).
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from types import FrameType
from typing import Any, TypeVar

import anyio
from prefect.exceptions import TerminationSignal
from typing_extensions import Self

T = TypeVar("T")

# If the event loop is waiting when a signal comes, it cancels its tasks. Otherwise, the exception of the signal handler
# is raised in the task that is working.
INTERRUPTS = (asyncio.CancelledError, TerminationSignal, KeyboardInterrupt)
# Prefect gives a cancelled flow run 30 seconds to end. After this time, a further signal ends the process.
_HOLD_SECONDS = 30.0
# The longest time from a signal to the clean-up that it causes, on a slow machine.
_REACTION_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Each signal with its time, on the monotonic clock, and 1. A signal that is held off is noted once more, with -1. If it
# is delivered later, it is heard again.
_heard: list[tuple[float, int, int]] = []


def in_main_thread() -> bool:
    """Whether the caller is in the thread that receives signals."""
    return threading.current_thread() is threading.main_thread()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Complete some work in a task of its own, even if the caller is cancelled.

    A shielded anyio scope stops only cancels that come from other anyio scopes. A cancel of the asyncio task itself, or
    a further cancel when a task group ends in an interrupt, would still interrupt the first `await` in the work.
    """
    task = asyncio.ensure_future(work)
    with anyio.CancelScope(shield=True):
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
    return task.result()


def heard_since(moment: float, numbers: tuple[int, ...] = _SIGNALS) -> int:
    """Return how many of these signals came since a moment on the monotonic clock and were not held off."""
    return sum(change for at, number, change in _heard if at >= moment and number in numbers)


def listen_for_signals() -> None:
    """Make the main thread note signals from now on. Any thread may call this function.

    Prefect imports the flows of a deployment in another thread, and a user's flow may call our code only in threads. A
    signal without a Python handler is not noted: such a signal ends the process at once, or is ignored.
    """
    ctypes.pythonapi.Py_AddPendingCall(_listen, None)


@ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def _listen(_: int | None) -> int:
    receiver = signal.set_wakeup_fd(-1)
    # If there is a receiver, we listen already, or an event loop receives the signals, with its own handlers.
    signal.set_wakeup_fd(_mouth() if receiver == -1 else receiver, warn_on_full_buffer=False)
    return 0


@functools.cache
def _mouth() -> int:
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)  # noqa: FBT003 - the socket's own signature
    threading.Thread(target=_note, args=(ear,), name="bolt-interrupts", daemon=True).start()
    return mouth.detach()


# A forked process shares the socket, so its parent would note its signals. And the thread is only in the parent.
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
os.register_at_fork(after_in_child=_mouth.cache_clear)


def _note(ear: socket.socket) -> None:
    while numbers := ear.recv(64):
        _heard.extend((time.monotonic(), number, 1) for number in numbers if number in _SIGNALS)


def signals_held_off() -> AbstractContextManager[Hold]:
    """Hold off further signals during a `with` block. Outside the main thread, this function does nothing.

    A signal during a clean-up would raise an exception in the event loop and end the loop before the cancel is sent to
    Bolt. If no signal caused the clean-up, the first signal that was held off is delivered when the `with` block ends,
    unless `Hold.drop` was called.
    """
    return _hold if in_main_thread() else nullcontext(Hold())


class Hold:
    """Replaces the signal handlers for a time. All `with` blocks that hold signals off share this object."""

    def __init__(self) -> None:
        self._holders = 0
        self._began_at = 0.0
        self._dropped = False
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> Self:
        self._holders += 1
        if self._holders == 1:
            self._began_at, self._dropped = time.monotonic(), False
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                # A signal without a Python handler raises no exception. Our own handler may still be set after a hold:
                # an engine of Prefect that started during the hold restores it when the engine ends.
                if callable(handler) and handler != self._hold_off:
                    self._previous[number] = handler
                    signal.signal(number, self._hold_off)
        return self

    def _hold_off(self, number: int, frame: FrameType | None) -> None:
        if not self._holders or time.monotonic() - self._began_at > _HOLD_SECONDS:
            self._previous[signal.Signals(number)](number, frame)
        else:
            _heard.append((time.monotonic(), number, -1))

    def drop(self) -> None:
        """Drop the held signals when the last hold ends: the reason for a clean-up already stops the work."""
        self._dropped = True

    def __exit__(self, *_: object) -> None:
        self._holders -= 1
        if self._holders:
            return
        for number, handler in self._previous.items():
            # If other code has set a handler in the meantime, that handler stays.
            if signal.getsignal(number) == self._hold_off:
                signal.signal(number, handler)
        held = [number for at, number, change in _heard if change < 0 and at >= self._began_at]
        if held and not self._dropped and heard_since(self._began_at - _REACTION_SECONDS) <= 0:
            signal.raise_signal(held[0])


_hold = Hold()
