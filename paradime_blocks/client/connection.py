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
# An idle connection is kept for 55 s (httpx's default: 5 s), so the next poll can use it. Most load balancers close it
# after 60 s. httpx notices a closed connection before it sends anything, and opens a new one.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=55.0)


@dataclass
class Connection:
    """An open connection to one workspace."""

    settings: ConnectionSettings
    http: httpx.AsyncClient
    users: int = 0
    # The time by the server's clock minus our monotonic time, in seconds.
    clock_offset: float | None = None
    # Names of the operations whose newer fields this backend has refused; "aliases" if it has refused aliases. The
    # client does not ask for them again.
    refused: set[str] = field(default_factory=set)

    @property
    def redact(self) -> Redactor:
        """Removes secrets from the text that a message quotes from a response."""
        return Redactor.of(self.settings)

    @classmethod
    def open(
        cls, settings: ConnectionSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> Connection:
        """Open a connection; `transport` replaces the network in tests.

        Raises:
            BoltRequestError: The proxy or the certificates are invalid.
        """
        seconds = settings.request_timeout_seconds
        http = settings.open_http(
            transport,
            auth=settings.auth,
            # Less time than for the whole request. So a failed connect is seen as a connect timeout, after which Bolt
            # cannot have processed the request.
            timeout=httpx.Timeout(seconds, connect=seconds / 2, pool=seconds / 2),
            limits=_LIMITS,
        )
        return cls(settings, http)

    async def send(
        self, operation: Operation, variables: Mapping[str, Any], *, with_newer: bool = False
    ) -> Any:
        """Send an operation once and return the value of its root field.

        Raises:
            BoltError: As for `read_reply`; `BoltUnavailable` if there is no reply.
        """
        document = operation.document(variables, with_newer=with_newer)
        return await self.send_document(operation, document, variables)

    async def send_document(
        self, operation: Operation, document: str, variables: Mapping[str, Any], *, name: str = ""
    ) -> Any:
        """Send a document once, and return the value of a root field.

        The root field is `name`, or, without a name, the field of the operation.
        """
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
            # httpx's time limit is for each read: a server that sends slowly would never reach it.
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
        """Return the error if it may be a cause, since logs show causes. None if its text is long or has a secret."""
        text = str(error)
        return error if self.redact.line(text, ERROR_CHARACTERS) == text else None


def forget_request(error: BaseException) -> None:
    """Remove the request from an error and its causes: it contains the credentials.

    An error's request is not printed, but it is pickled with the error. Dask pickles causes, too.
    """
    links: list[BaseException | None] = [error]
    seen: set[int] = set()
    while links:
        link = links.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        if isinstance(link, httpx.HTTPError):
            link.request = None  # type: ignore[assignment] # httpx does the same for an error without a request
        links += [link.__cause__, link.__context__]


_open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ConnectionSettings, Connection]] = (
    weakref.WeakKeyDictionary()
)


@asynccontextmanager
async def shared_connection(settings: ConnectionSettings) -> AsyncIterator[Connection]:
    """Return the connection of this event loop for these settings. The last user closes it."""
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
            # A cancel does not interrupt this, since closing only releases sockets and takes no time.
            with anyio.CancelScope(shield=True):
                await connection.http.aclose()
