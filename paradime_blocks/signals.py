"""SIGTERM and SIGINT, made visible to code outside the main thread.

Python delivers a signal to the main thread, and Prefect raises an exception there. A submitted task runs in its own
thread and never notices. And asyncio swallows the exception if it is raised during a transport's work (seen: SIGTERM
within `sock.send` became a broken connection to Bolt, and the flow continued). So signals are counted, and waiting code
checks the count. Prefect's handlers stay in place: its runner needs them to know whether it can cancel the process
(`prefect.utilities.engine.can_ack_control_intent`). They are replaced only while a Bolt run is being cancelled, which a
further signal would interrupt.
"""

from __future__ import annotations

import asyncio
import ctypes
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

# An interrupt as our code sees it: mostly the loop is waiting and cancels its tasks; a signal that comes while a task
# is working is raised in that task.
INTERRUPTS = (asyncio.CancelledError, TerminationSignal, KeyboardInterrupt)
# As long as Prefect gives a cancelled flow run; after that, a signal ends the process.
_HOLD_SECONDS = 30.0
# From a signal to the clean-up that it causes, on a slow machine.
_REACTION_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# All counts. Never changed in place: a signal handler may interrupt the change.
_counts: tuple[SignalCount, ...] = ()
_counts_lock = threading.Lock()
_ear: socket.socket | None = None


def in_main_thread() -> bool:
    """Whether the caller is in the thread that receives signals."""
    return threading.current_thread() is threading.main_thread()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Complete some work even if the caller is cancelled.

    A shielded scope stops only the cancels of other scopes. The cancel of a task, or another one when a task group ends
    in an interrupt, would still interrupt the first `await`.

    Args:
        work: The work; it runs in its own task.

    Returns:
        The result of the work.
    """
    task = asyncio.ensure_future(work)
    with anyio.CancelScope(shield=True):
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
    return task.result()


class SignalCount:
    """Counts the signals to stop this process, from its creation until `end`.

    Attributes:
        heard: All of them, with their times.
        held_off: Those that were held off and not delivered later.
        sent_again_for: The number of SIGTERMs that were sent again.
    """

    def __init__(self) -> None:
        global _counts  # noqa: PLW0603 - a signal is the whole process's
        self.heard: list[tuple[float, int]] = []
        self.held_off: list[tuple[float, int]] = []
        self.sent_again_for = 0
        listen_for_interrupts()
        with _counts_lock:
            _counts = (*_counts, self)

    def end(self) -> None:
        """Stop counting."""
        global _counts  # noqa: PLW0603
        with _counts_lock:
            _counts = tuple(each for each in _counts if each is not self)

    @property
    def interrupts(self) -> int:
        """The number of signals."""
        return len(self.heard)

    @property
    def terminations(self) -> int:
        """The number of SIGTERMs that were not held off; asyncio can swallow them, unlike Ctrl-C."""
        return self.had(signal.SIGTERM)

    def had(self, number: int | None = None, *, since: float = 0.0) -> int:
        """Return how many signals, of one kind or all, were not held off."""
        return sum(
            sign
            for signals, sign in ((self.heard, 1), (self.held_off, -1))
            for at, one in signals
            if at >= since and number in {None, one}
        )

    def send_again_if_swallowed(self) -> None:
        """Send this process SIGTERM again if asyncio has swallowed one: once for each, however many counts there are.

        Call it in the main thread, where a SIGTERM should have interrupted the caller.
        """
        if self.terminations <= self.sent_again_for or not in_main_thread():
            return
        for each in _counts:
            each.sent_again_for = each.terminations
        # After a moment, so that the main thread is waiting again.
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon, timer.name = True, "bolt-signal-again"
        timer.start()


def listen_for_interrupts() -> None:
    """Start counting signals; only the main thread can do so, in other threads this does nothing.

    A signal that ends the process at once, or is ignored, is not counted.
    """
    global _ear  # noqa: PLW0603 - a signal is the whole process's
    if _ear is not None or not in_main_thread():
        return
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)  # noqa: FBT003 - the socket's own signature
    previous = signal.set_wakeup_fd(mouth.detach(), warn_on_full_buffer=False)
    if previous != -1:
        # An event loop already listens, with its own handlers.
        os.close(signal.set_wakeup_fd(previous))
        ear.close()
        return
    _ear = ear
    threading.Thread(target=_count, args=(ear,), name="bolt-interrupts", daemon=True).start()


def have_main_thread_listen() -> None:
    """Have the main thread count signals before it does anything else in Python, whatever thread calls this.

    Prefect reads the flows of a deployment in a thread of its own; and a flow whose own tasks or threads call ours
    never calls any of our code in the main one.
    """
    if in_main_thread():
        listen_for_interrupts()
    else:
        ctypes.pythonapi.Py_AddPendingCall(_listen_when_pending, None)


def _listen(_: int | None) -> int:
    listen_for_interrupts()
    return 0


# Kept: Python calls it later.
_listen_when_pending = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_listen)


def _forget_in_child() -> None:
    """Stop counting in a forked process: its parent would count its signals."""
    global _ear  # noqa: PLW0603 - a signal is the whole process's
    if _ear is not None:
        signal.set_wakeup_fd(-1)
        _ear = None


os.register_at_fork(after_in_child=_forget_in_child)


def _count(ear: socket.socket) -> None:
    while heard := ear.recv(64):
        signals = [(time.monotonic(), number) for number in heard if number in _SIGNALS]
        for each in _counts:
            each.heard.extend(signals)


@contextmanager
def signals_held_off() -> Iterator[Hold]:
    """Hold off further signals during a block; outside of the main thread this does nothing.

    The signal that led here has had its effect, and asyncio cleans up. Another one would be raised within the event
    loop and end it, before the cancel is sent to Bolt. If something else led here, the first signal is delivered at
    the end, unless `Hold.keep` was called.

    Yields:
        The hold.
    """
    if not in_main_thread():
        yield Hold()
        return
    _hold.begin()
    try:
        yield _hold
    finally:
        _hold.end()


class Hold:
    """The replaced handlers, shared by all blocks that hold signals off."""

    def __init__(self) -> None:
        self._holders = 0
        self._began_at = 0.0
        self._kept = False
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = {}
        self._swallowed: list[int] = []

    def begin(self) -> None:
        """Replace the handlers, unless they already are."""
        self._holders += 1
        if self._holders > 1:
            return
        self._began_at, self._kept, self._swallowed = time.monotonic(), False, []
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # Ours may be there still: an engine that began within a hold puts it back when it ends, after the hold.
            # What ends the process at once, or is ignored, raises nothing.
            if callable(handler) and handler != self._swallow:
                self._previous[number] = handler
                signal.signal(number, self._swallow)

    def _swallow(self, number: int, frame: FrameType | None) -> None:
        if not self._holders or time.monotonic() - self._began_at > _HOLD_SECONDS:
            self._previous[signal.Signals(number)](number, frame)
        else:
            self._swallowed.append(number)
            for each in _counts:
                each.held_off.append((time.monotonic(), number))

    def keep(self) -> None:
        """Deliver no signal at the end: what led here already ends the work."""
        self._kept = True

    def end(self) -> None:
        """Restore the handlers after the last block, and deliver a signal that has had no effect yet."""
        self._holders -= 1
        if self._holders:
            return
        for number, handler in self._previous.items():
            # A handler that somebody else has set in the meantime stays.
            if signal.getsignal(number) == self._swallow:
                signal.signal(number, handler)
        after_a_signal = any(each.had(since=self._began_at - _REACTION_SECONDS) > 0 for each in _counts)
        if self._swallowed and not self._kept and not after_a_signal:
            signal.raise_signal(self._swallowed[0])


_hold = Hold()
