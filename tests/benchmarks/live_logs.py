"""The cost of live logs, compared with a plain way to do the same with the same text in the same process.

    PYTHONPATH=.:flows:deployments python tests/benchmarks/live_logs.py [lines]

It prints ratios to a reference that is run beside it, since seconds differ from machine to machine:

* reading: fetching, splitting, levels, joining, compared with only fetching the log page by page;
* logging: posting the records to a real Prefect server, compared with `logger.info(line)` for each line, and the
  number of requests;
* lag: the same while the command runs: how long after a line was printed Prefect had it;
* memory: the peak of Python's allocations, compared with the size of the text.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from paradime_blocks.testing import BoltSimulator, SimulatedCommand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.dbt import Record
    from paradime_flows.live.log_position import Journal
    from paradime_flows.prefect_api import ShownTaskRun

_SMALL_BYTES = 5_000
_LOOK_SECONDS = 2.0
_LIVE_SECONDS = 60
LINE = "12:00:00  {0} of {1} OK created sql table model main.some_model_name ......... [OK in 0.10s]\n"


class _Memory:
    """A journal that stores no records."""

    def __init__(self) -> None:
        self.records = self.longest = self.writes = 0

    async def read(self, run_id: int) -> str | None:
        return None

    def show(self, records: Sequence[Record], shown: ShownTaskRun | None = None) -> None:
        self.records += len(records)
        self.longest = max([self.longest, *(len(record.text) for record in records)])

    async def write(self, run_id: int, kept: str) -> None:
        self.writes += 1


async def _pages_only(credentials: ParadimeCredentials, command_id: int) -> float:
    began = time.perf_counter()
    async with credentials.get_client() as client:
        cursor = None
        while not (page := await client.get_bolt_command_logs(command_id, cursor)).finished:
            cursor = page.cursor
    return time.perf_counter() - began


async def _read(credentials: ParadimeCredentials, run_id: int, journal: Journal) -> float:
    from paradime_flows.live.log_stream import LiveLogs

    async with credentials.get_client() as client:
        status = await client.get_bolt_run(run_id, logs=False)
    began = time.perf_counter()
    logs = LiveLogs(run_id, credentials, journal)
    await logs.drain(status)
    # An error is only reported in the log.
    assert logs.has_all(status)
    return time.perf_counter() - began


async def _into_prefect(credentials: ParadimeCredentials, run_id: int, text: str) -> tuple[float, float]:
    """Seconds of our way and of the plain way, each inside a flow run."""
    from prefect import flow
    from prefect.logging import get_run_logger
    from prefect.logging.handlers import APILogHandler

    from paradime_flows.live.log_position import FlowRunJournal
    from paradime_flows.prefect_api.context import current_flow_run_id

    @flow(name="benchmark-ours")
    async def ours() -> float:
        flow_run_id = current_flow_run_id()
        assert flow_run_id is not None
        return await _read(credentials, run_id, FlowRunJournal(flow_run_id))

    requests: list[tuple[str, int]] = []
    send = httpx.AsyncHTTPTransport.handle_async_request

    async def count(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        if "/api/logs" in request.url.path or request.url.path.endswith("/labels"):
            requests.append((request.method, len(request.content)))
        return await send(self, request)

    @flow(name="benchmark-plain")
    async def plain() -> float:
        logger = get_run_logger()
        began = time.perf_counter()
        for line in text.splitlines():
            logger.info(line)
        await APILogHandler.aflush()
        return time.perf_counter() - began

    httpx.AsyncHTTPTransport.handle_async_request = count  # type: ignore[method-assign]
    took = await ours()
    httpx.AsyncHTTPTransport.handle_async_request = send  # type: ignore[method-assign]
    sizes = [size for method, size in requests if method == "POST" and size > _SMALL_BYTES]
    print(
        f"requests: {len(sizes)} posts, the largest {max(sizes):,} bytes; {len(requests) - len(sizes)} others"
    )
    return took, await plain()


async def _while_it_runs(credentials: ParadimeCredentials, run_id: int, lines: int) -> list[float]:
    """How late, in seconds, the newest line of each batch was when Prefect had accepted it."""
    from prefect import flow

    from paradime_flows.live.log_position import FlowRunJournal
    from paradime_flows.live.log_stream import LiveLogs
    from paradime_flows.prefect_api.context import current_flow_run_id

    began = time.perf_counter()
    late = []

    class Timed(FlowRunJournal):
        shown = 0

        def show(self, records: Sequence[Record], shown: ShownTaskRun | None = None) -> None:
            super().show(records, shown)
            texts = [record.text for record in records if not record.text.startswith("── ")]
            self.shown += sum(text.count("\n") + 1 for text in texts)

        async def write(self, run_id: int, kept: str) -> None:
            await super().write(run_id, kept)
            # Lines are printed at a constant rate.
            late.append(time.perf_counter() - began - _LIVE_SECONDS * self.shown / lines)

    @flow(name="benchmark-running")
    async def running() -> None:
        flow_run_id = current_flow_run_id()
        assert flow_run_id is not None
        logs = LiveLogs(run_id, credentials, Timed(flow_run_id))
        while True:
            async with credentials.get_client() as client:
                status = await client.get_bolt_run(run_id, logs=False)
            if status.state.is_terminal:
                await logs.drain(status)
                assert logs.has_all(status)
                return
            await logs.catch_up(status)
            await asyncio.sleep(_LOOK_SECONDS)

    await running()
    return late


def main(lines: int) -> None:
    from local_server import LocalPrefectServer, talking_to

    from paradime_blocks import ParadimeCredentials

    text = "".join(LINE.format(n + 1, lines) for n in range(lines))
    with BoltSimulator(speed=1000) as simulator:
        simulator.add_schedule(
            "daily", commands=[SimulatedCommand("dbt run", stdout=text)], setup_commands=False
        )
        run_id = simulator.start_run("daily")
        simulator.wait_for(lambda bolt: not bolt.active_runs())
        command_id = simulator.run(run_id).commands[0].id
        credentials = ParadimeCredentials(
            api_endpoint=simulator.api_endpoint, api_key=simulator.api_key, api_secret=simulator.api_secret
        )
        # The first run warms up what both need.
        yardstick = min(asyncio.run(_pages_only(credentials, command_id)) for _ in range(2))
        journal = _Memory()
        took = asyncio.run(_read(credentials, run_id, journal))
        print(
            f"{lines:,} lines, {len(text):,} characters: {journal.records} records in {journal.writes} posts,"
        )
        print(f"the longest {journal.longest:,} characters")
        print(f"reading: {took / yardstick:.2f} times the pages alone ({took:.2f} s, {yardstick:.2f} s)")
        simulator.lacks(operations=["boltCommandLogs"])
        whole = asyncio.run(_read(credentials, run_id, _Memory()))
        print(f"reading from the whole output: {whole / yardstick:.2f} times the pages ({whole:.2f} s)")
        tracemalloc.start()
        asyncio.run(_read(credentials, run_id, _Memory()))
        peak_whole = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"memory, simulator included, whole log at once: {peak_whole / len(text):.1f} times the text")
        os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "true"
        with (
            tempfile.TemporaryDirectory() as folder,
            LocalPrefectServer(Path(folder), in_memory=True) as server,
            talking_to(server),
        ):
            posted, plain = asyncio.run(_into_prefect(credentials, run_id, text))
            print(f"logging: {posted / plain:.2f} times the plain way ({posted:.2f} s, {plain:.2f} s)")
            for lacking in ((), ("boltCommandLogs",)):
                late, fetched = _live(text, lacking)
                print(
                    f"lag, {'without' if lacking else 'with'} cursors, {lines / _LIVE_SECONDS:,.0f} lines a second, "
                    f"looks {_LOOK_SECONDS:g} s apart: {statistics.median(late):.1f} s, {max(late):.1f} s at most; "
                    f"{fetched / len(text):.1f} times the text fetched"
                )


def _live(text: str, lacking: tuple[str, ...]) -> tuple[list[float], int]:
    """The lags of the batches of a running command, and the number of bytes that Bolt sent for all of them."""
    from paradime_blocks import ParadimeCredentials

    with BoltSimulator() as simulator:
        simulator.lacks(operations=lacking)
        command = SimulatedCommand("dbt run", duration_seconds=_LIVE_SECONDS, stdout=text)
        simulator.add_schedule("daily", commands=[command], setup_commands=False, starting_seconds=0)
        credentials = ParadimeCredentials(
            api_endpoint=simulator.api_endpoint, api_key=simulator.api_key, api_secret=simulator.api_secret
        )
        late = asyncio.run(_while_it_runs(credentials, simulator.start_run("daily"), text.count("\n")))
        return late, sum(request.bytes for request in simulator.requests)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
