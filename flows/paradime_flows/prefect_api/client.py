"""The Prefect client of an event loop: it is opened once, and closed with the loop.

A new client reads certificates, opens a connection and asks for a CSRF token, which takes longer than most requests.
The client of Prefect's own engine is closed with the flow run, but a task that was interrupted may clean up later. So
this package has a client of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

from paradime_flows.prefect_api.supervisor import the_supervisor
from paradime_flows.time_limits import times

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

BeforeRequest = Callable[[httpx.Request], Awaitable[None]]

_before_request: ContextVar[BeforeRequest | None] = ContextVar("before_request", default=None)


@asynccontextmanager
async def prefect_client(before_request: BeforeRequest | None = None) -> AsyncIterator[PrefectClient]:
    """Use the Prefect client of the running event loop. The client stays open when the `with` block ends.

    Args:
        before_request: An async function that is awaited with each request of the `with` block, also if Prefect's
            client repeats the request. If the function raises an error, the request is not sent.
    """
    client = await _client_of_this_loop()
    token = _before_request.set(before_request)
    try:
        yield client
    finally:
        _before_request.reset(token)


@dataclass
class OpenClient:
    """A client, and what keeps it open.

    Attributes:
        client: The client.
        held: The generator that keeps the client open; None until the client is opened. An event loop that ends closes
            its generators, and so the client.
        lock: Held while the client is opened.
    """

    client: PrefectClient
    held: AsyncGenerator[None, None] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


async def _client_of_this_loop() -> PrefectClient:
    clients = the_supervisor().clients
    key = asyncio.get_running_loop(), get_current_settings().api.url
    if (found := clients.get(key)) is None:
        for ended in [each for each in list(clients) if each[0].is_closed()]:
            del clients[ended]
        hooks = {"request": [_call_before_request], "response": [_repeat_soon]}
        found = clients[key] = OpenClient(get_client(httpx_settings={"event_hooks": hooks}))
    async with found.lock:
        if found.held is None:
            held = _hold_open(found.client)
            await held.__anext__()
            found.held = held
    return found.client


async def _hold_open(client: PrefectClient) -> AsyncGenerator[None, None]:
    async with client:
        yield


async def _call_before_request(request: httpx.Request) -> None:
    before = _before_request.get()
    if before is not None:
        await before(request)


async def _repeat_soon(response: httpx.Response) -> None:
    """Let Prefect's client repeat a request almost at once, after the request was answered with 503 for the first time.

    A Prefect server with SQLite answers 503 if two writes meet, which happens in most runs. Without this function,
    Prefect's client would wait for two seconds.
    """
    request, repeated = response.request, "paradime_repeated"
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE and repeated not in request.extensions:
        request.extensions[repeated] = True
        response.headers.setdefault("Retry-After", str(times().locked_seconds))
