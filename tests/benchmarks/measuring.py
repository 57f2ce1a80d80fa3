"""Counts the requests and the CPU time of this process. It needs only the standard library until it counts."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|paradime-bolt:[^/?]+")


@dataclass
class Counted:
    """What a piece of work has cost.

    Attributes:
        cpu: CPU time of the process, in seconds.
        seconds: How long the work took.
        requests: The requests to Prefect: when each was sent, in seconds since the beginning, and what was asked.
    """

    cpu: float = 0.0
    seconds: float = 0.0
    requests: list[tuple[float, str]] = field(default_factory=list)

    def between(self, begin: float, end: float) -> int:
        """How many requests were sent between two times."""
        return sum(begin <= at < end for at, _ in self.requests)

    def kinds(self) -> dict[str, int]:
        """How often each thing was asked."""
        return dict(Counter(kind for _, kind in self.requests).most_common())


@contextmanager
def counted() -> Iterator[Counted]:
    """Count the requests to Prefect of all threads, and the CPU time of the process."""
    import httpx

    prefect = os.environ["PREFECT_API_URL"]
    found = Counted()
    began, cpu = time.monotonic(), time.process_time()
    send_async, send = httpx.AsyncHTTPTransport.handle_async_request, httpx.HTTPTransport.handle_request

    def note(request: httpx.Request) -> None:
        url = str(request.url)
        if url.startswith(prefect):
            path = _ID.sub("*", url.removeprefix(prefect).partition("?")[0])
            found.requests.append((time.monotonic() - began, f"{request.method} {path}"))

    async def count_async(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        note(request)
        return await send_async(self, request)

    def count(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        note(request)
        return send(self, request)

    httpx.AsyncHTTPTransport.handle_async_request = count_async  # type: ignore[method-assign]
    httpx.HTTPTransport.handle_request = count  # type: ignore[method-assign]
    try:
        yield found
    finally:
        found.cpu, found.seconds = time.process_time() - cpu, time.monotonic() - began
        httpx.AsyncHTTPTransport.handle_async_request = send_async  # type: ignore[method-assign]
        httpx.HTTPTransport.handle_request = send  # type: ignore[method-assign]


def report(**figures: Any) -> None:
    """Print the figures of this process for the process that has started it."""
    print(json.dumps(figures), flush=True)
