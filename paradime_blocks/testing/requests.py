"""The log of the requests that clients have sent. Tests read this log."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .faults import Fault


@dataclass(frozen=True)
class RecordedRequest:
    """A request that the simulator received, and its outcome.

    Attributes:
        at: When the request arrived, in virtual time.
        monotonic: When the request arrived, in real seconds (`time.monotonic`), to measure the time between two
            requests.
        method: The HTTP method.
        path: The path, with its query string.
        headers: The headers, with their names in lower case.
        operations: The names of the root fields; `("resource",)` for a resource.
        query: The GraphQL document.
        variables: The variables of the GraphQL document.
        authorized: Whether the credentials were right.
        status: The status of the response. The status is None before there is a response, and if the connection was
            reset.
        answered: Whether the response was sent, or the connection was reset.
        fault: The fault that hit the request; None if no fault hit it.
        bytes: The size of the response's body.
        request_bytes: The size of the request's body.
        not_understood: Why the request was invalid; None if it was valid. The pytest fixture fails a test with an
            invalid request.
    """

    at: datetime
    monotonic: float
    method: str
    path: str
    headers: Mapping[str, str]
    operations: tuple[str, ...] = ()
    query: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    authorized: bool = False
    status: int | None = None
    answered: bool = False
    fault: Fault | None = None
    bytes: int = 0
    request_bytes: int = 0
    not_understood: str | None = None


class RequestLog:
    """All requests in the order of arrival; safe to use from many threads."""

    def __init__(self) -> None:
        """Start with an empty log."""
        self._changed = threading.Condition()
        self._requests: list[RecordedRequest] = []
        self._cleared = 0

    def add(self, request: RecordedRequest) -> Callable[..., None]:
        """Record a request when it arrives.

        Returns:
            A function that changes the given fields of this entry later.
        """
        with self._changed:
            place, cleared = len(self._requests), self._cleared
            self._requests.append(request)
            self._changed.notify_all()

        def update(**changes: Any) -> None:
            with self._changed:
                # Requests from before the log was cleared are of no interest any more.
                if cleared == self._cleared:
                    self._requests[place] = dataclasses.replace(self._requests[place], **changes)
                self._changed.notify_all()

        return update

    def all(self) -> list[RecordedRequest]:
        """Return the requests so far."""
        with self._changed:
            return list(self._requests)

    def clear(self) -> None:
        """Remove all requests from the log."""
        with self._changed:
            self._requests = []
            self._cleared += 1

    def wait_for_change(self, seconds: float) -> None:
        """Wait until the log changes, but at most this number of real seconds."""
        with self._changed:
            self._changed.wait(seconds)
