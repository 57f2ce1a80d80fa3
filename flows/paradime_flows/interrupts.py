"""Signals, for those whom Prefect does not tell of them.

Python hands a signal to the main thread, and Prefect raises an exception there. A submitted task, in a thread of its
own, is never told; and asyncio swallows the exception where it comes in the midst of a transport's work (seen:
SIGTERM within `sock.send` became a broken connection to Bolt, and the flow ran on). So signals are counted, too, and
those who wait look at the count. Prefect's handlers stay as they are: by them its runner knows whether the process
can be cancelled (`prefect.utilities.engine.can_ack_control_intent`).
"""

from __future__ import annotations

import os
import signal
import socket
import threading

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_counts = dict.fromkeys(_SIGNALS, 0)
_ear: socket.socket | None = None


def in_main_thread() -> bool:
    """Whether the caller is in the thread that signals are handed to."""
    return threading.current_thread() is threading.main_thread()


def interrupts_so_far() -> int:
    """Return how many signals to stop this process has had while it listened."""
    return sum(_counts.values())


def terminations_so_far() -> int:
    """The same for SIGTERM alone, which asyncio can swallow; Ctrl-C it cannot."""
    return _counts[signal.SIGTERM]


def terminate_again() -> None:
    """Send this process SIGTERM once more, as soon as the main thread has had time to come to rest."""
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()


def listen_for_interrupts() -> None:
    """Count signals from now on; only the main thread can arrange it, elsewhere this does nothing.

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
    threading.Thread(target=_listen, args=(ear,), name="bolt-interrupts", daemon=True).start()


def _listen(ear: socket.socket) -> None:
    while heard := ear.recv(64):
        for number in heard:
            if number in _counts:
                _counts[number] += 1  # type: ignore[index]
