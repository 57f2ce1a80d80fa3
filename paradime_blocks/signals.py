"""Signals, for those whom Prefect does not tell of them.

Python hands a signal to the main thread, and Prefect raises an exception there. A submitted task, in a thread of its
own, is never told; and asyncio swallows the exception where it comes in the midst of a transport's work (seen:
SIGTERM within `sock.send` became a broken connection to Bolt, and the flow ran on). So signals are counted, too, and
those who wait look at the count. Prefect's handlers stay as they are: by them its runner knows whether the process
can be cancelled (`prefect.utilities.engine.can_ack_control_intent`). Only while a Bolt run is being cancelled, which
a further signal would break off, are they replaced.
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

# What an interrupt is to our code: mostly the loop is hit as it waits, and cancels its tasks; but a signal that comes
# while a task does something is raised there.
INTERRUPTS = (asyncio.CancelledError, TerminationSignal, KeyboardInterrupt)
# As long as Prefect gives a cancelled flow run; whoever still wants to end the process after that is let to.
_HOLD_SECONDS = 30.0
# From a signal to the clean-up that it leads to, on a slow machine.
_REACTION_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Who counts. Never changed in place: a handler may interrupt whoever changes it.
_counts: tuple[SignalCount, ...] = ()
_counts_lock = threading.Lock()
_ear: socket.socket | None = None


def in_main_thread() -> bool:
    """Whether the caller is in the thread that signals are handed to."""
    return threading.current_thread() is threading.main_thread()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Do some work to its end, whatever cancels the caller meanwhile.

    A shielded scope keeps off other scopes only: the cancel of a task, or one more that is due when a group of tasks
    ends in an interrupt, would break off the first thing that is awaited.

    Args:
        work: The work; it is done in a task of its own.

    Returns:
        What it returned.
    """
    task = asyncio.ensure_future(work)
    with anyio.CancelScope(shield=True):
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
    return task.result()


class SignalCount:
    """Counts the signals to stop this process, from when it is made until `end`.

    Attributes:
        heard: All of them, and when they came.
        held_off: Those of them that were held off and not handed on.
        sent_again_for: For how many of the SIGTERMs another has been sent.
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
        """Count no further."""
        global _counts  # noqa: PLW0603
        with _counts_lock:
            _counts = tuple(each for each in _counts if each is not self)

    @property
    def interrupts(self) -> int:
        """How many there were."""
        return len(self.heard)

    @property
    def terminations(self) -> int:
        """How many SIGTERMs, which asyncio can swallow; Ctrl-C it cannot. Not those that were held off."""
        return self.had(signal.SIGTERM)

    def had(self, number: int | None = None, *, since: float = 0.0) -> int:
        """Return how many have had an effect, all or those of one kind."""
        return sum(
            sign
            for signals, sign in ((self.heard, 1), (self.held_off, -1))
            for at, one in signals
            if at >= since and number in {None, one}
        )

    def send_again_if_swallowed(self) -> None:
        """Send this process SIGTERM again, if asyncio has swallowed one; once for each, however many count.

        In the main thread it should have ended at once what the caller is at.
        """
        if self.terminations <= self.sent_again_for or not in_main_thread():
            return
        for each in _counts:
            each.sent_again_for = each.terminations
        # As soon as the main thread has had time to come to rest.
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon, timer.name = True, "bolt-signal-again"
        timer.start()


def listen_for_interrupts() -> None:
    """Have signals counted from now on; only the main thread can arrange it, elsewhere this does nothing.

    A signal that ends the process at once, or is ignored, is not heard of.
    """
    global _ear  # noqa: PLW0603 - a signal is the whole process's
    if _ear is not None or not in_main_thread():
        return
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)  # noqa: FBT003 - the socket's own signature
    previous = signal.set_wakeup_fd(mouth.detach(), warn_on_full_buffer=False)
    if previous != -1:
        # An event loop listens, and has handlers of its own.
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
    """Let a process that was forked be deaf: what it hears, its parent would take for its own."""
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
    """Let no further signal break off what is done within; outside of the main thread this does nothing.

    The signal that led here has had its effect, and asyncio clears up. One more would raise in the midst of the
    event loop, which ends there and then, and with it a cancel that Bolt has not been sent yet. If it was something
    else that led here, the first signal that comes is handed on in the end, unless `Hold.keep` says otherwise.

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
    """The handlers that were replaced, for all who hold signals off at once."""

    def __init__(self) -> None:
        self._holders = 0
        self._began_at = 0.0
        self._kept = False
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], Any]] = {}
        self._swallowed: list[int] = []

    def begin(self) -> None:
        """Replace the handlers, if nobody has yet."""
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
        """Hand no signal on: what led here makes an end of all that there is to end."""
        self._kept = True

    def end(self) -> None:
        """Put the handlers back when the last holder is done, and hand on a signal that has had no effect yet."""
        self._holders -= 1
        if self._holders:
            return
        for number, handler in self._previous.items():
            # Whoever has put another in its place meanwhile must not lose that.
            if signal.getsignal(number) == self._swallow:
                signal.signal(number, handler)
        after_a_signal = any(each.had(since=self._began_at - _REACTION_SECONDS) > 0 for each in _counts)
        if self._swallowed and not self._kept and not after_a_signal:
            signal.raise_signal(self._swallowed[0])


_hold = Hold()
