"""The settings of a connection to Bolt: endpoint, authentication, proxy and certificates."""

from __future__ import annotations

import functools
import os
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from paradime_blocks.client.auth import check_endpoint, check_proxy, is_loopback
from paradime_blocks.errors import BoltRequestError
from paradime_blocks.text.redaction import passwords_in

if TYPE_CHECKING:
    from pydantic import SecretStr

    from paradime_blocks.client.auth import BoltAuth


# httpx does not read REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE; other libraries do.
TRUST = (
    "The server's certificate is not trusted. If your company issued this certificate, give the company's CA "
    "certificates as a PEM file: as ca_bundle of the ParadimeCredentials block, as PARADIME_CA_BUNDLE, or as "
    "SSL_CERT_FILE or SSL_CERT_DIR in the environment of the worker. REQUESTS_CA_BUNDLE is not used."
)


@functools.lru_cache(maxsize=4)
def _read_certificates(_file: str | None, _folder: str | None, ca_bundle: str | None) -> ssl.SSLContext:
    # The result is cached, since reading certificates is slow. httpx itself reads the two environment variables. Here,
    # they are only a part of the cache's key.
    context = httpx.create_ssl_context()
    if ca_bundle is not None:
        try:
            context.load_verify_locations(cafile=ca_bundle)
        except (OSError, ValueError) as error:
            msg = f"ca_bundle {ca_bundle!r} cannot be read ({type(error).__name__})."
            guidance = "Set ca_bundle to the path of a PEM file with certificates that this process can read."
            raise BoltRequestError(msg, guidance=guidance) from error
    return context


def is_of_trust(error: BaseException | None) -> bool:
    """Whether an untrusted certificate caused an error."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


@dataclass(frozen=True)
class ConnectionSettings:
    """The settings of the connection to one workspace.

    Args:
        api_endpoint: The workspace's GraphQL endpoint.
        auth: Authenticates the requests. `auth_for` makes this object from a key pair or a token.
        proxy: The URL of a proxy. `none` means no proxy. None means the proxy that the environment sets, if any.
        ca_bundle: The path of a PEM file with certificates to trust in addition to the default certificates.
        request_timeout_seconds: How long one whole request may take, in seconds.
        source: A name of the place where the credentials are stored, for messages.

    Raises:
        BoltRequestError: A setting is invalid; the message says what to type.
    """

    api_endpoint: str
    auth: BoltAuth
    # The URL may hold a password.
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None
    request_timeout_seconds: float = 30.0
    source: str = "the arguments of BoltClient"

    def __post_init__(self) -> None:
        """Check the settings, and remove the white space around the endpoint and the proxy."""
        seconds: object = self.request_timeout_seconds
        if not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
            msg = f"request_timeout_seconds is {seconds!r}."
            raise BoltRequestError(msg, guidance="Give a number of seconds above 0, such as 30.")
        try:
            endpoint = check_endpoint(self.api_endpoint)
            proxy = check_proxy(self.proxy) if self.proxy else None
        except ValueError as error:
            raise BoltRequestError(str(error), guidance="") from None
        object.__setattr__(self, "api_endpoint", endpoint)
        object.__setattr__(self, "proxy", proxy)

    def secrets(self) -> list[str | SecretStr]:
        """Return the secrets, which are removed from each message, log and artifact."""
        return [*self.auth.secrets(), *passwords_in(self.proxy)]

    def http_options(self) -> dict[str, Any]:
        """Return the options with which httpx reaches the endpoint: proxy and certificates.

        Raises:
            BoltRequestError: `ca_bundle` cannot be read.
        """
        file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        certificates = _read_certificates(file, folder, self.ca_bundle)
        if self.proxy and self.proxy != "none":
            proxy: httpx.Proxy | str = self.proxy
            if self.proxy.startswith("https:"):
                proxy = httpx.Proxy(self.proxy, ssl_context=certificates)
            return {"proxy": proxy, "verify": certificates, "trust_env": False}
        # A proxy from the environment runs on another machine, so it cannot reach this machine's loopback address.
        from_environment = self.proxy is None and not is_loopback(self.api_endpoint)
        return {"verify": certificates, "trust_env": from_environment}

    def open_http(
        self, transport: httpx.AsyncBaseTransport | None = None, **options: Any
    ) -> httpx.AsyncClient:
        """Open an HTTP client with the proxy and the certificates of these settings.

        Args:
            transport: An httpx transport that replaces the network in tests.
            options: Further options of `httpx.AsyncClient`.

        Raises:
            BoltRequestError: The proxy or the certificates are invalid.
        """
        try:
            # httpx does not follow redirects: it could send the credentials to another host, or a signed URL over plain
            # http.
            return httpx.AsyncClient(
                follow_redirects=False,
                **({"transport": transport} if transport is not None else self.http_options()),
                **options,
            )
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            msg = f"No connection can be set up ({type(error).__name__})."
            guidance = (
                "Check the environment's HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR, "
                "or set the credentials' field proxy to a URL or to none."
            )
            # httpx's message may quote the proxy's URL with its password.
            raise BoltRequestError(msg, guidance=guidance) from None
