"""Which addresses a file is fetched from; a download that never ends is stopped."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from paradime_blocks import BoltRequestError, BoltUnavailable
from paradime_blocks.client import resources
from paradime_blocks.client.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from paradime_blocks import BoltClient


def _store(*addresses: str, content: Any = b"content") -> tuple[httpx.MockTransport, list[str]]:
    """A store whose signed URL leads through redirects to a file, and the requests that it received."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "api.paradime.invalid":
            url = {"boltResourceUrl": {"ok": True, "url": addresses[0]}}
            return httpx.Response(200, json={"data": url})
        asked.append(str(request.url))
        if len(asked) < len(addresses):
            return httpx.Response(302, headers={"Location": addresses[len(asked)]})
        return httpx.Response(200, content=content)

    return httpx.MockTransport(answer), asked


ONE_TRY = RetryPolicy(attempts=1)


@pytest.mark.parametrize(
    "addresses, followed",
    [
        pytest.param(["https://a.test/1", "https://b.test/2"], 2, id="https"),
        pytest.param(["https://a.test/1", "/2"], 2, id="relative"),
        pytest.param([f"https://a.test/{n}" for n in range(6)], 6, id="as many as are allowed"),
        pytest.param(["http://127.0.0.1/1", "http://127.0.0.1/2"], 2, id="this machine"),
    ],
)
async def test_a_stores_redirects_are_followed(client_of, addresses, followed):
    """Object stores move files from one region's host to another's."""
    transport, asked = _store(*addresses)
    async with client_of("https://api.paradime.invalid/g", transport=transport) as client:
        assert await client.download_bolt_resource(1) == b"content"
    assert len(asked) == followed


@pytest.mark.parametrize(
    "addresses, followed",
    [
        pytest.param(["https://a.test/1", "http://plain.test/2"], 1, id="http"),
        pytest.param(["https://a.test/1", "http://127.0.0.1/2"], 1, id="http on this machine"),
        pytest.param(["https://a.test/1", "ftp://a.test/2"], 1, id="another scheme"),
        pytest.param([f"https://a.test/{n}" for n in range(9)], 6, id="too many"),
    ],
)
async def test_a_stores_redirects_to_plain_http_are_refused(client_of, addresses, followed):
    """Anyone on the way could read the link and open the file, or replace the file."""
    transport, asked = _store(*addresses)
    async with client_of(
        "https://api.paradime.invalid/g", transport=transport, retry_policy=ONE_TRY
    ) as client:
        with pytest.raises(BoltUnavailable, match="Resource 1 could not be fetched"):
            await client.download_bolt_resource(1)
    assert len(asked) == followed


async def test_a_download_that_is_too_slow_is_stopped(client_of, monkeypatch):
    """Each byte arrives in time, but the file never ends: httpx's limits are for each read."""
    monkeypatch.setattr(resources, "DOWNLOAD_SECONDS", 0.02)

    async def dribble():
        while True:
            await anyio.sleep(0.005)
            yield b"."

    transport, _ = _store("https://a.test/1", content=dribble())
    async with client_of(
        "https://api.paradime.invalid/g", transport=transport, retry_policy=ONE_TRY
    ) as client:
        with anyio.fail_after(20), pytest.raises(BoltUnavailable, match="could not be fetched"):
            await client.download_bolt_resource(1)


@pytest.mark.parametrize(
    "url, error",
    [
        pytest.param("http://storage.example.com/a.json", BoltRequestError, id="http"),
        pytest.param("file:///etc/passwd", BoltRequestError, id="file"),
        pytest.param("http://[broken", BoltRequestError, id="no URL"),
        pytest.param("https://storage.example.com:port/", BoltUnavailable, id="no https URL"),
        pytest.param("", BoltRequestError, id="empty"),
    ],
)
async def test_only_https_addresses_are_fetched(client_of, url, error):
    """Whatever address Bolt returns, no other address is requested, and the error is one of ours."""
    transport, asked = _store(url)
    async with client_of("https://api.paradime.invalid/g", transport=transport) as client:
        with pytest.raises(error, match=r"(?i)resource 5"):
            await client.download_bolt_resource(5)
    assert asked == []


async def test_a_redirect_of_a_link_is_not_logged(
    client_of: Callable[..., BoltClient], caplog: pytest.LogCaptureFixture
) -> None:
    """It is signed too, and stands in the headers of the response."""
    caplog.set_level(logging.DEBUG)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            url = "https://store.test/a?X-Signature=first"
            return httpx.Response(200, json={"data": {"boltResourceUrl": {"url": url}}})
        if request.url.path == "/a":
            return httpx.Response(302, headers={"Location": "https://store.test/b?X-Signature=second"})
        return httpx.Response(403)

    transport = httpx.MockTransport(answer)
    async with client_of(
        "https://bolt.test", transport=transport, retry_policy=RetryPolicy(attempts=1)
    ) as client:
        with pytest.raises(BoltUnavailable):
            await client.download_bolt_resource(1)
    assert "https://store.test/b?[removed]" in caplog.text
    assert "X-Signature" not in caplog.text
