"""One pooled HTTP connection per credentials and event loop."""

from __future__ import annotations

import asyncio
import time
import weakref
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from paradime_blocks.client.connection_settings import TRUST, is_of_trust
from paradime_blocks.client.replies import ERROR_CHARACTERS, EXCERPT_CHARACTERS, read_reply, unavailable
from paradime_blocks.client.retry import parse_date
from paradime_blocks.text.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from paradime_blocks.client.connection_settings import ConnectionSettings
    from paradime_blocks.client.operations import Operation

# httpx raises these before it sends anything.
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
# A connection is kept from one poll to the next (httpx: 5 s), but not until load balancers close it (mostly 60 s).
# httpx notices a closed connection before it sends anything, and opens a new one.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=55.0)


@dataclass
class Connection:
    """An open connection to one workspace."""

    settings: ConnectionSettings
    http: httpx.AsyncClient
    users: int = 0
    # The server's clock less our monotonic one, in seconds.
    clock_offset: float | None = None
    # Names of newer fields' operations that this backend has refused, so that it is not asked again.
    refused: set[str] = field(default_factory=set)

    @property
    def redact(self) -> Redactor:
        """Removes secrets from quotes of an answer."""
        return Redactor.of(self.settings)

    @classmethod
    def open(
        cls, settings: ConnectionSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> Connection:
        """Open a connection; `transport` takes the place of the network in tests.

        Raises:
            BoltRequestError: The proxy or the certificates are invalid.
        """
        seconds = settings.request_timeout_seconds
        http = settings.open_http(
            transport,
            auth=settings.auth,
            # Shorter than the request's limit: after a connect timeout, Bolt cannot have processed the request.
            timeout=httpx.Timeout(seconds, connect=seconds / 2, pool=seconds / 2),
            limits=_LIMITS,
        )
        return cls(settings, http)

    async def send(
        self, operation: Operation, variables: Mapping[str, Any], *, with_newer: bool = False
    ) -> Any:
        """Send an operation once and return the value of its root field.

        Raises:
            BoltError: As `read_reply` says, and `BoltUnavailable` when there is no reply.
        """
        document = operation.document(variables, with_newer=with_newer)
        return await self.send_document(operation, document, variables)

    async def send_document(
        self, operation: Operation, document: str, variables: Mapping[str, Any], *, name: str = ""
    ) -> Any:
        """Send a document once and return the value of one root field: the operation's, unless named."""
        response = await self._post(operation, document, variables)
        fields = [name or operation.field]
        return read_reply(operation, fields, response, self.settings.source, self.redact)[0]

    async def send_aliased(
        self, operation: Operation, document: str, variables: Mapping[str, Any], count: int
    ) -> list[Any]:
        """Send a document of `Operation.aliased` once and return the value of each alias."""
        response = await self._post(operation, document, variables)
        fields = [f"a{n}" for n in range(count)]
        return read_reply(operation, fields, response, self.settings.source, self.redact)

    async def _post(
        self, operation: Operation, document: str, variables: Mapping[str, Any]
    ) -> httpx.Response:
        seconds = self.settings.request_timeout_seconds
        try:
            # httpx's limits apply to each read: a server that sends slowly would never reach them.
            with anyio.fail_after(seconds):
                response = await self.http.post(
                    self.settings.api_endpoint, json={"query": document, "variables": dict(variables)}
                )
        except _NEVER_SENT as error:
            forget_request(error)
            reason = self._reason(error)
            guidance = TRUST if is_of_trust(error) else None
            raise unavailable(operation, reason, may_have_acted=False, guidance=guidance) from self._quotable(
                error
            )
        except (TimeoutError, httpx.TimeoutException) as error:
            forget_request(error)
            what = f"did not answer within {seconds:g} s"
            raise unavailable(operation, what, may_still_act=True) from error
        except httpx.HTTPError as error:
            forget_request(error)
            raise unavailable(operation, self._reason(error), was_answered=False) from self._quotable(error)
        date = parse_date(response.headers.get("Date"))
        if date is not None:
            self.clock_offset = date - time.monotonic()
        return response

    def server_time(self) -> float | None:
        """Return the time by the server's clock, in seconds since the epoch; None before the first response."""
        return None if self.clock_offset is None else time.monotonic() + self.clock_offset

    def _reason(self, error: Exception) -> str:
        quoted = self.redact.line(str(error), EXCERPT_CHARACTERS)
        return f"was unreachable or closed the connection ({type(error).__name__}: {quoted})"

    def _quotable(self, error: Exception) -> Exception | None:
        """Return the error as a cause, which logs show; None if it quotes the server at length."""
        text = str(error)
        return error if self.redact.line(text, ERROR_CHARACTERS) == text else None


def forget_request(error: BaseException) -> None:
    """Remove the request from an error and its causes: it contains the credentials.

    It is not printed, but it would be pickled; Dask pickles causes, too.
    """
    links: list[BaseException | None] = [error]
    seen: set[int] = set()
    while links:
        link = links.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        if isinstance(link, httpx.HTTPError):
            link.request = None  # type: ignore[assignment] # as httpx has it where it knows of no request
        links += [link.__cause__, link.__context__]


_open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ConnectionSettings, Connection]] = (
    weakref.WeakKeyDictionary()
)


@asynccontextmanager
async def shared_connection(settings: ConnectionSettings) -> AsyncIterator[Connection]:
    """Return the event loop's connection for these settings; the last user closes it."""
    connections = _open.setdefault(asyncio.get_running_loop(), {})
    connection = connections.get(settings)
    if connection is None:
        connection = connections[settings] = Connection.open(settings)
    connection.users += 1
    try:
        yield connection
    finally:
        connection.users -= 1
        if connection.users == 0:
            del connections[settings]
            # Closing only releases sockets, so no cancel interrupts it.
            with anyio.CancelScope(shield=True):
                await connection.http.aclose()
