"""One pooled HTTP connection per credentials and event loop."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import time
import weakref
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from paradime_blocks.client.auth import credential_headers, is_loopback
from paradime_blocks.client.replies import ERROR_CHARACTERS, EXCERPT_CHARACTERS, read_reply, unavailable
from paradime_blocks.client.retry import parse_date
from paradime_blocks.errors import BoltRequestError
from paradime_blocks.text.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from pydantic import SecretStr

    from paradime_blocks.client.operations import Operation

# With these, nothing of the request can have reached the server: httpx raises them before it writes.
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
# A connection is kept from one look at a run to the next (httpx: 5 s), and given up before load balancers cut it
# (60 s with most). One that was closed meanwhile is seen to be, and a new one made, before anything is sent.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=55.0)


def _certificates() -> ssl.SSLContext:
    """Return the certificates that the environment says to trust."""
    return _read_certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.lru_cache(maxsize=4)
def _read_certificates(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    # Reading them takes a good part of the time that it takes to open a connection; httpx reads the variables.
    return httpx.create_ssl_context()


@dataclass(frozen=True)
class ConnectionSettings:
    """All that it takes to talk to one workspace.

    Attributes:
        api_endpoint: The workspace's GraphQL endpoint.
        api_key: The key of a key pair; None with a bearer token.
        api_secret: The secret of a key pair, or a bearer token.
        workspace_uid: The workspace that a company token acts on.
        proxy: The proxy's URL; `none` for no proxy; None for what the environment says.
        request_timeout_seconds: How long one request may take as a whole.
        source: Where the credentials are kept, for messages.
    """

    api_endpoint: str
    api_key: SecretStr | None
    api_secret: SecretStr
    workspace_uid: str | None = None
    # It may hold a password.
    proxy: str | None = field(default=None, repr=False)
    request_timeout_seconds: float = 30.0
    source: str = "the arguments of BoltClient"

    def http_options(self) -> dict[str, Any]:
        """Return httpx's options for reaching the endpoint.

        Without `trust_env` httpx looks at the environment for neither proxies nor certificates: those are ours
        to pass on, since a proxy that opens TLS is what most people set SSL_CERT_FILE for.
        """
        if self.proxy and self.proxy != "none":
            certificates = _certificates()
            proxy: httpx.Proxy | str = self.proxy
            if self.proxy.startswith("https:"):
                proxy = httpx.Proxy(self.proxy, ssl_context=certificates)
            return {"proxy": proxy, "verify": certificates, "trust_env": False}
        # A proxy of the environment cannot reach this machine's own loopback.
        if self.proxy is None and not is_loopback(self.api_endpoint):
            return {"trust_env": True}
        return {"verify": _certificates(), "trust_env": False}

    def open_http(
        self, transport: httpx.AsyncBaseTransport | None = None, **options: Any
    ) -> httpx.AsyncClient:
        """Open an HTTP client that goes by the proxy and the certificates of these settings.

        Args:
            transport: Takes the place of the network; for tests.
            options: Further options of `httpx.AsyncClient`.

        Raises:
            BoltRequestError: The environment's proxy or certificates are no good.
        """
        try:
            # A redirect could carry the credentials to another host, or a signed link over plain http.
            return httpx.AsyncClient(
                follow_redirects=False,
                **({"transport": transport} if transport is not None else self.http_options()),
                **options,
            )
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            msg = f"No connection can be set up ({type(error).__name__})."
            guidance = (
                "Check the environment's HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR, "
                "or set the credentials' proxy: a URL, or none."
            )
            # What httpx says may quote a proxy's URL, and with it a password.
            raise BoltRequestError(msg, guidance=guidance) from None


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

    def __post_init__(self) -> None:
        """Know what no message may quote of an answer."""
        self.redact = Redactor.of(self.settings)

    @classmethod
    def open(
        cls, settings: ConnectionSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> Connection:
        """Open a connection; `transport` takes the place of the network in tests.

        Raises:
            BoltRequestError: The environment's proxy or certificates are no good.
        """
        key = settings.api_key.get_secret_value() if settings.api_key else None
        seconds = settings.request_timeout_seconds
        http = settings.open_http(
            transport,
            headers=credential_headers(key, settings.api_secret.get_secret_value(), settings.workspace_uid),
            # Well within the request's own limit, so that a connection that was never made is told apart
            # from an answer that never came: only the first leaves no doubt that Bolt has done nothing.
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
            # httpx's own limits are for each read: a server that dribbles would never reach them.
            with anyio.fail_after(seconds):
                response = await self.http.post(
                    self.settings.api_endpoint, json={"query": document, "variables": dict(variables)}
                )
        except _NEVER_SENT as error:
            forget_request(error)
            told = self._reason(error)
            raise unavailable(operation, told, may_have_acted=False) from self._quotable(error)
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
        """Return the time by the server's clock, in seconds since the epoch, as it was told last and went on."""
        return None if self.clock_offset is None else time.monotonic() + self.clock_offset

    def _reason(self, error: Exception) -> str:
        told = self.redact.line(str(error), EXCERPT_CHARACTERS)
        return f"could not be reached or broke off ({type(error).__name__}: {told})"

    def _quotable(self, error: Exception) -> Exception | None:
        """Return the error as a cause, which logs show; not if it quotes at length what the server sent."""
        text = str(error)
        return error if self.redact.line(text, ERROR_CHARACTERS) == text else None


def forget_request(error: BaseException) -> None:
    """Take the request out of an error and those that led to it: it holds the credentials.

    Nobody prints it, but whoever pickles the error has it: Dask does so with all that leads to an error, too.
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
    """Give the event loop's connection for these settings; the last to leave closes it."""
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
            # Closing is cut off by no cancel: it only gives sockets back.
            with anyio.CancelScope(shield=True):
                await connection.http.aclose()
