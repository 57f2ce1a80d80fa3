"""The simulator without a socket: httpx's own transport calls it, and can reach nothing else."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx

from paradime_blocks.testing import BoltSimulator
from paradime_blocks.testing.reply import Later, Reply
from paradime_blocks.testing.service import IncomingRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from typing_extensions import Self

# From the request to the simulator, and back.
ONE_WAY_SECONDS = 0.01
_ports = itertools.count(20_001)
_serving: dict[int, BoltInProcess] = {}
# A simulator finishes its work after its client has gone. The event loop itself keeps no reference to a task.
_tasks: set[asyncio.Task[Any]] = set()


def _now() -> float:
    # Virtual time replaces this function.
    return time.monotonic()


class BoltInProcess(BoltSimulator):
    """A simulator without a socket, for use within `bolt_in_process`. Its time is the event loop's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(port=next(_ports), monotonic=_now, **options)
        self.stopped = asyncio.Event()

    def start(self) -> Self:
        self.stopped.clear()
        _serving[self._address[1]] = self
        return self

    def stop(self) -> None:
        self.stopped.set()
        _serving.pop(self._address[1], None)


class _Body(httpx.AsyncByteStream):
    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._reply.body
        yield body.read_bytes() if isinstance(body, Path) else body
        if self._reply.announced_length not in {None, self._reply.size}:
            raise httpx.ReadError("The connection was reset.")


async def _answer(simulator: BoltInProcess, request: IncomingRequest) -> Reply | None:
    await asyncio.sleep(ONE_WAY_SECONDS)
    call = simulator.service.handle(request)
    answer = call.answer
    while isinstance(answer, Later):
        try:
            await asyncio.wait_for(simulator.stopped.wait(), answer.seconds)
        except asyncio.TimeoutError:
            answer = answer.then()
        else:
            answer = None
    call.note_answer(answer)
    await asyncio.sleep(ONE_WAY_SECONDS)
    return answer


async def _handle(_: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
    simulator = _serving.get(request.url.port or 0)
    if simulator is None or request.url.host != "127.0.0.1":
        msg = f"Nothing listens at {request.url.host}:{request.url.port}."
        raise httpx.ConnectError(msg, request=request)
    incoming = IncomingRequest(
        request.method,
        request.url.raw_path.decode(),
        {name.lower(): value for name, value in request.headers.items()},
        await request.aread(),
    )
    # The simulator acts even if its client has gone.
    task = asyncio.get_running_loop().create_task(_answer(simulator, incoming))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    reply = await asyncio.shield(task)
    if reply is None:
        raise httpx.ReadError("The connection was reset.", request=request)
    return httpx.Response(
        reply.status, headers=simulator.service.headers(reply), stream=_Body(reply), request=request
    )


@contextmanager
def bolt_in_process() -> Iterator[None]:
    """Direct all requests of httpx to the simulators of this process; there is no network inside."""
    with mock.patch.object(httpx.AsyncHTTPTransport, "handle_async_request", _handle):
        yield
