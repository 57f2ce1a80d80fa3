"""The Prefect client that an event loop has for all its requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prefect.client import orchestration
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_CSRF_SUPPORT_ENABLED, temporary_settings

from paradime_flows.prefect_api.client import prefect_client
from paradime_flows.prefect_api.supervisor import the_supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The clients that are opened. Their requests go nowhere, and are answered; those to /locked with 503, twice."""
    clients: list[Any] = []
    refused: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        is_locked = request.url.path.endswith("/locked") and len(refused) < 2
        refused.extend([request.url.path] if is_locked else [])
        return httpx.Response(503 if is_locked else 200, json=True)

    class Counted(orchestration.PrefectClient):
        def __init__(self, api: str, *, httpx_settings: dict[str, Any], **options: Any) -> None:
            transport = httpx.MockTransport(answer)
            super().__init__(api, httpx_settings={**httpx_settings, "transport": transport}, **options)
            clients.append(self)

    monkeypatch.setattr(orchestration, "PrefectClient", Counted)
    address: Any = {PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False}
    with temporary_settings(address):
        yield clients


def test_a_loop_opens_one_client_and_closes_it(opened: list[Any]) -> None:
    """However often and by how many tasks it is used; a client belongs to its event loop."""

    async def use() -> None:
        async with prefect_client() as client:
            await asyncio.sleep(0)
            assert not client._closed

    async def use_often() -> None:
        await asyncio.gather(*(use() for _ in range(5)))
        await use()

    for _ in range(2):
        asyncio.run(use_often())
    assert [client._closed for client in opened] == [True, True]


def test_the_clients_of_ended_loops_are_forgotten(opened: list[Any]) -> None:
    """A process that calls flows from sync code again and again has a new loop each time."""

    async def use() -> None:
        async with prefect_client():
            pass

    for _ in range(3):
        asyncio.run(use())
    assert sum(not loop.is_closed() for loop, _ in the_supervisor().clients) == 0
    assert len(the_supervisor().clients) <= 1


def test_only_the_requests_of_the_block_are_checked(opened: list[Any]) -> None:
    """Another task uses the same client at the same time."""
    checked: list[str] = []

    async def check(request: httpx.Request) -> None:
        checked.append(request.url.path)

    async def beside() -> None:
        async with prefect_client() as client:
            await client._client.get("/beside")

    async def checks() -> None:
        async with prefect_client(check) as client:
            await client._client.get("/within")
        await beside()

    async def both() -> None:
        await asyncio.gather(beside(), checks())

    asyncio.run(both())
    assert checked == ["/api/within"]
    assert len(opened) == 1


def test_a_request_to_a_locked_database_is_repeated_almost_at_once(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But only the first time: a server that is down is asked at Prefect's own intervals."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def ask() -> None:
        async with prefect_client() as client:
            assert (await client._client.get("/locked")).json() is True

    monkeypatch.setattr("prefect.client.base.anyio.sleep", pause)
    asyncio.run(ask())
    first, second = pauses
    assert 0 < first < 0.5
    assert second > 1
    assert len(opened) == 1
