"""The HTTP server of the simulator."""

from __future__ import annotations

import contextlib
import http
import shutil
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

from .reply import Later, Reply
from .service import IncomingRequest, Service


class SimulatorServer(ThreadingHTTPServer):
    """The HTTP server, with one thread per connection. `close` ends all connections."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True
    # If the connection that `close` makes to wake the thread fails, the thread ends after this time.
    timeout = 0.5

    def __init__(self, address: tuple[str, int], service: Service) -> None:
        """Bind the address.

        Args:
            address: Host and port.
            service: Handles the requests.
        """
        self.service = service
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, _Handler)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="bolt-simulator")

    def server_bind(self) -> None:
        """Bind the address without a DNS lookup of our own host name: such a lookup can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def start(self) -> None:
        """Start the thread that accepts connections."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening, abort requests in progress, and reset all connections."""
        self.stopping.set()
        # This connection wakes the thread, which then notices that the server is closing.
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
        """Refuse new connections when the server is closing."""
        del request, client_address
        return not self.stopping.is_set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread of its own, and remember the connection for `close`."""
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def forget(self, connection: socket.socket) -> None:
        """Forget a closed connection."""
        with self._open_lock:
            self._open.discard(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print an error, unless the server is closing: a close breaks connections, which is no error."""
        if self.stopping.is_set():
            return
        super().handle_error(request, client_address)  # type: ignore[arg-type]


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
            # The client has disconnected.
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's.
        """Log nothing: tests want a quiet server, and the request log has everything."""

    def do_POST(self) -> None:
        announced = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(announced)
        self._handle(body, complete=len(body) == announced)

    def do_GET(self) -> None:
        self._handle(b"", complete=True)

    def _handle(self, body: bytes, *, complete: bool) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = IncomingRequest(self.command, self.path, headers, body, complete)
        call = self.server.service.handle(request)
        answer = call.answer
        while isinstance(answer, Later):
            stopped = self.server.stopping.wait(min(answer.seconds, threading.TIMEOUT_MAX))
            answer = None if stopped else answer.then()
        call.note_answer(answer)
        if answer is None:
            self._cut()
        else:
            self._send(answer)

    def _send(self, reply: Reply) -> None:
        headers = self.server.service.headers(reply)
        reason = http.HTTPStatus(reply.status).phrase if reply.status in _STATUSES else "Simulated"
        head = f"HTTP/1.1 {reply.status} {reason}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        if isinstance(reply.body, Path):
            self.wfile.write(head.encode("latin-1"))
            with reply.body.open("rb") as source:
                shutil.copyfileobj(source, self.wfile)
        else:
            # One write sends the head and the body together.
            shutil.copyfileobj(BytesIO(head.encode("latin-1") + reply.body), self.wfile, 1 << 20)
        if reply.announced_length not in {None, reply.size}:
            self._cut()

    def _cut(self) -> None:
        """Close the connection with a reset, so that the client sees an error and not a normal end."""
        self.close_connection = True
        self.server.forget(self.connection)
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The socket closes only when the file that was made from the socket is closed, too.
        self.rfile.close()
        self.connection.close()


_STATUSES = frozenset(status.value for status in http.HTTPStatus)
