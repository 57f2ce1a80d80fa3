"""Authentication: which credentials are valid, to which address they may be sent, and in which headers."""

from __future__ import annotations

import importlib.util
import ipaddress
from collections.abc import Generator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from paradime_blocks.errors import BoltRequestError

WORKSPACE_TOKEN_PREFIX = "prdm_wsp_"  # noqa: S105 - a prefix is no secret
COMPANY_TOKEN_PREFIX = "prdm_cmp_"  # noqa: S105
ENDPOINT_EXAMPLE = "https://api.paradime.io/api/v1/<workspace>/graphql"


def is_loopback(url: str) -> bool:
    """Whether a URL points at this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_bearer_token(secret: str) -> bool:
    """Whether a secret is a bearer token. If not, the secret belongs to a key pair."""
    return secret.startswith((WORKSPACE_TOKEN_PREFIX, COMPANY_TOKEN_PREFIX))


def check_endpoint(value: str) -> str:
    """Return the endpoint without the white space around it, if credentials may be sent to it.

    Raises:
        ValueError: The value is not a valid endpoint; the message says what to type.
    """
    text = _text("api_endpoint", value)
    hint = f"copy it from the Paradime workspace settings, it looks like {ENDPOINT_EXAMPLE}"
    if not text:
        msg = f"api_endpoint is empty: {hint}"
        raise ValueError(msg)
    if any(character.isspace() for character in text):
        msg = f"api_endpoint has white space in it: {hint}"
        raise ValueError(msg)
    if "<" in text or ">" in text:
        msg = "api_endpoint still has a placeholder: replace <workspace> by your workspace's name, " + hint
        raise ValueError(msg)
    try:
        parts = urlsplit(text)
        _ = parts.port, httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        # The messages of these errors quote the URL, and somebody may have pasted a secret into the URL.
        msg = f"api_endpoint is not a URL: {hint}"
        raise ValueError(msg) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = f"api_endpoint is not an https:// URL: {hint}"
        raise ValueError(msg)
    if parts.username or parts.password:
        msg = "api_endpoint has a user name or password: put the key and the secret in api_key and api_secret"
        raise ValueError(msg)
    if parts.scheme == "http" and not is_loopback(text):
        msg = f"api_endpoint must begin with https://, since each request carries the credentials: {hint}"
        raise ValueError(msg)
    return text


def check_proxy(value: str) -> str:
    """Return the proxy's URL, if it is valid, or `none`.

    Raises:
        ValueError: The value is not a proxy's URL and not `none`; the message says what to type.
    """
    text = _text("proxy", value)
    if text.lower() == "none":
        return "none"
    wrong = "proxy is not a proxy's URL: type http://host:port, or none to use no proxy at all"
    try:
        parts = urlsplit(text)
        _ = parts.port, httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        # The error's message quotes the URL, which may hold a password.
        raise ValueError(wrong) from None
    if parts.scheme not in {"http", "https", "socks5", "socks5h"} or not parts.hostname:
        raise ValueError(wrong)
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        msg = "proxy is a SOCKS proxy, which needs a further package: pip install 'httpx[socks]'"
        raise ValueError(msg)
    return text


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        msg = f"{name} is {value!r}: give it as text"
        raise ValueError(msg)  # noqa: TRY004 - pydantic takes ValueErrors for bad input, and no others
    return value.strip()


def check_credentials(key: str | None, secret: str | None, workspace_uid: str | None) -> None:
    """Refuse a combination of key, secret and workspace that Bolt would refuse.

    Raises:
        ValueError: The credentials are invalid; the message says what to type.
    """
    given: dict[str, object] = {"api_key": key, "api_secret": secret, "workspace_uid": workspace_uid}
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            msg = f"{name} is not text: give it in quotes"
            raise ValueError(msg)
    if not secret or not secret.strip():
        msg = "api_secret is empty: paste the API secret, or a token that begins with prdm_wsp_ or prdm_cmp_"
        raise ValueError(msg)
    for name, text in (
        ("api_key", key or ""),
        ("api_secret", secret),
        ("workspace_uid", workspace_uid or ""),
    ):
        if text and not text.strip("*"):
            msg = (
                f"{name} is masked: the asterisks stand for a value that Prefect hides. Give the block's name"
            )
            raise ValueError(msg)
        if not text.isascii() or any(c.isspace() or not c.isprintable() for c in text):
            msg = (
                f"{name} holds a space, a line break or another character that is never a part of {name}: "
                f"paste the value again"
            )
            raise ValueError(msg)
    if is_bearer_token(secret):
        if secret.startswith(COMPANY_TOKEN_PREFIX) and not workspace_uid:
            msg = (
                "workspace_uid is empty: "
                "a company token (prdm_cmp_...) needs the uid of the workspace to act on"
            )
            raise ValueError(msg)
    elif not key:
        msg = (
            "api_key is empty: type the API key that belongs to this secret, "
            "or use a token that begins with prdm_wsp_ or prdm_cmp_ as the secret"
        )
        raise ValueError(msg)


class BoltAuth(httpx.Auth):
    """Authenticates requests to Bolt.

    Clients share a connection if their settings are equal. So a subclass must be hashable, and two of its objects must
    be equal if they send the same credentials. For a token that expires, write a subclass whose `auth_flow` gets a new
    token. The page about authentication in httpx's documentation describes this method.
    """

    def secrets(self) -> list[SecretStr]:
        """Return the secrets, which are removed from each message, log and artifact."""
        raise NotImplementedError


@dataclass(frozen=True)
class KeyPair(BoltAuth):
    """An API key and its secret.

    Attributes:
        key: The key.
        secret: The secret.
    """

    key: SecretStr
    secret: SecretStr

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the key and the secret, each in its own header."""
        request.headers["X-API-KEY"] = self.key.get_secret_value()
        request.headers["X-API-SECRET"] = self.secret.get_secret_value()
        yield request

    def secrets(self) -> list[SecretStr]:
        """Return the key and the secret."""
        return [self.key, self.secret]


@dataclass(frozen=True)
class BearerToken(BoltAuth):
    """A token of a workspace or of a company.

    Attributes:
        token: The token.
        workspace_uid: The uid of the workspace that a company token acts on.
    """

    token: SecretStr
    workspace_uid: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the token in one header and, if a workspace's uid is given, the uid in another header."""
        request.headers["Authorization"] = f"Bearer {self.token.get_secret_value()}"
        if self.workspace_uid:
            request.headers["X-Paradime-Workspace"] = self.workspace_uid
        yield request

    def secrets(self) -> list[SecretStr]:
        """Return the token."""
        return [self.token]


def auth_for(
    api_key: str | SecretStr | None, api_secret: str | SecretStr, workspace_uid: str | None = None
) -> BoltAuth:
    """Return the authentication: a `BearerToken` if the secret begins with a token's prefix, otherwise a `KeyPair`.

    Args:
        api_key: The API key. No key is needed if `api_secret` is a token.
        api_secret: The API secret, or a token that begins with `prdm_wsp_` or `prdm_cmp_`.
        workspace_uid: The uid of the workspace that a company token acts on.

    Raises:
        BoltRequestError: The credentials are invalid; the message says what to type.
    """
    key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
    secret = api_secret.get_secret_value() if isinstance(api_secret, SecretStr) else api_secret
    try:
        check_credentials(key, secret, workspace_uid)
    except ValueError as error:
        raise BoltRequestError(str(error), guidance="") from None
    if is_bearer_token(secret):
        return BearerToken(SecretStr(secret), workspace_uid or None)
    return KeyPair(SecretStr(key or ""), SecretStr(secret))
