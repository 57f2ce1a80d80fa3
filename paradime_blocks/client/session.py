"""Sends operations to one Bolt workspace and reads the replies."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from pydantic import BaseModel, TypeAdapter, ValidationError

from paradime_blocks.client import operations as ops
from paradime_blocks.client.connection import Connection, shared_connection
from paradime_blocks.client.retry import RetryPolicy, call_with_retries, never_arrived, should_retry
from paradime_blocks.errors import (
    BoltAuthError,
    BoltError,
    BoltRequestError,
    BoltUnavailable,
    BoltUnsupported,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import httpx
    from typing_extensions import Self

    from paradime_blocks.client.connection_settings import ConnectionSettings
    from paradime_blocks.client.operations import Operation
    from paradime_blocks.client.retry import Sleep

Model = TypeVar("Model", bound=BaseModel)
_INT = TypeAdapter(int)
_OPENED = "`async with credentials.get_client() as client:`"
_ALIASES = "aliases"
_ALIASES_PER_REQUEST = 50
_STEP_SECONDS = 0.1


def _understood(
    operation: Operation, variables: Mapping[str, Any], model: type[Model], reply: Any, **known: Any
) -> Model:
    if isinstance(reply, dict) and reply.get("ok") is False:
        # On the vendor's API page, `ok: false` is the only sign of a refusal.
        asked = ", ".join(f"{name}: {value!r}" for name, value in variables.items())
        msg = f"Bolt returned ok: false for {operation.field}({asked})."
        raise BoltRequestError(msg, operation=operation.name, guidance="Check that it exists.")
    if isinstance(reply, dict) and all(value is None for value in reply.values()):
        # A reply with only nulls must not be read as "no schedules" or "no latest run".
        msg = f"Bolt's response to {operation.field} has only nulls."
        raise BoltUnavailable(msg, operation=operation.name)
    try:
        return model.model_validate({**reply, **known})
    except (ValidationError, TypeError) as error:
        msg = f"Bolt's response to {operation.field} does not match the API schema."
        raise BoltUnavailable(msg, operation=operation.name) from error


async def _sleep_while(wanted: Callable[[], bool], seconds: float, sleep: Sleep) -> None:
    """Sleep, but wake up as soon as `wanted` returns False."""
    while seconds > 0 and wanted():
        await sleep(min(seconds, _STEP_SECONDS))
        seconds -= _STEP_SECONDS


def _understood_each(
    operation: Operation, each: Sequence[Mapping[str, Any]], model: type[Model], replies: Sequence[Any]
) -> Iterator[Model | BoltError]:
    for asked, reply in zip(each, replies, strict=True):
        try:
            yield _understood(operation, asked, model, reply)
        except BoltError as error:
            yield error


def sorted_out(
    replies: Mapping[int, Model | BoltError], errors: dict[int, BoltError] | None
) -> dict[int, Model]:
    """Return the replies that are not errors, and collect the errors.

    Args:
        replies: For each key, the reply or the error.
        errors: Collects the errors; if it is None, the first error is raised.
    """
    found: dict[int, Model] = {}
    for key, reply in replies.items():
        if isinstance(reply, BoltError):
            if errors is None:
                raise reply
            errors[key] = reply
        else:
            found[key] = reply
    return found


class BoltSession:
    """The base of the client's classes: it sends and reads. `paradime_blocks.client.BoltClient` says how to use it."""

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        retry_policy: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Sleep = anyio.sleep,
        may_send: Callable[[], bool] | None = None,
    ) -> None:
        self.settings = settings
        self.retry_policy = retry_policy or RetryPolicy()
        self._transport = transport
        self._sleep = sleep
        self._may_send = may_send
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.api_endpoint!r})"

    async def __aenter__(self) -> Self:
        """Open the connection, or share the one that is already open in this event loop.

        Raises:
            BoltRequestError: The client is already open, or no connection can be set up.
        """
        if self._connection is not None:
            msg = "The client is already open."
            raise BoltRequestError(msg, guidance="Use a new client for each `async with`.")
        if self._transport is None:
            self._connection = await self._stack.enter_async_context(shared_connection(self.settings))
        else:
            self._connection = Connection.open(self.settings, self._transport)
            self._stack.push_async_callback(self._connection.http.aclose)
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop using the connection. The last user closes it."""
        self._connection = None
        await self._stack.aclose()

    def clone(self, *, may_send: Callable[[], bool] | None = None) -> Self:
        """Return a closed client with the same settings, for another event loop or thread.

        Args:
            may_send: As for `BoltClient`.
        """
        return type(self)(
            self.settings,
            retry_policy=self.retry_policy,
            transport=self._transport,
            sleep=self._sleep,
            may_send=may_send,
        )

    def bolt_time(self) -> float | None:
        """Return the time by Bolt's clock, in seconds since the epoch; None before the first response."""
        return self._open_connection().server_time()

    async def _new_run(self, operation: Operation, variables: dict[str, Any]) -> int:
        may_send = self._may_send or (lambda: True)

        async def call() -> int:
            if not may_send():
                msg = "The request was cancelled before it was sent."
                raise BoltUnavailable(msg, operation=operation.name, may_have_acted=False)
            reply = await self._send(operation, variables)
            try:
                return _INT.validate_python(reply["runId"])
            except (ValidationError, KeyError, TypeError) as error:
                msg = "Bolt's response has no run id."
                raise BoltUnavailable(msg, operation=operation.name) from error

        async def sleep(seconds: float) -> None:
            await _sleep_while(may_send, seconds, self._sleep)

        return await call_with_retries(
            call,
            self.retry_policy,
            retry=lambda error: never_arrived(error) and may_send(),
            sleep=self._sleep if self._may_send is None else sleep,
        )

    async def _read(
        self, operation: Operation, variables: dict[str, Any], model: type[Model], **known: Any
    ) -> Model:
        async def call() -> Model:
            return _understood(operation, variables, model, await self._send(operation, variables), **known)

        return await call_with_retries(call, self.retry_policy, sleep=self._sleep)

    async def _read_many(
        self, operation: Operation, each: Sequence[dict[str, Any]], model: type[Model]
    ) -> list[Model]:
        """Send one query for several sets of variables; if one of them fails, its error is raised."""
        found: list[Model] = []
        for reply in await self._read_each(operation, each, model):
            if isinstance(reply, BoltError):
                raise reply
            found.append(reply)
        return found

    async def _read_each(
        self, operation: Operation, each: Sequence[dict[str, Any]], model: type[Model]
    ) -> list[Model | BoltError]:
        """Send one query for several sets of variables, with aliases, or one by one if the backend refuses aliases.

        If one of them fails, the list has its error at its place. An error that concerns all of them, such as refused
        credentials or an outage, is raised.
        """
        found: list[Model | BoltError] = []
        for start in range(0, len(each), _ALIASES_PER_REQUEST):
            chunk = each[start : start + _ALIASES_PER_REQUEST]
            found.extend(await self._read_chunk(operation, chunk, model))
        return found

    async def _read_chunk(
        self, operation: Operation, each: Sequence[dict[str, Any]], model: type[Model]
    ) -> list[Model | BoltError]:
        connection = self._open_connection()
        if len(each) < 2 or _ALIASES in connection.refused:  # noqa: PLR2004 - one query needs no alias
            return await self._read_singles(operation, each, model)
        document, variables = operation.aliased(each)
        latest: list[Model | BoltError] = []

        async def call() -> None:
            latest.clear()
            replies = await connection.send_aliased(operation, document, variables, len(each))
            latest.extend(_understood_each(operation, each, model, replies))
            # Raised, so that the request is sent again, as a single query would be.
            for error in (found for found in latest if isinstance(found, BoltUnavailable)):
                raise error

        try:
            await call_with_retries(call, self.retry_policy, sleep=self._sleep)
        except BoltAuthError:
            raise
        except (BoltRequestError, BoltUnavailable) as error:
            if any(isinstance(found, BaseModel) for found in latest):
                # The last reply has some of the values; the others are errors in the list.
                return latest
            if isinstance(error, BoltUnavailable) and not error.graphql_errors:
                raise
        else:
            return latest
        # All fail if the backend refuses aliases, but also if a single one does not exist: single queries show which.
        singles = await self._read_singles(operation, each, model)
        if not any(isinstance(found, BoltError) for found in singles):
            connection.refused.add(_ALIASES)
        return singles

    async def _read_singles(
        self, operation: Operation, each: Sequence[dict[str, Any]], model: type[Model]
    ) -> list[Model | BoltError]:
        found: list[Model | BoltError] = []
        for variables in each:
            try:
                found.append(await self._read(operation, variables, model))
            except (BoltAuthError, BoltUnavailable, BoltUnsupported):
                # The other queries would fail, too, each one after all retries.
                raise
            except BoltRequestError as error:
                found.append(error)
        return found

    async def _call(self, operation: Operation, variables: dict[str, Any]) -> Any:
        return await call_with_retries(
            lambda: self._send(operation, variables), self.retry_policy, retry=should_retry, sleep=self._sleep
        )

    async def _send(self, operation: Operation, variables: dict[str, Any]) -> Any:
        """Send an operation in the newest form that this backend knows.

        After a validation error the operation is sent again, since the backend has not executed any part of it.
        """
        connection = self._open_connection()
        with_newer = bool(operation.newer) and operation.name not in connection.refused
        while True:
            try:
                return await connection.send(operation, variables, with_newer=with_newer)
            except BoltUnsupported as error:
                if with_newer and error.missing in operation.newer.split():
                    connection.refused.add(operation.name)
                    with_newer = False
                    continue
                older = ops.older_way(variables, error.missing)
                if older is None:
                    raise
                variables = older

    def _open_connection(self) -> Connection:
        if self._connection is None:
            msg = "The client is not open."
            raise BoltRequestError(msg, guidance=f"Use it as {_OPENED}.")
        if self._loop is not asyncio.get_running_loop():
            msg = "The client was opened in another event loop, and its connection belongs to that one."
            guidance = (
                f"Open a client in each event loop, thus in each task that Prefect runs by itself: {_OPENED}."
            )
            raise BoltRequestError(msg, guidance=guidance)
        return self._connection
