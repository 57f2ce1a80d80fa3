"""Makes the sync forms of public async methods. As in Prefect, the sync method `trigger` calls the async `atrigger`."""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar

from anyio.from_thread import start_blocking_portal
from prefect.context import get_run_context
from prefect.exceptions import MissingContextError
from typing_extensions import ParamSpec

from paradime_blocks.signals import signals_held_off

P = ParamSpec("P")
R = TypeVar("R")


def in_async_context() -> bool:
    """Whether the caller can await, by Prefect's own rule.

    In a flow or task run: true if the flow or task is async. Elsewhere: true if an event loop runs in this thread.
    """
    try:
        context = get_run_context()
    except MissingContextError:
        return _loop_is_running()
    runnable = getattr(context, "task", None) or getattr(context, "flow", None)
    return bool(getattr(runnable, "isasync", True))


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _a_signal_would_raise() -> bool:
    """Whether SIGTERM raises an exception in this thread: it does in the main thread, if Prefect has set a handler."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return callable(signal.getsignal(signal.SIGTERM))


def run_sync(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine for a caller that cannot await.

    If a signal interrupts the caller, the coroutine is cancelled, and the caller waits until the coroutine has cleaned
    up. Prefect's signal handlers raise an exception, and asyncio swallows the exception if it is raised while an
    asyncio transport sends or receives. So if such a handler is set, the coroutine runs in a second thread, and this
    thread only waits.
    """
    if not _loop_is_running() and not _a_signal_would_raise():
        return asyncio.run(coroutine)

    async def finish() -> R:
        return await coroutine

    with ExitStack() as until_it_has_ended, start_blocking_portal() as portal:
        try:
            return portal.call(finish)
        except Exception:
            raise
        except BaseException as error:
            # The coroutine is cancelled and cleans up. A signal must not interrupt the wait for its end.
            hold = until_it_has_ended.enter_context(signals_held_off())
            if not isinstance(error, asyncio.CancelledError):
                hold.drop()
            raise


def sync_form(async_form: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Return the sync form of an async function or method.

    A sync caller gets the result. An async caller gets the coroutine, so an async caller can also await the sync form.
    Prefect's own methods work in the same way.
    """

    @functools.wraps(async_form)
    def plain(*args: P.args, **kwargs: P.kwargs) -> Any:
        coroutine = async_form(*args, **kwargs)
        return coroutine if in_async_context() else run_sync(coroutine)

    plain.__name__ = async_form.__name__.removeprefix("a")
    plain.__qualname__ = plain.__qualname__.replace(async_form.__name__, plain.__name__)
    return plain
