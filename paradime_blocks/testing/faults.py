"""Faults: small frozen values that define what goes wrong, in which call, and how often.

All faults take these keyword arguments:

* `operation`: the root field whose calls the fault hits (`"triggerBoltRun"`), or `"resource"` for the download of a
  signed resource URL. With None, the fault can hit any call.
* `nth`: the number of the first matching call that the fault hits. The first call after the injection is 1.
* `times`: how many calls the fault hits. None means all later calls.

A fault that loses a response also takes `after_acting`. True means that the server executed the request
(the run *did* start) before the response was lost. If several faults fit a call, the fault that was injected first is
used.

Example:
    >>> from paradime_blocks.testing import faults
    >>> faults.Status(503, operation="boltRunStatus", nth=2, times=3, retry_after=1).nth
    2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from .reply import Later, Reply

RESOURCE = "resource"

_HTML = b"<!doctype html>\n<html><head><title>Please stand by</title></head><body>Back soon.</body></html>\n"


class Exchange(Protocol):
    """What a fault can do with the call that it hits."""

    def act(self) -> Reply:
        """Execute the request, and return the normal response."""

    def nothing(self, *, ok: bool | None) -> dict[str, Any]:
        """Return the selected fields with the value null. If `ok` is selected, it has the given value."""


@dataclass(frozen=True)
class Fault:
    """The base class of all faults."""

    operation: str | None = field(default=None, kw_only=True)
    nth: int = field(default=1, kw_only=True)
    times: int | None = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        """Reject values of `nth` and `times` with which the fault would never hit a call."""
        if self.nth < 1 or (self.times is not None and self.times < 1):
            message = f"nth and times count from 1: {self!r}"
            raise ValueError(message)

    def answer(self, exchange: Exchange) -> Reply | Later | None:
        """Return the response for the client, now or later; None resets the client's connection."""
        raise NotImplementedError


@dataclass(frozen=True)
class LosingFault(Fault):
    """A fault that loses the normal response, before or after the server has executed the request."""

    after_acting: bool = field(default=False, kw_only=True)

    def answer(self, exchange: Exchange) -> Reply | Later | None:
        """If `after_acting` is set, execute the request. Then return the response of `instead`."""
        if self.after_acting:
            exchange.act()
        return self.instead(exchange)

    def instead(self, exchange: Exchange) -> Reply | None:
        """Return the response that replaces the normal response; None resets the connection."""
        raise NotImplementedError


@dataclass(frozen=True)
class Status(LosingFault):
    """Responds with a status code, such as 503 or 429.

    Attributes:
        status: The status code.
        retry_after: The Retry-After header: seconds, or an HTTP date as text.
        body: The body of the response. By default, a line of plain text.
    """

    status: int
    retry_after: int | str | None = None
    body: str | bytes | None = None

    def instead(self, exchange: Exchange) -> Reply:
        """Return a short response with the status."""
        del exchange
        body = f"The simulator was set to respond with {self.status}.\n" if self.body is None else self.body
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return Reply(self.status, body.encode() if isinstance(body, str) else body, headers)


@dataclass(frozen=True)
class CutConnection(LosingFault):
    """Resets the connection without a response."""

    def instead(self, exchange: Exchange) -> None:
        """Return no response, so that the connection is reset."""
        del exchange


@dataclass(frozen=True)
class Hang(LosingFault):
    """Holds the call for some real seconds, longer than the client waits.

    With `after_acting`, the server executes the request at once and holds the response back. Without `after_acting`,
    the server executes the request only at the end of the wait, when the client may be gone. For clients, this is the
    hardest case of a lost response. With `then="cut"`, the connection is reset at the end of the wait; then, without
    `after_acting`, the request is never executed.

    Attributes:
        seconds: How long to hold the call, in real seconds. The simulator's `stop` ends the wait at once, without
            executing the request.
        then: What happens at the end of the wait: the normal response is sent, or the connection is reset.
    """

    seconds: float
    then: Literal["answer", "cut"] = "answer"

    def answer(self, exchange: Exchange) -> Later:
        """Return the normal response, or a reset of the connection, for the end of the wait."""
        reply = exchange.act() if self.after_acting else None
        return Later(self.seconds, lambda: None if self.then == "cut" else reply or exchange.act())


@dataclass(frozen=True)
class Slow(Fault):
    """Executes the request at once, and sends the normal response some real seconds later.

    Attributes:
        seconds: How many real seconds later the response is sent.
    """

    seconds: float

    def answer(self, exchange: Exchange) -> Later:
        """Return the normal response, which is sent later."""
        reply = exchange.act()
        return Later(self.seconds, lambda: reply)


@dataclass(frozen=True)
class Garbage(LosingFault):
    """Responds with 200 and a body that is not JSON: an HTML page, as many proxies send.

    Attributes:
        body: The body of the response.
        content_type: The declared content type of the body.
    """

    body: bytes = _HTML
    content_type: str = "text/html; charset=utf-8"

    def instead(self, exchange: Exchange) -> Reply:
        """Return a response with this body."""
        del exchange
        return Reply(200, self.body, {"Content-Type": self.content_type})


@dataclass(frozen=True)
class Truncated(LosingFault):
    """Sends the first half of the response.

    Attributes:
        mid_transfer: True declares the full length and resets the connection halfway; False sends a
            valid HTTP response whose body is cut short.
    """

    mid_transfer: bool = False

    def answer(self, exchange: Exchange) -> Reply:
        """Return half of the normal response. Without `after_acting`, return half of a response with only nulls."""
        whole = exchange.act() if self.after_acting else Reply.of_json({"data": exchange.nothing(ok=None)})
        body = whole.body.read_bytes() if isinstance(whole.body, Path) else whole.body
        announced = len(body) if self.mid_transfer else None
        return Reply(whole.status, body[: len(body) // 2], whole.headers, announced)


@dataclass(frozen=True)
class GraphQLError(LosingFault):
    """Responds with 200 and a GraphQL error.

    Attributes:
        message: The text of the error.
        data: The value of `data` beside the error.
    """

    message: str
    data: Mapping[str, Any] | None = None

    def instead(self, exchange: Exchange) -> Reply:
        """Return a response with the error."""
        del exchange
        data = None if self.data is None else dict(self.data)
        return Reply.of_json({"errors": [{"message": self.message}], "data": data})


@dataclass(frozen=True)
class MissingData(LosingFault):
    """Responds with 200 and valid JSON that lacks the requested data.

    Attributes:
        shape: `"data"`: `data` is null. `"empty"`: no `data` at all. `"field"`: the root field is null.
            `"nulls"`: each selected field is null. `"not_ok"`: `ok` is false, and each other selected field is null.
    """

    shape: Literal["data", "empty", "field", "nulls", "not_ok"] = "data"

    def instead(self, exchange: Exchange) -> Reply:
        """Return JSON without the requested data."""
        if self.shape == "data":
            return Reply.of_json({"data": None})
        if self.shape == "empty":
            return Reply.of_json({})
        nothing = exchange.nothing(ok=False if self.shape == "not_ok" else None)
        if self.shape == "field":
            nothing = dict.fromkeys(nothing)
        return Reply.of_json({"data": nothing})


@dataclass(frozen=True)
class Redirect(Fault):
    """Redirects the client. Tests use it to see whether credentials are sent to the new address.

    Attributes:
        location: The new address.
        status: The HTTP status. With 307, clients keep the method and the body. With 301, 302 or 303, most clients send
            a GET request without a body.
    """

    location: str
    status: int = 307

    def answer(self, exchange: Exchange) -> Reply:
        """Return a redirect to the new address."""
        del exchange
        return Reply(self.status, b"", {"Location": self.location})


@dataclass(frozen=True)
class Duplicated(Fault):
    """Executes the request twice, as if a gateway had sent it again. The client receives one of the two responses.

    Attributes:
        hears: Which of the two responses the client receives.
    """

    hears: Literal["first", "last"] = "last"

    def answer(self, exchange: Exchange) -> Reply:
        """Execute the request twice, and return one of the two responses."""
        first, last = exchange.act(), exchange.act()
        return first if self.hears == "first" else last
