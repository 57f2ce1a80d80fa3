"""The query of a signed link is in no log of any level, while other requests are logged as usual."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import httpx
import pytest

from paradime_blocks.testing import SimulatedCommand

if TYPE_CHECKING:
    from collections.abc import Callable

    from paradime_blocks import BoltClient
    from paradime_blocks.testing import BoltSimulator


async def a_resource(simulator: BoltSimulator, client: BoltClient) -> int:
    """The id of a file that a run has written."""
    files = {"target/manifest.json": b"{}"}
    simulator.add_schedule("daily", commands=[SimulatedCommand("dbt run", resources=files)])
    run_id = simulator.start_run("daily")
    simulator.clock.advance(1000)
    command = (await client.get_bolt_run(run_id)).commands[-1]
    return (await client.get_bolt_command_resources([command.id]))[command.id][0].id


async def test_no_log_has_the_signature_of_a_link(
    simulator: BoltSimulator, client_of: Callable[..., BoltClient], caplog: pytest.LogCaptureFixture
) -> None:
    """Several clients download at the same time; the address itself is still logged."""
    caplog.set_level(logging.DEBUG)
    async with client_of(simulator) as one, client_of(simulator) as two:
        resource_id = await a_resource(simulator, one)
        contents = await asyncio.gather(
            *(client.download_bolt_resource(resource_id) for client in (one, two, one))
        )
    assert contents == [b"{}"] * 3
    assert caplog.text.count("?[removed]") >= 3
    assert "Signature" not in caplog.text


async def test_other_requests_are_logged_unchanged(
    simulator: BoltSimulator, client_of: Callable[..., BoltClient], caplog: pytest.LogCaptureFixture
) -> None:
    """This holds even during the download of a resource: all code shares the logger."""
    caplog.set_level(logging.INFO)
    theirs = httpx.MockTransport(lambda _: httpx.Response(200))
    async with client_of(simulator) as client, httpx.AsyncClient(transport=theirs) as other:
        async with client.stream_bolt_resource(await a_resource(simulator, client)) as chunks:
            await other.get("https://other.test/?page=2")
            assert [chunk async for chunk in chunks] == [b"{}"]
        await other.get("https://other.test/?page=3")
    assert "https://other.test/?page=2" in caplog.text
    assert "https://other.test/?page=3" in caplog.text
    assert "Signature" not in caplog.text
