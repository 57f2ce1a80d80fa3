"""The classes of our flows and tasks: their functions are async, but sync code can call them, too.

Our flows are async, because an async function can be cancelled wherever it waits. In Prefect, only async code can call
an async flow. Our flows and tasks can also be called by sync code: the call then returns when the flow or task has
ended. `.submit()`, `.map()`, deployments and workers work as in Prefect.

A task checks its arguments in its task run, as Prefect checks the parameters of a flow. If an argument is a future,
Prefect has replaced the future by its value before the check.
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
        """Submit the task to the task runner.

        The calling thread counts the signals, because the task's own thread may not receive signals.
        """
        count_signals()
        return super().submit(*args, **kwargs)

    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Map the task over its arguments. The calling thread counts the signals, as in `submit`.

        If an argument is a block, all tasks get this block. Prefect's own `map` would map over the fields of the
        block.
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
    """Turn an async function into a flow that sync code and async code can call.

    Args:
        boxes: The boxes of the flow's form. The key is the name of the parameter.
        options: The keyword arguments of `prefect.flow`.
    """

    def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> DispatchedFlow[P, R]:
        drawn: Any = spread_options(function, boxes)
        if not boxes:
            return DispatchedFlow(drawn, **options)
        # A deployment reads the signature of the flow object: the form, with its boxes. A flow run reads the signature
        # of the flow's function. Prefect draws the form when the flow is made, and drawing it twice takes long.
        every_option = drawn.__signature__
        form = drawn.__signature__ = form_signature(drawn, boxes)
        flow: Any = DispatchedFlow(drawn, **options)
        drawn.__signature__, flow.__signature__ = every_option, form
        return flow  # type: ignore[no-any-return]

    return decorate


def bolt_task(**options: Any) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], DispatchedTask[P, R]]:
    """Turn an async function into a task that sync code and async code can call. The task checks its arguments' types.

    The task has no cache. In a flow that persists its results, a cache would return the result of an earlier call with
    the same arguments: a second trigger would return the first Bolt run, and a read would return an old state.

    Args:
        options: The keyword arguments of `prefect.task`.
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
    # The adapters are created at the first call, because the creation takes time.
    parameters = inspect.signature(function).parameters.values()
    return {each.name: TypeAdapter(each.annotation) for each in parameters}


def _checked_argument(name: str, value: object, adapter: TypeAdapter[Any]) -> object:
    """Convert an argument of a task to the type that the task's signature names.

    Raises:
        BoltRequestError: The argument is not valid, or its basic type is wrong: for example, a text for a number.
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
        msg = f"{given}. No request was sent to Bolt."
        wanted = "; or ".join(reason[:1].lower() + reason[1:] for reason in reasons)
        guidance = f"For {name}, {wanted}."
        raise BoltRequestError(msg, guidance=guidance) from None
    if isinstance(value, _PLAIN) and not _is_of_the_same_kind(value, read):
        # Pydantic reads "no" as False and True as 1. These values are guesses, and a guess could start a wrong Bolt
        # run.
        msg = f"{given}. No request was sent to Bolt."
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
    """Return the async function `ax` for a flow or task `x`. Async code can await the function."""
    # `call` is Prefect's own `__call__`, which returns a coroutine to every caller.
    call: Any = Flow.__call__ if isinstance(runnable, Flow) else Task.__call__

    @functools.wraps(runnable.fn)
    async def form(*args: P.args, **kwargs: P.kwargs) -> R:
        outcome: R = await call(runnable, *args, **kwargs)
        return outcome

    form.__name__ = f"a{runnable.fn.__name__}"
    return form
