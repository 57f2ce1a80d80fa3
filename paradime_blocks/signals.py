"""Makes SIGTERM and SIGINT visible to code outside the main thread.

Python delivers a signal to the main thread, and Prefect raises an exception in that thread. A submitted task runs in
its own thread, so it never sees the exception. And asyncio swallows the exception if it is raised while an asyncio
transport sends or receives: in one case, a SIGTERM during `sock.send` became a broken connection to Bolt, and the flow
continued. So this module counts signals, and code that waits checks the count. Prefect's handlers stay set: Prefect's
runner needs these handlers to know whether it can cancel the process
(`prefect.utilities.engine.can_ack_control_intent`). This module replaces Prefect's handlers only while a Bolt run is
being cancelled, since a further signal would interrupt the cancel.
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

# The exceptions that an interrupt can raise. Usually the event loop is waiting when the signal comes, and then cancels
# its tasks. If a task is working at that moment, the exception of the signal handler is raised in that task.
INTERRUPTS = (asyncio.CancelledError, TerminationSignal, KeyboardInterrupt)
# Prefect gives a cancelled flow run 30 seconds to end. After this time, a further signal ends the process.
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

    A shielded anyio scope stops only cancels that come from other anyio scopes. A cancel of the asyncio task itself, or
    a further cancel when a task group ends in an interrupt, would still interrupt the first `await` in the work.

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
        held_off: The signals that were held off, each with its time. If a signal that was held off is delivered later,
            `heard` contains the signal twice.
        sent_again_for: The value of `terminations` when SIGTERM was last sent again.
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
        """The number of signals in `heard`."""
        return len(self.heard)

    @property
    def terminations(self) -> int:
        """The number of SIGTERMs that were not held off. asyncio can swallow a SIGTERM, but not a Ctrl-C."""
        return self.had(signal.SIGTERM)

    def had(self, number: int | None = None, *, since: float = 0.0) -> int:
        """Return how many signals since a time were not held off: those of one number, or all if `number` is None."""
        return sum(
            sign
            for signals, sign in ((self.heard, 1), (self.held_off, -1))
            for at, one in signals
            if at >= since and number in {None, one}
        )

    def send_again_if_swallowed(self) -> None:
        """If asyncio has swallowed a SIGTERM, send SIGTERM to this process again.

        All `SignalCount`s remember this, so SIGTERM is not sent again for the same signal. Call this method in the main
        thread, where a SIGTERM should have interrupted the caller.
        """
        if self.terminations <= self.sent_again_for or not in_main_thread():
            return
        for each in _counts:
            each.sent_again_for = each.terminations
        # The timer waits a moment, so that the main thread is waiting again when the signal comes.
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon, timer.name = True, "bolt-signal-again"
        timer.start()


def listen_for_interrupts() -> None:
    """Start to count signals. Only the main thread can start the count; in other threads this function does nothing.

    A signal without a Python handler is not counted: such a signal ends the process at once, or is ignored.
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
    """Make the main thread start to count signals before its next Python code. Any thread may call this function.

    Prefect imports the flows of a deployment in a thread that is not the main thread. And if a user's flow calls our
    code only in its tasks or threads, the main thread never runs our code.
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
    """Stop counting in a forked process, so that the parent process does not count the forked process's signals."""
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
    """Hold off further signals during a `with` block. Outside the main thread, this function does nothing.

    If a signal caused the clean-up in the `with` block, the work is already stopping. A further signal would raise an
    exception in the event loop and end the loop before the cancel is sent to Bolt. If the reason for the clean-up is
    not a signal, the first signal that was held off is delivered when the `with` block ends, unless `Hold.keep` was
    called.

    Yields:
        The object that holds the signals off.
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
    """Replaces the signal handlers for a time. All `with` blocks that hold signals off share this object."""

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
            # Our handler may still be set after a hold: if Prefect's engine started during the hold, the engine
            # restores our handler when it ends. A signal without a Python handler raises no exception, so it is not
            # replaced.
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
        """Drop the held signals when the hold ends: the reason for this clean-up already stops the work."""
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
