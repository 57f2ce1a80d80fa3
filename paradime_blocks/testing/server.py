"""The HTTP side: sockets, credentials, faults, and the request log."""

from __future__ import annotations

import contextlib
import http
import json
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .access import CREDENTIAL_HEADERS, Access
from .api import NO_PERMISSION, GraphQLApi, Prepared
from .clock import Clock
from .faultbox import FaultBox
from .faults import RESOURCE, Exchange
from .planning import Refused
from .reply import Reply
from .requests import RecordedRequest, RequestLog
from .resources import PREFIX, SignedPaths
from .state import Workspace


@dataclass(frozen=True)
class Service:
    """All that a request may need."""

    api: GraphQLApi
    workspace: Workspace
    clock: Clock
    access: Access
    paths: SignedPaths
    faults: FaultBox
    log: RequestLog
    validation_status: int
    graphql_path: str


class SimulatorServer(ThreadingHTTPServer):
    """One thread per connection; all of them end at `close`."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True
    # Should the knock at the door in `close` get lost, this is how soon it is closed all the same.
    timeout = 0.5

    def __init__(self, address: tuple[str, int], service: Service) -> None:
        """Bind the address.

        Args:
            address: Host and port.
            service: What is served.
        """
        self.service = service
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, _Handler)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="bolt-simulator")

    def server_bind(self) -> None:
        """Bind without asking a name server for our own name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def start(self) -> None:
        """Serve from a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening, break off what is being answered, and reset all connections."""
        self.stopping.set()
        # Somebody at the door wakes the thread, which then sees that it is closed.
        with contextlib.suppress(OSError):
            socket.create_connection(self.socket.getsockname()[:2], timeout=1).close()
        self._thread.join()
        self.server_close()
        with self._open_lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while not self.stopping.is_set():
            self.handle_request()

    def verify_request(self, request: object, client_address: object) -> bool:
        """Let nobody in once the server is being closed."""
        del request, client_address
        return not self.stopping.is_set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread of its own, and remember it for `close`."""
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def forget(self, connection: socket.socket) -> None:
        """Forget a connection that is gone."""
        with self._open_lock:
            self._open.discard(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about clients that go away, which tests make them do all the time."""
        if self.stopping.is_set():
            return
        super().handle_error(request, client_address)  # type: ignore[arg-type]


@dataclass
class _Exchange:
    """A call in the hands of a fault (or of none)."""

    act: Callable[[], Reply]
    wait: Callable[[float], bool]
    nothing: Callable[..., dict[str, Any]]


class _Handler(BaseHTTPRequestHandler):
    server: SimulatorServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def finish(self) -> None:
        self.server.forget(self.connection)
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            # The client has gone.
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's.
        """Tests want a quiet server; the request log has it all."""

    # The two kinds of requests

    def do_POST(self) -> None:
        service = self.server.service
        announced = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(announced)
        update = self._record(request_bytes=len(body))
        if len(body) < announced:
            # The client has gone in the middle of its request, as one that is cancelled does: nothing was asked.
            update(answered=True)
            self.close_connection = True
            return None
        if urlsplit(self.path).path != service.graphql_path:
            return self._send(Reply.of_error(404, "There is no API endpoint at this address."), update)
        refusal = service.access.refuse(self._headers())
        if refusal is not None:
            return self._send(refusal, update)
        prepared = self._prepare(body, update)
        if prepared is None:
            return None
        update(operations=prepared.operations, authorized=True, not_understood=prepared.not_understood)

        def act() -> Reply:
            read_only = service.access.read_only
            # A gateway judges the request by its kind; GraphQL judges each field that it comes to carry out.
            if read_only == "status" and prepared.is_mutation and not prepared.errors:
                return Reply.of_error(403, NO_PERMISSION)
            answer, broken = service.api.act(prepared, read_only=bool(read_only))
            if broken:
                update(not_understood=f"the simulator failed: {broken}")
            return Reply.of_json(answer, service.validation_status if prepared.errors else 200)

        return self._answer(prepared.operations, _Exchange(act, self._wait, prepared.nothing), update)

    def do_GET(self) -> None:
        update = self._record()
        if not self.path.startswith(PREFIX):
            return self._send(Reply.of_error(404, "There is nothing to see at this address."), update)
        update(operations=(RESOURCE,), authorized=True)
        leaked = [name for name in CREDENTIAL_HEADERS if name in self._headers()]
        if leaked:
            message = f"Paradime credentials were sent to object storage: {', '.join(leaked)}."
            update(not_understood=message)
            return self._send(Reply.of_error(400, message), update)

        def nothing(*, ok: bool | None) -> dict[str, Any]:
            del ok
            return {}

        return self._answer((RESOURCE,), _Exchange(self._resource, self._wait, nothing), update)

    def _resource(self) -> Reply:
        service = self.server.service
        resource_id = service.paths.check(self.path)
        if resource_id is None:
            return Reply.of_error(403, "The link has expired, or its signature is wrong.")
        try:
            resource = service.workspace.resource(resource_id)
        except Refused as refusal:
            return Reply.of_error(404, str(refusal))
        content = resource.content.encode() if isinstance(resource.content, str) else resource.content
        kind = "application/json" if resource.path.endswith(".json") else "application/octet-stream"
        return Reply(200, content, {"Content-Type": kind})

    def _prepare(self, body: bytes, update: Callable[..., None]) -> Prepared | None:
        """Read the envelope of a GraphQL request; None if it is none, which has been answered then."""
        problem = "The body must be JSON with a text `query` and, if any, an object `variables`."
        try:
            payload = json.loads(body)
        except ValueError:
            payload = None
        if self.headers.get_content_type() != "application/json":
            problem = "The Content-Type must be application/json."
        elif isinstance(payload, dict) and isinstance(payload.get("query"), str):
            variables = payload.get("variables")
            variables = {} if variables is None else variables
            if isinstance(variables, dict):
                update(query=payload["query"], variables=variables)
                return self.server.service.api.prepare(
                    payload["query"], variables, payload.get("operationName")
                )
        update(authorized=True, not_understood=problem)
        self._send(Reply.of_error(400, problem), update)
        return None

    # What both have in common

    def _record(self, request_bytes: int = 0) -> Callable[..., None]:
        service = self.server.service
        request = RecordedRequest(
            at=service.clock.now(),
            monotonic=time.monotonic(),
            method=self.command,
            path=self.path,
            headers=self._headers(),
            request_bytes=request_bytes,
        )
        return service.log.add(request)

    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _wait(self, seconds: float) -> bool:
        return not self.server.stopping.wait(min(seconds, threading.TIMEOUT_MAX))

    def _answer(self, operations: tuple[str, ...], exchange: Exchange, update: Callable[..., None]) -> None:
        fault = self.server.service.faults.take(operations)
        update(fault=fault)
        self._send(fault.answer(exchange) if fault else exchange.act(), update)

    def _send(self, reply: Reply | None, update: Callable[..., None]) -> None:
        if reply is None:
            update(answered=True)
            self._cut()
            return
        # Noted before it is sent: a test that has its answer must find it in the log.
        update(status=reply.status, bytes=reply.size, answered=True)
        length = reply.size if reply.announced_length is None else reply.announced_length
        # One world, one clock: what a run's times are compared with.
        now = format_datetime(self.server.service.clock.now(), usegmt=True)
        headers = {"Date": now, **reply.headers, "Content-Length": str(length)}
        reason = http.HTTPStatus(reply.status).phrase if reply.status in _STATUSES else "Simulated"
        head = f"HTTP/1.1 {reply.status} {reason}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        if isinstance(reply.body, Path):
            self.wfile.write(head.encode("latin-1"))
            with reply.body.open("rb") as source:
                shutil.copyfileobj(source, self.wfile)
        else:
            # One write for both, so that they travel together.
            shutil.copyfileobj(BytesIO(head.encode("latin-1") + reply.body), self.wfile, 1 << 20)
        if length != reply.size:
            self._cut()

    def _cut(self) -> None:
        """Close the connection with a reset, so that the client sees it broken rather than ended."""
        self.close_connection = True
        self.server.forget(self.connection)
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The socket closes only when the file made of it is closed too.
        self.rfile.close()
        self.connection.close()


_STATUSES = frozenset(status.value for status in http.HTTPStatus)
