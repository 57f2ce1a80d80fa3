"""A proxy for a Prefect server. It answers some requests with 503, as the server does when its database is locked."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from typing_extensions import Self

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "content-encoding",
    "host",
    "upgrade",
}


class FlakyProxy:
    """Passes requests on, except the first few of one kind. It refuses WebSockets.

    Args:
        api_url: The server's API.
        path_ends_with: The kind of requests to refuse at first.
        times: How many of them to refuse.
    """

    def __init__(self, api_url: str, *, path_ends_with: str, times: int) -> None:
        self.refused = 0
        self._root = api_url.removesuffix("/api")
        self._ending, self._times = path_ends_with, times
        self._lock = threading.Lock()
        self._http = httpx.Client(timeout=60, trust_env=False)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if "upgrade" in self.headers.get("Connection", "").lower():
                    self._answer(403, {}, b"")
                elif proxy.is_to_be_refused(self.path):
                    self._answer(503, {}, b'{"exception_message": "database is locked"}')
                else:
                    answer = proxy.forward(self.command, self.path, dict(self.headers), body)
                    self._answer(answer.status_code, dict(answer.headers), answer.content)

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in _HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass_on  # noqa: N815 - the base class's names

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/api"

    def is_to_be_refused(self, path: str) -> bool:
        with self._lock:
            refuse = path.endswith(self._ending) and self.refused < self._times
            self.refused += refuse
            return refuse

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        kept = {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
        return self._http.request(method, f"{self._root}{path}", headers=kept, content=body)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._http.close()
