"""A thread for the trigger request, so that no cancel of the caller can lose its answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeAlias

Work: TypeAlias = Callable[[], Coroutine[Any, Any, int]]


def in_own_thread(work: Work) -> Future[int]:
    """Start work in a daemon thread with its own event loop; the interpreter does not wait for it at exit."""
    future: Future[int] = Future()
    # Otherwise a cancel of the waiting coroutine would cancel the future, and its result would be lost.
    future.set_running_or_notify_cancel()

    def target() -> None:
        try:
            future.set_result(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 - the caller gets it from the future
            future.set_exception(error)

    threading.Thread(target=target, name="bolt-trigger", daemon=True).start()
    return future
