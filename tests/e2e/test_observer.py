"""How the flow runs of a process are observed: by events, and by polls if there is no event stream."""

from __future__ import annotations

import asyncio
import json
import os
import time
from threading import current_thread
from typing import TYPE_CHECKING, Any
from unittest import mock

import anyio
import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Cancelling
from support.flaky_proxy import FlakyProxy
from support.prefect_server import prefect_settings

from paradime_flows.prefect_api.context import current_flow_run_id
from paradime_flows.prefect_api.observer import the_observer
from paradime_flows.supervision.watch import StoppedByPrefect, unless_stopped
from paradime_flows.time_limits import Timing, use_timing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from support.prefect_server import LocalPrefectServer

pytestmark = pytest.mark.e2e
# Without an event, nothing is read again after the first time.
ONLY_EVENTS = Timing(watch_interval_seconds=0.5, rarely_seconds=3600.0)


@pytest.fixture
def reads() -> Iterator[list[int]]:
    """For each request of the observer that reads flow runs: how many it asks for."""
    found: list[int] = []
    send = httpx.AsyncHTTPTransport.handle_async_request

    async def note(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        # Other threads read flow runs, too: before they are observed.
        if request.url.path.endswith("/flow_runs/filter") and current_thread().name == "paradime-observer":
            found.append(len(json.loads(request.content)["flow_runs"]["id"]["any_"]))
        return await send(self, request)

    with mock.patch.object(httpx.AsyncHTTPTransport, "handle_async_request", note):
        yield found


async def cancel_when(condition: Any, flow_run_id: UUID) -> None:
    while not condition():  # noqa: ASYNC110 - the thread of the observer makes it true
        await asyncio.sleep(0.05)
    async with get_client() as client:
        await client.set_flow_run_state(flow_run_id, Cancelling(), force=True)


@flow
async def waits(condition: Any) -> None:
    """Waits until it is cancelled, which happens as soon as the condition is true."""
    flow_run_id = current_flow_run_id()
    assert flow_run_id is not None
    cancelled = asyncio.create_task(cancel_when(condition, flow_run_id))
    with pytest.raises(StoppedByPrefect, match="being cancelled"):
        await unless_stopped(lambda: anyio.sleep(60), flow_run_id)
    await cancelled


async def test_a_cancel_is_noticed_by_its_event(prefect_server: LocalPrefectServer, reads: list[int]) -> None:
    """One stream serves all flow runs of the process. Without the event, the wait would end after a minute."""
    polled: list[int] = []

    def is_listening() -> bool:
        # Before the stream is open, everything is polled.
        if not (the_observer()._listening_since and reads):
            return False
        polled.append(len(reads))
        return True

    @flow
    async def parent() -> None:
        await asyncio.gather(*(waits(is_listening) for _ in range(3)))

    with use_timing(ONLY_EVENTS):
        await parent()
    # When the stream was open, and for each event at once and again: no read for each flow run.
    assert len(reads) - polled[0] <= 2 + 2 * 3 + 1, reads


async def test_without_websockets_flow_runs_are_polled(
    prefect_server: LocalPrefectServer, reads: list[int]
) -> None:
    """A proxy refuses websockets. A cancel is noticed all the same, and all flow runs are read together."""
    with FlakyProxy(prefect_server.api_url, path_ends_with="none", times=0) as proxy:
        settings = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_")}
        # Prefect sends its last log lines later, when the proxy is closed.
        settings["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
        with prefect_settings({**settings, "PREFECT_API_URL": proxy.url}), use_timing(ONLY_EVENTS):

            @flow
            async def parent() -> None:
                began = time.monotonic()
                await asyncio.gather(*(waits(lambda: reads.count(4) >= 2) for _ in range(3)))
                polls = (time.monotonic() - began) / ONLY_EVENTS.watch_interval_seconds
                # The three flow runs and their parent.
                assert reads.count(4) <= 1 + polls, (reads, polls)
                # Once for each flow run: who its parent is.
                assert reads.count(1) <= 3, reads

            await parent()
            assert the_observer()._listening_since is None
