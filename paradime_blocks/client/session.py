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
from paradime_blocks.client.unknown_schedule import explained
from paradime_blocks.errors import BoltRequestError, BoltUnavailable, BoltUnsupported
from paradime_blocks.text.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import httpx
    from typing_extensions import Self

    from paradime_blocks.client.connection_settings import ConnectionSettings
    from paradime_blocks.client.large_replies import LargeTexts
    from paradime_blocks.client.operations import Operation
    from paradime_blocks.client.retry import Sleep

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
_INT = TypeAdapter(int)
_OPENED = "`async with credentials.get_client() as client:`"
_STEP_SECONDS = 0.1


def understood(
    operation: Operation, variables: Mapping[str, Any], model: type[Model], reply: Any, **known: Any
) -> Model:
    """Return the model of a reply's value.

    Raises:
        BoltRequestError: Bolt returned `ok: false`.
        BoltUnavailable: The value has only nulls, or does not match the API schema.
    """
    if isinstance(reply, dict) and reply.get("ok") is False:
        # On the vendor's API page, `ok: false` is the only sign of a refusal.
        asked = ", ".join(f"{name}: {value!r}" for name, value in variables.items())
        msg = f"Bolt returned ok: false for {operation.field}({asked})."
        raise BoltRequestError(
            msg, operation=operation.name, guidance="Check that the run, command, file or schedule exists."
        )
    if isinstance(reply, dict) and all(value is None for value in reply.values()):
        # Otherwise a reply with only nulls would look like "no schedules" or "no latest run".
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


class BoltSession:
    """The base class of the client, which sends requests and reads replies. Use the subclass `BoltClient`."""

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
        """Open a connection, or share the connection that is already open in this event loop.

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
        """Stop using the connection. The last client that uses the connection closes it."""
        self._connection = None
        await self._stack.aclose()

    def clone(self, *, may_send: Callable[[], bool] | None = None) -> Self:
        """Return a closed client with the same settings, for another event loop or thread.

        Args:
            may_send: A function as described for `BoltClient`.
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

        return await self._with_retries(
            call,
            variables,
            retry=lambda error: never_arrived(error) and may_send(),
            sleep=self._sleep if self._may_send is None else sleep,
        )

    async def _read(
        self,
        operation: Operation,
        variables: dict[str, Any],
        model: type[Model],
        large: LargeTexts | None = None,
        **known: Any,
    ) -> Model:
        async def call() -> Model:
            reply = await self._send(operation, variables, large)
            return understood(operation, variables, model, reply, **known)

        return await self._with_retries(call, variables)

    async def _call(self, operation: Operation, variables: dict[str, Any]) -> Any:
        return await self._with_retries(lambda: self._send(operation, variables), variables)

    async def _with_retries(
        self,
        call: Callable[[], Awaitable[T]],
        variables: dict[str, Any],
        retry: Callable[[BaseException], bool] = should_retry,
        sleep: Sleep | None = None,
    ) -> T:
        try:
            return await call_with_retries(call, self.retry_policy, retry=retry, sleep=sleep or self._sleep)
        except BoltRequestError as error:
            if self._may_send is not None and not self._may_send():
                raise
            redact = Redactor.of(self.settings)
            raise await explained(error, variables, self._send, redact) from error.__cause__

    async def _send(
        self, operation: Operation, variables: dict[str, Any], large: LargeTexts | None = None
    ) -> Any:
        """Send an operation in the newest form that this backend knows.

        After a validation error the operation is sent again, since the backend has not executed any part of it.
        """
        connection = self._open_connection()
        with_newer = bool(operation.newer) and operation.name not in connection.known.refused
        while True:
            try:
                return await connection.send(operation, variables, with_newer=with_newer, large=large)
            except BoltUnsupported as error:
                if with_newer and error.missing in operation.newer.split():
                    connection.known.refused.add(operation.name)
                    with_newer = False
                    continue
                older = ops.older_way(variables, error.missing)
                if older is None:
                    raise
                variables = older

    def _open_connection(self) -> Connection:
        if self._connection is None:
            msg = "The client is not open."
            raise BoltRequestError(msg, guidance=f"Open the client with {_OPENED}.")
        if self._loop is not asyncio.get_running_loop():
            msg = "The client was opened in another event loop, and its connection belongs to that loop."
            guidance = f"Open a client in each event loop, also in a Prefect task with its own event loop: {_OPENED}."
            raise BoltRequestError(msg, guidance=guidance)
        return self._connection
