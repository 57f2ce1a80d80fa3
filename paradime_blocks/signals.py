"""Makes SIGTERM and SIGINT visible to code outside the main thread.

Python delivers a signal to the main thread, and Prefect raises an exception in that thread. A submitted task runs in
its own thread, so it never sees the exception. And asyncio swallows the exception if it is raised while a transport
works: in one case, SIGTERM during `sock.send` became a broken connection to Bolt, and the flow continued. So signals
are counted, and code that waits checks the count. Prefect's handlers stay set: Prefect's runner needs them to know
whether it can cancel the process (`prefect.utilities.engine.can_ack_control_intent`). They are replaced only while a
Bolt run is being cancelled, since a further signal would interrupt the cancel.
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

# The exceptions of an interrupt. Mostly the event loop is waiting and cancels its tasks. If a task is working when the
# signal comes, the signal's exception is raised in that task.
INTERRUPTS = (asyncio.CancelledError, TerminationSignal, KeyboardInterrupt)
# Prefect gives a cancelled flow run so much time to end. After it, a further signal ends the process.
_HOLD_SECONDS = 30.0
# The longest time from a signal to the clean-up that it causes, on a slow machine.
_REACTION_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# All `SignalCount`s. The tuple is replaced, not changed, since a signal handler may interrupt a change.
_counts: tuple[SignalCount, ...] = ()
_counts_lock = threading.Lock()
_ear: socket.socket | None = None


def in_main_thread() -> bool:
    """Whether the caller is in the thread that receives signals."""
    return threading.current_thread() is threading.main_thread()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Complete some work even if the caller is cancelled.

    A shielded scope of anyio stops only the cancels of other scopes. A cancel of the task itself, or a further cancel
    when a task group ends in an interrupt, would still interrupt the first `await`.

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
    """Counts the signals to stop this process, from the creation of this object until `end`.

    Attributes:
        heard: All signals, each with its time.
        held_off: The signals that were held off and not delivered later.
        sent_again_for: The number of SIGTERMs that were sent again.
    """

    def __init__(self) -> None:
        global _counts  # noqa: PLW0603 - a signal is for the whole process
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
        """The number of SIGTERMs that were not held off. asyncio can swallow a SIGTERM, but not a Ctrl-C."""
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
        """Send SIGTERM to this process again if asyncio has swallowed one: once for each, for all counts together.

        Call this in the main thread, where a SIGTERM should have interrupted the caller.
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
    """Start counting signals. Only the main thread can do this; in other threads the function does nothing.

    A signal without a Python handler, which ends the process at once or is ignored, is not counted.
    """
    global _ear  # noqa: PLW0603 - a signal is for the whole process
    if _ear is not None or not in_main_thread():
        return
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)  # noqa: FBT003 - the socket's own signature
    previous = signal.set_wakeup_fd(mouth.detach(), warn_on_full_buffer=False)
    if previous != -1:
        # An event loop already receives the signals, with its own handlers.
        os.close(signal.set_wakeup_fd(previous))
        ear.close()
        return
    _ear = ear
    threading.Thread(target=_count, args=(ear,), name="bolt-interrupts", daemon=True).start()


def have_main_thread_listen() -> None:
    """Make the main thread start counting signals before its next Python code. Any thread may call this.

    Prefect imports the flows of a deployment in another thread. And if a user's flow calls our code only in its tasks
    or threads, the main thread never runs our code.
    """
    if in_main_thread():
        listen_for_interrupts()
    else:
        ctypes.pythonapi.Py_AddPendingCall(_listen_when_pending, None)


def _listen(_: int | None) -> int:
    listen_for_interrupts()
    return 0


# This reference keeps the function alive: Python calls it later.
_listen_when_pending = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_listen)


def _forget_in_child() -> None:
    """Stop counting in a forked process. Otherwise its signals would be counted in the parent process."""
    global _ear  # noqa: PLW0603 - a signal is for the whole process
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
    """Hold off further signals during a `with` block. Outside the main thread this does nothing.

    If a signal caused the clean-up in the `with` block, the work is already stopping. A further signal would raise an
    exception in the event loop and end the loop before the cancel is sent to Bolt. If the reason is not a signal,
    the first signal that was held off is delivered at the end, unless `Hold.keep` was called.

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
    """The replaced signal handlers. All `with` blocks that hold signals off share this object."""

    def __init__(self) -> None:
        self._holders = 0
        self._began_at = 0.0
        self._kept = False
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = {}
        self._swallowed: list[int] = []

    def begin(self) -> None:
        """Replace the handlers, unless an outer `with` block has replaced them."""
        self._holders += 1
        if self._holders > 1:
            return
        self._began_at, self._kept, self._swallowed = time.monotonic(), False, []
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # Our handler may still be set after a hold: if Prefect's engine began during the hold, it restores our
            # handler at its end. A signal without a Python handler raises no exception, so it is not replaced.
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
        """Do not deliver the held signals when the hold ends: the reason for this clean-up already stops the work."""
        self._kept = True

    def end(self) -> None:
        """When the last `with` block ends, restore the handlers. If a held signal had no effect yet, deliver it now."""
        self._holders -= 1
        if self._holders:
            return
        for number, handler in self._previous.items():
            # If other code has set a handler in the meantime, that handler stays.
            if signal.getsignal(number) == self._swallow:
                signal.signal(number, handler)
        after_a_signal = any(each.had(since=self._began_at - _REACTION_SECONDS) > 0 for each in _counts)
        if self._swallowed and not self._kept and not after_a_signal:
            signal.raise_signal(self._swallowed[0])


_hold = Hold()
