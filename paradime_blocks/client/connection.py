"""The HTTP connection to a Bolt workspace. Clients with the same settings in the same event loop share a connection."""

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
from paradime_blocks.client.ended_commands import EndedCommands
from paradime_blocks.client.replies import (
    ERROR_CHARACTERS,
    EXCERPT_CHARACTERS,
    read_aliases,
    read_reply,
    unavailable,
)
from paradime_blocks.client.retry import parse_date
from paradime_blocks.client.shared_polls import SharedPolls
from paradime_blocks.text.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from paradime_blocks.client.connection_settings import ConnectionSettings
    from paradime_blocks.client.large_replies import LargeReply, LargeTexts
    from paradime_blocks.client.operations import Operation

# httpx raises these errors before it sends anything.
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
# A large reply is read in chunks of this size. Each part of this size must arrive within the time limit of a request.
_CHUNK_BYTES = 1 << 18
_PART_BYTES = 1 << 20
# The headers of a response that this package reads.
_HEADERS_READ = ("Date", "Location", "Retry-After")


@dataclass
class Known:
    """What the clients of an event loop know about a workspace. They know it also while no connection is open.

    Attributes:
        refused: The names of the operations whose newer fields this backend has refused, and "aliases" if it has
            refused aliases. The client does not use these fields or aliases again.
        ended: The details of commands that have ended.
    """

    refused: set[str] = field(default_factory=set)
    ended: EndedCommands = field(default_factory=EndedCommands)


@dataclass
class Connection:
    """An open connection to one workspace."""

    settings: ConnectionSettings
    http: httpx.AsyncClient
    users: int = 0
    # The time by the server's clock minus our monotonic time, in seconds.
    clock_offset: float | None = None
    known: Known = field(default_factory=Known)
    polls: SharedPolls = field(default_factory=SharedPolls)

    @property
    def redact(self) -> Redactor:
        """The redactor that removes secrets from the text that a message quotes from a response."""
        return Redactor.of(self.settings)

    @classmethod
    def open(
        cls, settings: ConnectionSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> Connection:
        """Open a connection. In tests, `transport` replaces the network.

        Raises:
            BoltRequestError: The proxy or the certificates are invalid.
        """
        seconds = settings.request_timeout_seconds
        http = settings.open_http(
            transport,
            auth=settings.auth,
            # A connect has less time than the whole request. So a failed connect ends as a connect timeout, after which
            # Bolt cannot have processed the request.
            timeout=httpx.Timeout(seconds, connect=seconds / 2, pool=seconds / 2),
            limits=_LIMITS,
        )
        return cls(settings, http)

    async def send(
        self,
        operation: Operation,
        variables: Mapping[str, Any],
        *,
        with_newer: bool = False,
        large: LargeTexts | None = None,
    ) -> Any:
        """Send an operation once and return the value of its root field.

        With `large`, long texts of the reply are not in the value, but in `large`.

        Raises:
            BoltError: The errors of `read_reply`, or `BoltUnavailable` if there is no reply.
        """
        document = operation.document(variables, with_newer=with_newer)
        return await self.send_document(operation, document, variables, large=large)

    async def send_document(
        self,
        operation: Operation,
        document: str,
        variables: Mapping[str, Any],
        *,
        name: str = "",
        large: LargeTexts | None = None,
    ) -> Any:
        """Send a document once and return the value of one root field.

        The root field is `name`. If `name` is empty, the root field is the operation's field.
        """
        response = await self._post(operation, document, variables, large)
        return read_reply(operation, name or operation.field, response, self.settings.source, self.redact)

    async def send_aliased(
        self,
        operation: Operation,
        each: Sequence[Mapping[str, Any]],
        *,
        large: LargeTexts | None = None,
    ) -> list[Any]:
        """Send one query for several sets of variables once and return the value, or the error, of each set."""
        document, variables = operation.aliased(each)
        response = await self._post(operation, document, variables, large)
        names = [f"a{n}" for n in range(len(each))]
        return read_aliases(operation, names, response, self.settings.source, self.redact)

    async def _post(
        self,
        operation: Operation,
        document: str,
        variables: Mapping[str, Any],
        large: LargeTexts | None = None,
    ) -> httpx.Response:
        seconds = self.settings.request_timeout_seconds
        body = {"query": document, "variables": dict(variables)}
        try:
            # httpx limits the time of each read. A server that sends slowly would never reach this limit.
            with anyio.fail_after(seconds) as limit:
                if large is None:
                    response = await self.http.post(self.settings.api_endpoint, json=body)
                else:
                    response = await self._post_for_large(body, large.reply(), limit)
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
        except UnicodeDecodeError:
            raise unavailable(operation, "sent an answer that is not JSON") from None
        except httpx.HTTPError as error:
            forget_request(error)
            raise unavailable(operation, self._reason(error), was_answered=False) from self._quotable(error)
        date = parse_date(response.headers.get("Date"))
        if date is not None:
            self.clock_offset = date - time.monotonic()
        return response

    async def _post_for_large(
        self, body: Mapping[str, Any], large: LargeReply, limit: anyio.CancelScope
    ) -> httpx.Response:
        """Return a response without its long texts. Each part of a large reply may take as long as a small reply."""
        seconds, received = self.settings.request_timeout_seconds, 0
        async with self.http.stream("POST", self.settings.api_endpoint, json=body) as response:
            async for chunk in response.aiter_bytes(_CHUNK_BYTES):
                large.feed(chunk)
                received += len(chunk)
                if received >= _PART_BYTES:
                    limit.deadline, received = anyio.current_time() + seconds, 0
        headers = {name: response.headers[name] for name in _HEADERS_READ if name in response.headers}
        return httpx.Response(response.status_code, headers=headers, content=large.rest)

    def server_time(self) -> float | None:
        """Return the time by the server's clock, in seconds since the epoch; None before the first response."""
        return None if self.clock_offset is None else time.monotonic() + self.clock_offset

    def _reason(self, error: Exception) -> str:
        quoted = self.redact.line(str(error), EXCERPT_CHARACTERS)
        return f"was unreachable or closed the connection ({type(error).__name__}: {quoted})"

    def _quotable(self, error: Exception) -> Exception | None:
        """Return the error if its text is short and has no secret; otherwise None. Logs show the text of a cause."""
        text = str(error)
        return error if self.redact.line(text, ERROR_CHARACTERS) == text else None


def forget_request(error: BaseException) -> None:
    """Remove the HTTP request from an error and its causes, since the request contains the credentials.

    An error's request is not printed, but pickle stores the request with the error. Dask pickles the causes, too.
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


@dataclass
class _OfLoop:
    """What belongs to one event loop."""

    open: dict[ConnectionSettings, Connection] = field(default_factory=dict)
    known: dict[ConnectionSettings, Known] = field(default_factory=dict)


_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = weakref.WeakKeyDictionary()


@asynccontextmanager
async def shared_connection(settings: ConnectionSettings) -> AsyncIterator[Connection]:
    """Yield the connection of this event loop for these settings. The last client closes the connection."""
    of_loop = _of_loops.setdefault(asyncio.get_running_loop(), _OfLoop())
    connection = of_loop.open.get(settings)
    if connection is None:
        connection = of_loop.open[settings] = Connection.open(settings)
        connection.known = of_loop.known.setdefault(settings, Known())
    connection.users += 1
    try:
        yield connection
    finally:
        connection.users -= 1
        if connection.users == 0:
            del of_loop.open[settings]
            # The shield keeps a cancel from interrupting the close. The close only releases sockets and takes no time.
            with anyio.CancelScope(shield=True):
                await connection.http.aclose()
