"""A thread of its own for the request that triggers: no cancel of the caller can lose its answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeAlias

Work: TypeAlias = Callable[[], Coroutine[Any, Any, int]]


def in_own_thread(work: Work) -> Future[int]:
    """Start work in a daemon thread with an event loop of its own: at the interpreter's end it is not waited for."""
    future: Future[int] = Future()
    # Otherwise the cancel of the waiting coroutine would cancel the future and its result be dropped.
    future.set_running_or_notify_cancel()

    def target() -> None:
        try:
            future.set_result(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 - handed over to the waiting side
            future.set_exception(error)

    threading.Thread(target=target, name="bolt-trigger", daemon=True).start()
    return future
