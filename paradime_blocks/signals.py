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
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

import anyio
from prefect.exceptions import TerminationSignal

T = TypeVar("T")

# If the event loop is waiting when a signal comes, it cancels its tasks. Otherwise, the exception of the signal handler
# is raised in the task that is working.
INTERRUPTS = (asyncio.CancelledError, TerminationSignal, KeyboardInterrupt)
# Prefect gives a cancelled flow run 30 seconds to end. After this time, a further signal ends the process.
_HOLD_SECONDS = 30.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Each signal with its time, on the monotonic clock, and 1. A signal that is held off is noted once more, with -1.
_heard: list[tuple[float, int, int]] = []
# When each hold began that has not ended, on the monotonic clock; and the handlers that the holds have replaced.
_holds: list[float] = []
_replaced: dict[int, Callable[[int, FrameType | None], Any]] = {}


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


@contextmanager
def signals_held_off() -> Iterator[None]:
    """Drop further signals during a `with` block, for 30 s at most. Outside the main thread, this does nothing.

    A signal during a clean-up would raise an exception in the event loop and end the loop before the cancel is sent to
    Bolt.
    """
    if not in_main_thread():
        yield
        return
    began = time.monotonic()
    _holds.append(began)
    try:
        if len(_holds) == 1:
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                # A signal without a Python handler raises no exception. Our own handler may still be set after a hold:
                # an engine of Prefect that started during the hold restores it when the engine ends.
                if callable(handler) and handler is not _hold_off:
                    _replaced[number] = handler
                    signal.signal(number, _hold_off)
        yield
    finally:
        _holds.remove(began)
        for number in _SIGNALS:
            # If other code has set a handler in the meantime, that handler stays.
            if not _holds and signal.getsignal(number) is _hold_off:
                signal.signal(number, _replaced[number])


def _hold_off(number: int, frame: FrameType | None) -> None:
    if not _holds or time.monotonic() - _holds[0] > _HOLD_SECONDS:
        _replaced[number](number, frame)
    else:
        _heard.append((time.monotonic(), number, -1))
