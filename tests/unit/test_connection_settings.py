"""How a connection is set up: headers for credentials, loopback, proxy, certificates, and keep-alive."""

from __future__ import annotations

import ssl

import httpx
import pytest
from pydantic import SecretStr
from support.clients import client_for

from paradime_blocks import BoltRequestError
from paradime_blocks.client import ConnectionSettings, auth_for
from paradime_blocks.client.auth import BoltAuth, is_loopback
from paradime_blocks.polling import POLL_INTERVAL_SECONDS


@pytest.mark.parametrize(
    "key, secret, workspace, headers",
    [
        pytest.param("k", "s", None, {"X-API-KEY": "k", "X-API-SECRET": "s"}, id="key pair"),
        pytest.param(None, "prdm_wsp_t", None, {"Authorization": "Bearer prdm_wsp_t"}, id="workspace token"),
        pytest.param("k", "prdm_wsp_t", None, {"Authorization": "Bearer prdm_wsp_t"}, id="token and a key"),
        pytest.param(
            None,
            "prdm_cmp_t",
            "w",
            {"Authorization": "Bearer prdm_cmp_t", "X-Paradime-Workspace": "w"},
            id="company token",
        ),
    ],
)
def test_the_secrets_prefix_chooses_the_headers(key, secret, workspace, headers):
    """A token is sent as a bearer token, without a key."""
    bare = httpx.Request("GET", "https://api.paradime.io/g")
    sent = next(auth_for(key, secret, workspace).auth_flow(bare))
    assert set(sent.headers) - {"host"} == {name.lower() for name in headers}
    assert {name: sent.headers[name] for name in headers} == headers


class ExpiringToken(BoltAuth):
    """A token valid for one request, renewed whenever Bolt reports that it has expired."""

    def __init__(self):
        self.tokens = ["token-1"]

    def auth_flow(self, request):
        request.headers["Authorization"] = f"Bearer {self.tokens[-1]}"
        response = yield request
        if response.status_code == 401:
            self.tokens.append(f"token-{len(self.tokens) + 1}")
            request.headers["Authorization"] = f"Bearer {self.tokens[-1]}"
            yield request

    def secrets(self):
        return [SecretStr(token) for token in self.tokens]


async def test_a_token_that_expires_is_renewed_by_its_auth():
    """No other code knows of such tokens; every token so far is kept out of messages."""
    accepted = "Bearer token-2"

    def answer(request):
        if request.headers["Authorization"] != accepted:
            return httpx.Response(401)
        return httpx.Response(200, json={"errors": [{"message": "odd: token-1 token-2"}]})

    auth = ExpiringToken()
    async with client_for(
        "https://api.paradime.io/g", auth=auth, transport=httpx.MockTransport(answer)
    ) as client:
        with pytest.raises(BoltRequestError) as caught:
            await client.cancel_bolt_run(1)
    assert auth.tokens == ["token-1", "token-2"]
    assert "odd: [removed] [removed]" in str(caught.value)


@pytest.mark.parametrize(
    "url, loopback",
    [
        pytest.param("http://localhost:8000/graphql", True, id="localhost"),
        pytest.param("http://127.0.0.1/graphql", True, id="IPv4"),
        pytest.param("http://127.9.9.9/graphql", True, id="all of 127/8"),
        pytest.param("http://[::1]:80/graphql", True, id="IPv6"),
        pytest.param("http://localhost.example.com/", False, id="localhost as a prefix"),
        pytest.param("http://example.com/localhost", False, id="localhost in the path"),
        pytest.param("http://127.0.0.1@example.com/", False, id="127.0.0.1 as a user"),
        pytest.param("http://127.0.0.1.example.com/", False, id="127.0.0.1 as a prefix"),
        pytest.param("http://0.0.0.0/", False, id="any address"),
        pytest.param("http://10.0.0.1/", False, id="private address"),
    ],
)
def test_only_this_machine_counts_as_loopback(url, loopback):
    """Only there may credentials be sent unencrypted."""
    assert is_loopback(url) is loopback


@pytest.mark.parametrize(
    "endpoint, proxy, options",
    [
        pytest.param("https://api.paradime.io/g", None, {"trust_env": True}, id="environment"),
        pytest.param("https://api.paradime.io/g", "none", {"trust_env": False}, id="none"),
        pytest.param(
            "https://api.paradime.io/g",
            "http://proxy:3128",
            {"proxy": "http://proxy:3128", "trust_env": False},
            id="field",
        ),
        pytest.param("http://127.0.0.1:1/g", None, {"trust_env": False}, id="loopback"),
    ],
)
def test_the_proxy_comes_from_the_field_or_else_from_the_environment(endpoint, proxy, options):
    """`none` turns it off; a proxy from the environment cannot reach our own loopback."""
    settings = ConnectionSettings(endpoint, auth_for("k", "s"), proxy=proxy)
    found = settings.http_options()
    assert {name: value for name, value in found.items() if name != "verify"} == options


@pytest.mark.parametrize("proxy", [None, "none", "http://proxy:3128", "https://proxy:3128"])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_the_environments_certificates_are_used_with_and_without_a_proxy(
    client_of, monkeypatch, tmp_path, proxy, variable
):
    """A proxy that opens TLS uses a certificate of the company: the commonest reason to set them."""
    asked = []
    real = ssl.create_default_context

    def create(*_, cafile=None, capath=None, **__):
        asked.append(cafile or capath)
        return real()

    monkeypatch.setattr(ssl, "create_default_context", create)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    async with client_of("https://api.paradime.invalid/g", proxy=proxy):
        pass
    assert str(tmp_path) in asked


async def test_a_connection_lasts_longer_than_the_time_between_polls(client_of, monkeypatch):
    """Otherwise each poll needs a new TLS handshake; and load balancers close idle connections after 60 s."""
    limits = []
    real = httpx.AsyncClient

    def opened(**options):
        limits.append(options["limits"])
        return real(**options)

    monkeypatch.setattr(httpx, "AsyncClient", opened)
    async with client_of("https://api.paradime.invalid/g", proxy="none"):
        pass
    assert [POLL_INTERVAL_SECONDS < each.keepalive_expiry < 60 for each in limits] == [True]


@pytest.mark.parametrize(
    "name, value",
    [
        pytest.param("HTTPS_PROXY", "ftp://user:pa55@proxy", id="proxy of an unknown kind"),
        pytest.param("ALL_PROXY", "socks5://proxy:1080", id="SOCKS without its package"),
        pytest.param("SSL_CERT_FILE", "/does/not/exist.pem", id="certificates that are not there"),
    ],
)
async def test_a_broken_network_environment_raises_our_own_error(client_of, monkeypatch, name, value):
    """No httpx exception and no proxy password leaves the client."""
    monkeypatch.setenv(name, value)
    with pytest.raises(BoltRequestError, match=name) as caught:
        await client_of("https://api.paradime.invalid/graphql").__aenter__()
    assert "pa55" not in str(caught.value)
