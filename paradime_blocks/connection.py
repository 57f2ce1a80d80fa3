"""One pooled HTTP connection per credentials and event loop, and the one place that reads a reply."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import ssl
import time
import weakref
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import anyio
import httpx

from paradime_blocks.endpoints import credential_headers, is_loopback
from paradime_blocks.errors import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltError,
    BoltRequestError,
    BoltUnavailable,
    BoltUnsupported,
)
from paradime_blocks.redaction import Redactor
from paradime_blocks.retrying import parse_date, parse_retry_after
from paradime_blocks.validation import missing_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from pydantic import SecretStr

    from paradime_blocks.operations import Operation

# With these, nothing of the request can have reached the server: httpx raises them before it writes.
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
_GATEWAY_TIMEOUT = 504
# A connection is kept from one look at a run to the next (httpx: 5 s), and given up before load balancers cut it
# (60 s with most). One that was closed meanwhile is seen to be, and a new one made, before anything is sent.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=55.0)
# A message is a state in Prefect's lists, a label and a line of its logs: what Bolt says in it is bounded.
_EXCERPT_CHARACTERS = 200
_ERROR_CHARACTERS = 500
_NO_JSON: Final = object()


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
            raise _unavailable(operation, told, may_have_acted=False) from self._quotable(error)
        except (TimeoutError, httpx.TimeoutException) as error:
            forget_request(error)
            what = f"did not answer within {seconds:g} s"
            raise _unavailable(operation, what, may_still_act=True) from error
        except httpx.HTTPError as error:
            forget_request(error)
            raise _unavailable(operation, self._reason(error)) from self._quotable(error)
        date = parse_date(response.headers.get("Date"))
        if date is not None:
            self.clock_offset = date - time.monotonic()
        return response

    def server_time(self) -> float | None:
        """Return the time by the server's clock, in seconds since the epoch, as it was told last and went on."""
        return None if self.clock_offset is None else time.monotonic() + self.clock_offset

    def _reason(self, error: Exception) -> str:
        told = self.redact.line(str(error), _EXCERPT_CHARACTERS)
        return f"could not be reached or broke off ({type(error).__name__}: {told})"

    def _quotable(self, error: Exception) -> Exception | None:
        """Return the error as a cause, which logs show; not if it quotes at length what the server sent."""
        text = str(error)
        return error if self.redact.line(text, _ERROR_CHARACTERS) == text else None


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


def _unavailable(operation: Operation, what: str, **facts: Any) -> BoltUnavailable:
    return BoltUnavailable(f"Bolt {what}.", operation=operation.name, **facts)


def read_reply(
    operation: Operation, fields: Sequence[str], response: httpx.Response, source: str, redact: Redactor
) -> list[Any]:
    """Read a reply, in order: status, JSON, shape, errors, data.

    Args:
        operation: What was asked.
        fields: Names of the fields, or their aliases.
        response: What came back.
        source: Where the credentials are kept, for the message when they are refused.
        redact: Takes secrets out of what is quoted of the reply.

    Returns:
        The value of each field; never None.

    Raises:
        BoltAuthError: HTTP 401 or 403.
        BoltRequestError: Another 4xx, a redirect, a GraphQL error, or aliases that are not understood.
        BoltUnavailable: HTTP 408, 429 or 5xx, or a reply that is no GraphQL reply, or lacks the field or, with
            errors beside it, a part of it.
    """
    _check_status(operation, response, source, redact)
    body = _json_of(response)
    if body is _NO_JSON:
        excerpt = redact.line(response.text, _EXCERPT_CHARACTERS)
        raise _unavailable(operation, f"answered something that is not JSON: {excerpt!r}")
    if not isinstance(body, dict):
        raise _unavailable(operation, "answered JSON that is no GraphQL reply")
    data = body.get("data")
    values = [data.get(name) if isinstance(data, dict) else None for name in fields]
    errors = body.get("errors") if isinstance(body.get("errors"), list) else []
    # What did come of a trigger is the proof of a run, although something else failed.
    is_proof = not operation.resend and any(_says_something(value) for value in values)
    if None not in values and (is_proof or not errors):
        return values
    if errors:
        refusal = graphql_error(operation, errors, redact)
        if None in values or operation.kind == "mutation":
            raise refusal
        # Half an answer must not be read as "no commands" or "no schedules", and the other half may come yet.
        path = getattr(refusal, "path", None)
        raise _unavailable(operation, f"answered in part only: {refusal.what}", path=path) from refusal
    if isinstance(data, dict) and operation.field in data and operation.field not in fields:
        msg = "This workspace's Bolt backend answers aliased fields under their own name."
        raise BoltUnsupported(msg, missing="aliases", operation=operation.name)
    raise _unavailable(operation, f"answered without the field {operation.field}")


def _says_something(value: Any) -> bool:
    """Whether a field's value holds more than nulls."""
    return any(part is not None for part in value.values()) if isinstance(value, dict) else value is not None


def _check_status(operation: Operation, response: httpx.Response, source: str, redact: Redactor) -> None:
    status = response.status_code
    if response.is_success:
        return
    facts: dict[str, Any] = {"operation": operation.name, "status_code": status}
    if status == httpx.codes.UNAUTHORIZED:
        msg = f"Bolt does not accept the credentials of {source}."
        raise BoltAuthError(msg, source=source, **facts)
    if status == httpx.codes.FORBIDDEN:
        msg = f"The credentials of {source} are not allowed to do this."
        guidance = (
            "Triggering and cancelling need the capability 'Bolt Schedules Admin'; "
            "a 'Bolt Schedules Metadata Viewer' may only read. Check the workspace, too."
        )
        raise BoltAuthError(msg, source=source, guidance=guidance, **facts)
    if status in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.REQUEST_TIMEOUT} or response.is_server_error:
        errors = _errors_of(response)
        if errors and isinstance(refusal := graphql_error(operation, errors, redact), BoltAlreadyRunning):
            # `facts.md` tells the text and no status: whatever it comes with, it is an answer, and not lost.
            raise refusal
        raise BoltUnavailable(
            "Bolt cannot answer now.",
            may_have_acted=status != httpx.codes.TOO_MANY_REQUESTS,
            may_still_act=status == _GATEWAY_TIMEOUT,
            retry_after_seconds=parse_retry_after(response.headers.get("Retry-After")),
            **facts,
        )
    if response.has_redirect_location:
        # Its query may be a token.
        location = re.split(r"[?#]", response.headers["Location"], maxsplit=1)[0]
        target = redact.line(location, _EXCERPT_CHARACTERS)
        msg = f"The endpoint redirects to {target!r}, and credentials are not sent on to another address."
        raise BoltRequestError(msg, guidance="Set api_endpoint to the workspace's own address.", **facts)
    errors = _errors_of(response)
    # Nothing at the address is a wrong address, in whatever form it is said.
    if errors and status != httpx.codes.NOT_FOUND:
        raise graphql_error(operation, errors, redact, status_code=status)
    msg = f"The endpoint answered: {redact.line(response.text, _EXCERPT_CHARACTERS)!r}."
    raise BoltRequestError(
        msg, guidance="Check that api_endpoint is the workspace's GraphQL endpoint.", **facts
    )


def _json_of(response: httpx.Response) -> Any:
    """Read a body as JSON; the error of one that is none would hold all of it, and goes no further."""
    try:
        return response.json()
    except ValueError:
        return _NO_JSON


def _errors_of(response: httpx.Response) -> list[Any]:
    """Some servers answer a document that they cannot validate with HTTP 400, and the errors in the body."""
    body = _json_of(response)
    errors = body.get("errors") if isinstance(body, dict) else None
    return errors if isinstance(errors, list) else []


def graphql_error(operation: Operation, errors: Sequence[Any], redact: Redactor, **facts: Any) -> BoltError:
    """Turn the `errors` of a reply into the error that tells the caller what to do next.

    Args:
        operation: What was asked.
        errors: What Bolt said, as it came.
        redact: Takes secrets out of it: Bolt may quote the request, and with it the credentials.
        facts: Further facts of the error.
    """
    entries = [error if isinstance(error, dict) else {"message": str(error)} for error in errors]
    text = "; ".join(str(entry.get("message") or entry) for entry in entries)
    # What it means is read off the whole; what is told of it is cut.
    told = redact.line(text, _ERROR_CHARACTERS)
    facts = {
        "operation": operation.name,
        "path": redact.data(next((entry["path"] for entry in entries if entry.get("path")), None)),
        "graphql_errors": redact.data(entries, _ERROR_CHARACTERS),
        **facts,
    }
    # The text that `facts.md` names; the API has no code for it.
    if "AlreadyRunning" in text:
        msg = f"Bolt did not start a run because the schedule is running already: {told}"
        return BoltAlreadyRunning(msg, **facts)
    missing = missing_name(operation, entries)
    if missing is not None:
        missing = redact.line(missing)
        msg = f"This workspace's Bolt backend does not know {missing!r}: {told}"
        return BoltUnsupported(msg, missing=missing, **facts)
    return BoltRequestError(f"Bolt refused {operation.field}: {told}", **facts)


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
