"""Which addresses are fit to be sent credentials, and which token goes in which header."""

from __future__ import annotations

import importlib.util
import ipaddress
from urllib.parse import urlsplit

import httpx

WORKSPACE_TOKEN_PREFIX = "prdm_wsp_"  # noqa: S105 - a prefix is no secret
COMPANY_TOKEN_PREFIX = "prdm_cmp_"  # noqa: S105
ENDPOINT_EXAMPLE = "https://api.paradime.io/api/v1/<workspace>/graphql"


def is_loopback(url: str) -> bool:
    """Whether a URL points at this machine itself."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_bearer_token(secret: str) -> bool:
    """Whether a secret is a bearer token rather than the secret of a key pair (`facts.md`)."""
    return secret.startswith((WORKSPACE_TOKEN_PREFIX, COMPANY_TOKEN_PREFIX))


def check_endpoint(value: str) -> str:
    """Return the endpoint without surrounding space.

    Raises:
        ValueError: It is no address that credentials may be sent to; the message says what to type.
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
        msg = "api_endpoint still holds a placeholder: replace <workspace> by your own, " + hint
        raise ValueError(msg)
    try:
        parts = urlsplit(text)
        _ = parts.port, httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        # What they say quotes the URL, and somebody may have pasted a secret there.
        msg = f"api_endpoint is not a URL: {hint}"
        raise ValueError(msg) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = f"api_endpoint is not an https:// URL: {hint}"
        raise ValueError(msg)
    if parts.username or parts.password:
        msg = (
            "api_endpoint holds a user name or password: put the key and the secret in api_key and api_secret"
        )
        raise ValueError(msg)
    if parts.scheme == "http" and not is_loopback(text):
        msg = f"api_endpoint must begin with https://, since the credentials travel with each request: {hint}"
        raise ValueError(msg)
    return text


def check_proxy(value: str) -> str:
    """Return the proxy's URL, or `none`.

    Raises:
        ValueError: It is neither; the message says what to type.
    """
    text = _text("proxy", value)
    if text.lower() == "none":
        return "none"
    wrong = "proxy is not a proxy's URL: type http://host:port, or none to use no proxy at all"
    try:
        parts = urlsplit(text)
        _ = parts.port, httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        # As above: the URL may hold a password.
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


def credential_headers(key: str | None, secret: str, workspace_uid: str | None) -> dict[str, str]:
    """Return the headers that authenticate a request: a bearer token by its prefix, else the key pair."""
    if not is_bearer_token(secret):
        return {"X-API-KEY": key or "", "X-API-SECRET": secret}
    headers = {"Authorization": f"Bearer {secret}"}
    if workspace_uid:
        headers["X-Paradime-Workspace"] = workspace_uid
    return headers


def check_credentials(key: str | None, secret: str | None, workspace_uid: str | None) -> None:
    """Refuse a combination of key, secret and workspace that Bolt could only refuse.

    Raises:
        ValueError: The message says what to type.
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
        if not text.isascii() or any(c.isspace() or not c.isprintable() for c in text):
            msg = (
                f"{name} holds a space, a line break or another character that no Paradime value has: "
                "paste it again"
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
