"""Signals, for tasks that run in other threads than the main one.

Python hands a signal to the main thread, and Prefect tells the flow's body of it; a submitted task is never told,
while the flow waits for it to end. So the main thread counts the signals, and those who wait look at the count.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_count = 0


def in_main_thread() -> bool:
    """Whether the caller is in the thread that signals are handed to."""
    return threading.current_thread() is threading.main_thread()


def interrupts_so_far() -> int:
    """Return how many signals to stop this process has had while it listened."""
    return _count


class _Counting:
    """A signal handler that counts and then does what was to be done before."""

    def __init__(self, previous: Callable[[int, FrameType | None], Any]) -> None:
        self.previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        global _count  # noqa: PLW0603 - a signal is the whole process's
        _count += 1
        return self.previous(number, frame)


def listen_for_interrupts() -> None:
    """Count signals from now on; only the main thread can arrange it, elsewhere this does nothing.

    A signal that ends the process at once, or is ignored, is left as it is.
    """
    if not in_main_thread():
        return
    for number in _SIGNALS:
        previous = signal.getsignal(number)
        if callable(previous) and not isinstance(previous, _Counting):
            signal.signal(number, _Counting(previous))
