"""A thread for the trigger request: if the caller is cancelled, the answer to the trigger is not lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeAlias

Work: TypeAlias = Callable[[], Coroutine[Any, Any, int]]


def in_own_thread(work: Work) -> Future[int]:
    """Start work in a daemon thread with its own event loop. At exit, Python does not wait for the thread."""
    future: Future[int] = Future()
    # Without this call, a cancel of the waiting coroutine would cancel the future, and the result would be lost.
    future.set_running_or_notify_cancel()

    def target() -> None:
        try:
            future.set_result(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 - the future passes the error to the caller
            future.set_exception(error)

    threading.Thread(target=target, name="bolt-trigger", daemon=True).start()
    return future
