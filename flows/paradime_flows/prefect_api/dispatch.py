"""Flows and tasks with async functions that sync code can call, too.

In Prefect, only async code can call an async flow. Our flows are async, because only async functions can be cancelled
everywhere. A call from sync code runs them to their end. `.submit()`, `.map()`, deployments and workers need none of
this; they are Prefect's own.

A task's arguments are checked in its run, as Prefect checks a flow's parameters, because futures have their values by
then.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from prefect.cache_policies import NO_CACHE
from prefect.flows import Flow
from prefect.tasks import Task
from prefect.utilities.annotations import unmapped
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, TypeAdapter, ValidationError
from typing_extensions import ParamSpec

from paradime_blocks import BoltRequestError
from paradime_blocks.sync import in_async_context, run_sync
from paradime_blocks.text.reasons import each_reason
from paradime_flows.forms import FormGroup
from paradime_flows.prefect_api.signals import count_signals
from paradime_flows.prefect_api.signatures import form_signature, spread_options
from paradime_flows.prefect_api.stored import stored

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

    def drawn_with(self, boxes: Mapping[str, type[FormGroup]]) -> DispatchedFlow[P, R]:
        """Show the flow's form with boxes.

        A deployment reads the signature of the flow; a run reads the signature of its function.
        """
        self.__signature__ = form_signature(self.fn, boxes)
        self.parameters = parameter_schema(self)
        return self

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters of a call as Prefect stores them.

        Raises:
            BoltRequestError: A parameter has the values of a block instead of its name.
        """
        return super().serialize_parameters({name: stored(name, value) for name, value in parameters.items()})

    def with_options(self, **options: Any) -> DispatchedFlow[P, R]:
        """Return a copy of the flow with other options."""
        copy = super().with_options(**options)
        # Prefect returns a plain Flow, with the form of its function.
        copy.__class__ = type(self)
        copy.parameters = self.parameters
        if signature := vars(self).get("__signature__"):
            copy.__signature__ = signature  # type: ignore[attr-defined]
        return copy  # type: ignore[return-value]


def _whole(argument: Any) -> Any:
    return unmapped(argument) if isinstance(argument, BaseModel) else argument


class DispatchedTask(Task[P, R]):
    """An async task that sync code can call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task: to its end for a sync caller, as a coroutine for an async one."""
        return _finished_for_sync_callers(super().__call__(*args, **kwargs))

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Submit the task to the task runner. This thread counts the signals for the task's thread."""
        count_signals()
        return super().submit(*args, **kwargs)

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Map the task over its arguments. This thread counts the signals for the tasks' threads.

        A block is one argument for all tasks: Prefect would map over its fields.
        """
        count_signals()
        return super().map(*map(_whole, args), **{name: _whole(value) for name, value in kwargs.items()})

    def with_options(self, **options: Any) -> DispatchedTask[P, R]:
        """Return a copy of the task with other options."""
        copy = super().with_options(**options)
        copy.__class__ = type(self)
        return copy  # type: ignore[return-value]


def bolt_flow(
    *, boxes: Mapping[str, type[FormGroup]] | None = None, **options: Any
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], DispatchedFlow[P, R]]:
    """Make a flow of an async function, for sync and async callers.

    Args:
        boxes: The boxes of the flow's form, by the parameter's name.
        options: Options of `prefect.flow`.
    """

    def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> DispatchedFlow[P, R]:
        flow: Any = DispatchedFlow(spread_options(function, boxes), **options)
        return flow.drawn_with(boxes) if boxes else flow  # type: ignore[no-any-return]

    return decorate


def bolt_task(**options: Any) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], DispatchedTask[P, R]]:
    """Make a task of an async function, for sync and async callers. Its arguments are checked by their types.

    The task has no cache. In a flow that persists its results, a cache would return the result of an earlier call with
    the same arguments: the first run for a second trigger, or an old state of a run.

    Args:
        options: Options of `prefect.task`.
    """

    def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> DispatchedTask[P, R]:
        @functools.wraps(spread_options(function))
        async def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = inspect.signature(function).bind(*args, **kwargs)
            adapters = _adapters(function)
            for name, value in bound.arguments.items():
                bound.arguments[name] = _checked_argument(name, value, adapters[name])
            return await function(*bound.args, **bound.kwargs)

        return DispatchedTask(checked, **{"cache_policy": NO_CACHE, **options})  # type: ignore[arg-type]

    return decorate


@functools.cache
def _adapters(function: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    # Made at the first call, because making them takes time.
    parameters = inspect.signature(function).parameters.values()
    return {each.name: TypeAdapter(each.annotation) for each in parameters}


def _checked_argument(name: str, value: object, adapter: TypeAdapter[Any]) -> object:
    """Return a task's argument, converted to its type.

    Raises:
        BoltRequestError: It is invalid, or it is text where the type is a number or a bool.
    """
    given = (
        f"{name} is {value!r}"
        if isinstance(value, _PLAIN) and name != "credentials"
        else f"{name} is invalid"
    )
    try:
        read = adapter.validate_python(value)
    except ValidationError as error:
        reasons = dict.fromkeys(reason for _, reason in each_reason(error))
        msg = f"{given}. Nothing was sent."
        wanted = "; or ".join(reason[:1].lower() + reason[1:] for reason in reasons)
        guidance = f"For {name}, {wanted}."
        raise BoltRequestError(msg, guidance=guidance) from None
    if isinstance(value, _PLAIN) and not _is_of_the_same_kind(value, read):
        # Pydantic reads "no" as False and True as 1. That is a guess, and a guess could start a wrong run.
        msg = f"{given}. Nothing was sent."
        kind = "True or False" if isinstance(read, bool) else f"a value like {read!r}"
        raise BoltRequestError(msg, guidance=f"Give {name} as {kind}.")
    return read


_PLAIN = (str, int, float)


def _is_of_the_same_kind(value: object, read: object) -> bool:
    kinds = (bool, str, int)
    return [isinstance(value, kind) for kind in kinds] == [isinstance(read, kind) for kind in kinds] or (
        type(value) is int and isinstance(read, float)
    )


def async_form(runnable: DispatchedFlow[P, R] | DispatchedTask[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return the form of a flow or task for async callers (`ax` beside `x`)."""
    # This is Prefect's own call, without our form for sync callers.
    call: Any = Flow.__call__ if isinstance(runnable, Flow) else Task.__call__

    @functools.wraps(runnable.fn)
    async def form(*args: P.args, **kwargs: P.kwargs) -> R:
        outcome: R = await call(runnable, *args, **kwargs)
        return outcome

    form.__name__ = f"a{runnable.fn.__name__}"
    return form
