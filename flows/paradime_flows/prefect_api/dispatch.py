"""Flows and tasks with async functions that sync code can call, too.

In Prefect, only async code can call an async flow. Our flows are async, because only an async function can be
cancelled in every place. If sync code calls one of our flows or tasks, the call returns when the flow or task has
ended. `.submit()`, `.map()`, deployments and workers work as in Prefect.

The arguments of a task are checked in its task run, as Prefect checks the parameters of a flow. An argument may be a
future, and in the task run the future has its value.
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
from paradime_flows.form_groups import FormGroup
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
        """Run the flow to its end for a sync caller. Return a coroutine to an async caller."""
        return _finished_for_sync_callers(super().__call__(*args, **kwargs))

    def drawn_with(self, boxes: Mapping[str, type[FormGroup]]) -> DispatchedFlow[P, R]:
        """Show options in boxes in the flow's form.

        A deployment reads the signature of the flow. A flow run reads the signature of the flow's function.
        """
        self.__signature__ = form_signature(self.fn, boxes)
        self.parameters = parameter_schema(self)
        return self

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters of a call as Prefect stores them.

        Raises:
            BoltRequestError: A parameter has the values of a block instead of the block's name.
        """
        return super().serialize_parameters({name: stored(name, value) for name, value in parameters.items()})

    def with_options(self, **options: Any) -> DispatchedFlow[P, R]:
        """Return a copy of the flow with other options."""
        copy = super().with_options(**options)
        # Prefect returns a plain Flow, whose form shows the parameters of the function.
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
        """Run the task to its end for a sync caller. Return a coroutine to an async caller."""
        return _finished_for_sync_callers(super().__call__(*args, **kwargs))

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Submit the task to the task runner. The calling thread counts the signals for the task's thread."""
        count_signals()
        return super().submit(*args, **kwargs)

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Map the task over its arguments. The calling thread counts the signals for the tasks' threads.

        All tasks get the same block. Prefect alone would map over the fields of the block.
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
        boxes: The boxes of the flow's form. The key is the name of the parameter.
        options: Options of `prefect.flow`.
    """

    def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> DispatchedFlow[P, R]:
        flow: Any = DispatchedFlow(spread_options(function, boxes), **options)
        return flow.drawn_with(boxes) if boxes else flow  # type: ignore[no-any-return]

    return decorate


def bolt_task(**options: Any) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], DispatchedTask[P, R]]:
    """Make a task of an async function, for sync and async callers. The task checks the types of its arguments.

    The task has no cache. In a flow that persists its results, a cache would return the result of an earlier call with
    the same arguments. A second trigger would return the first Bolt run, and a read would return an old state.

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
    # The adapters are made at the first call, because it takes time to make them.
    parameters = inspect.signature(function).parameters.values()
    return {each.name: TypeAdapter(each.annotation) for each in parameters}


def _checked_argument(name: str, value: object, adapter: TypeAdapter[Any]) -> object:
    """Return a task's argument, converted to its type.

    Raises:
        BoltRequestError: The argument is invalid, or it is text where the type is a number or a bool.
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
        # Pydantic reads "no" as False and True as 1. This is a guess, and a guess could start a wrong Bolt run.
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
    # This is Prefect's own call, so it returns a coroutine to every caller.
    call: Any = Flow.__call__ if isinstance(runnable, Flow) else Task.__call__

    @functools.wraps(runnable.fn)
    async def form(*args: P.args, **kwargs: P.kwargs) -> R:
        outcome: R = await call(runnable, *args, **kwargs)
        return outcome

    form.__name__ = f"a{runnable.fn.__name__}"
    return form
