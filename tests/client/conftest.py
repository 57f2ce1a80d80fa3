"""Fixtures for the client's tests: a simulator with a stopped clock, clients that do not sleep, a recording server."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from support.clients import Naps, client_for

from paradime_blocks import BoltClient, ParadimeCredentials
from paradime_blocks.testing import BoltSimulator
from paradime_blocks.testing.plugin import complain_about_bad_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def bolt_simulator() -> Iterator[BoltSimulator]:
    """A simulator whose time moves only on request; it fails a test that sends invalid requests."""
    with BoltSimulator(speed=0) as simulator:
        yield simulator
    complain_about_bad_requests(simulator)


@pytest.fixture
def simulator(bolt_simulator: BoltSimulator) -> BoltSimulator:
    """The same by a shorter name."""
    return bolt_simulator


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def client_of(naps: Naps) -> Callable[..., BoltClient]:
    """Makes a client of a simulator (or of an endpoint) that records its waits in `naps`."""
    return partial(client_for, sleep=naps)


@pytest.fixture(autouse=True)
def _no_waiting(naps: Naps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that blocks and handles create do not wait between tries either."""
    get_client = ParadimeCredentials.get_client

    def get_one_that_naps(self: ParadimeCredentials, **options: Any) -> BoltClient:
        return get_client(self, **{"sleep": naps, **options})

    monkeypatch.setattr(ParadimeCredentials, "get_client", get_one_that_naps)


@dataclass
class Recorder:
    """A small HTTP server that records each request line with its headers, and counts connections.

    After `idle_seconds` without a request it closes a connection silently, as load balancers do; each closed connection
    can be acquired from `closed`.
    """

    status: int = 200
    body: bytes = b'{"data": {"boltRunStatus": {"ok": true, "state": "RUNNING", "commands": []}}}'
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    connections: int = 0
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    idle_seconds: float | None = None
    url: str = ""


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            recorder.connections += 1
            self.connection.settimeout(recorder.idle_seconds)
            super().handle()

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            recorder.requests.append((self.requestline, headers))
            self.send_response(recorder.status)
            self.send_header("Content-Length", str(len(recorder.body)))
            self.end_headers()
            self.wfile.write(recorder.body)

        do_GET = do_POST = do_CONNECT = answer  # noqa: N815 - the base class looks for these names

        def log_message(self, *_: object) -> None:
            """Log nothing: tests want a quiet server."""

    class Server(ThreadingHTTPServer):
        def shutdown_request(self, request: Any) -> None:
            super().shutdown_request(request)
            recorder.closed.release()

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    recorder.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
