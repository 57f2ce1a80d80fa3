"""Flows and tasks that sync code can call, too, although their functions are async.

Prefect runs an async flow only where it can be awaited. Ours are async, since only an async body is told of a
cancel everywhere; called from sync code they run to their end. `.submit()`, `.map()`, deployments and workers
need none of this and are Prefect's own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from prefect.flows import Flow
from prefect.tasks import Task
from typing_extensions import ParamSpec

from paradime_blocks.sync import in_async_context, run_sync
from paradime_flows.interrupts import listen_for_interrupts

P = ParamSpec("P")
R = TypeVar("R")


def _finished_for_sync_callers(outcome: Any) -> Any:
    if inspect.iscoroutine(outcome) and not in_async_context():
        return run_sync(outcome)
    return outcome


class DispatchedFlow(Flow[P, R]):
    """An async flow that sync code can call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow: to its end for a sync caller, as a coroutine for an async one."""
        return _finished_for_sync_callers(super().__call__(*args, **kwargs))

    def with_options(self, **options: Any) -> DispatchedFlow[P, R]:
        """Return a copy of the flow with other options."""
        copy = super().with_options(**options)
        # Prefect makes a plain Flow of it.
        copy.__class__ = type(self)
        return copy  # type: ignore[return-value]


class DispatchedTask(Task[P, R]):
    """An async task that sync code can call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task: to its end for a sync caller, as a coroutine for an async one."""
        return _finished_for_sync_callers(super().__call__(*args, **kwargs))

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Submit the task to the task runner; its thread hears of signals by way of this one."""
        listen_for_interrupts()
        return super().submit(*args, **kwargs)

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Map the task over its arguments; its threads hear of signals by way of this one."""
        listen_for_interrupts()
        return super().map(*args, **kwargs)

    def with_options(self, **options: Any) -> DispatchedTask[P, R]:
        """Return a copy of the task with other options."""
        copy = super().with_options(**options)
        copy.__class__ = type(self)
        return copy  # type: ignore[return-value]


def bolt_flow(**options: Any) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], DispatchedFlow[P, R]]:
    """Make a flow of an async function, for sync and async callers.

    Args:
        options: Options of `prefect.flow`.
    """

    def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> DispatchedFlow[P, R]:
        return DispatchedFlow(function, **options)

    return decorate


def bolt_task(**options: Any) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], DispatchedTask[P, R]]:
    """Make a task of an async function, for sync and async callers.

    Args:
        options: Options of `prefect.task`.
    """

    def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> DispatchedTask[P, R]:
        return DispatchedTask(function, **options)  # type: ignore[arg-type]

    return decorate


def async_form(runnable: DispatchedFlow[P, R] | DispatchedTask[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return the form of a flow or task for async callers only, typed as such (`ax` beside `x`)."""
    # Prefect's own call, without our sync form of it.
    call: Any = Flow.__call__ if isinstance(runnable, Flow) else Task.__call__

    @functools.wraps(runnable.fn)
    async def form(*args: P.args, **kwargs: P.kwargs) -> R:
        outcome: R = await call(runnable, *args, **kwargs)
        return outcome

    form.__name__ = f"a{runnable.fn.__name__}"
    return form
