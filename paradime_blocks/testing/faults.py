"""Faults: small frozen values that say what goes wrong, with which call, and how often.

Each takes the same keyword arguments:

* `operation`: the root field whose calls it hits (`"triggerBoltRun"`), or `"resource"` for the download of a
  signed resource URL; None hits any call.
* `nth`: the first matching call that it hits, counted from the injection.
* `times`: how many calls it hits; None means for ever.

Those that lose an answer also take `after_acting`: True means that the server has carried out what was
asked (the run *did* start) before the answer was lost. If several faults fit a call, the one injected first
is used up.

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
    """What a fault can do with a call that it has hit."""

    def act(self) -> Reply:
        """Carry out what was asked, and give the answer that should have been sent."""

    def nothing(self, *, ok: bool | None) -> dict[str, Any]:
        """The selected fields, each of them null (but `ok`, if asked for, as given)."""


@dataclass(frozen=True)
class Fault:
    """What all faults have in common."""

    operation: str | None = field(default=None, kw_only=True)
    nth: int = field(default=1, kw_only=True)
    times: int | None = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse counts that would never hit anything."""
        if self.nth < 1 or (self.times is not None and self.times < 1):
            message = f"nth and times count from 1: {self!r}"
            raise ValueError(message)

    def answer(self, exchange: Exchange) -> Reply | Later | None:
        """What the client gets, now or later; None resets its connection."""
        raise NotImplementedError


@dataclass(frozen=True)
class LosingFault(Fault):
    """A fault that loses the proper answer, before or after the server has acted."""

    after_acting: bool = field(default=False, kw_only=True)

    def answer(self, exchange: Exchange) -> Reply | Later | None:
        """Act if the fault comes after that, and send what `instead` makes of it."""
        if self.after_acting:
            exchange.act()
        return self.instead(exchange)

    def instead(self, exchange: Exchange) -> Reply | None:
        """What is sent in place of the answer."""
        raise NotImplementedError


@dataclass(frozen=True)
class Status(LosingFault):
    """Answers with a status code, such as 503 or 429.

    Attributes:
        status: The status code.
        retry_after: The Retry-After header: seconds, or an HTTP date as text.
        body: The body; a line of plain text unless given.
    """

    status: int
    retry_after: int | str | None = None
    body: str | bytes | None = None

    def instead(self, exchange: Exchange) -> Reply:
        """A short answer with the status."""
        del exchange
        body = f"The simulator was told to answer {self.status}.\n" if self.body is None else self.body
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return Reply(self.status, body.encode() if isinstance(body, str) else body, headers)


@dataclass(frozen=True)
class CutConnection(LosingFault):
    """Resets the connection and answers nothing."""

    def instead(self, exchange: Exchange) -> None:
        """Nothing at all."""
        del exchange


@dataclass(frozen=True)
class Hang(LosingFault):
    """Holds the call for some real seconds, longer than the client will wait.

    With `after_acting`, the server acts at once and holds the answer back. Without, it acts only at the end
    of the wait, when the client may be long gone: the most treacherous of lost answers. With `then="cut"` the
    connection is reset in the end, and without `after_acting` nothing is ever done.

    Attributes:
        seconds: How long, in real seconds. The simulator's `stop` ends it at once, and nothing is done then.
        then: What happens in the end.
    """

    seconds: float
    then: Literal["answer", "cut"] = "answer"

    def answer(self, exchange: Exchange) -> Later:
        """Answer or cut, later."""
        reply = exchange.act() if self.after_acting else None
        return Later(self.seconds, lambda: None if self.then == "cut" else reply or exchange.act())


@dataclass(frozen=True)
class Slow(Fault):
    """Acts at once, and answers properly some real seconds later.

    Attributes:
        seconds: How much later.
    """

    seconds: float

    def answer(self, exchange: Exchange) -> Later:
        """The proper answer, late."""
        reply = exchange.act()
        return Later(self.seconds, lambda: reply)


@dataclass(frozen=True)
class Garbage(LosingFault):
    """Answers 200 with something that is no JSON: a page for people, as proxies like to send.

    Attributes:
        body: What is sent.
        content_type: What it claims to be.
    """

    body: bytes = _HTML
    content_type: str = "text/html; charset=utf-8"

    def instead(self, exchange: Exchange) -> Reply:
        """The page."""
        del exchange
        return Reply(200, self.body, {"Content-Type": self.content_type})


@dataclass(frozen=True)
class Truncated(LosingFault):
    """Sends the first half of the answer.

    Attributes:
        mid_transfer: True announces the whole length and then resets the connection halfway; False sends a
            well-formed HTTP answer whose body is cut short.
    """

    mid_transfer: bool = False

    def answer(self, exchange: Exchange) -> Reply:
        """Half of the proper answer, or of one full of nulls if the server is not to act."""
        whole = exchange.act() if self.after_acting else Reply.of_json({"data": exchange.nothing(ok=None)})
        body = whole.body.read_bytes() if isinstance(whole.body, Path) else whole.body
        announced = len(body) if self.mid_transfer else None
        return Reply(whole.status, body[: len(body) // 2], whole.headers, announced)


@dataclass(frozen=True)
class GraphQLError(LosingFault):
    """Answers 200 with a GraphQL error.

    Attributes:
        message: The text of the error.
        data: What `data` holds besides.
    """

    message: str
    data: Mapping[str, Any] | None = None

    def instead(self, exchange: Exchange) -> Reply:
        """The error."""
        del exchange
        data = None if self.data is None else dict(self.data)
        return Reply.of_json({"errors": [{"message": self.message}], "data": data})


@dataclass(frozen=True)
class MissingData(LosingFault):
    """Answers 200 with well-formed JSON that lacks what was asked for.

    Attributes:
        shape: `"data"`: `data` is null. `"empty"`: no `data` at all. `"field"`: the root field is null.
            `"nulls"`: each selected field is null. `"not_ok"`: the same, and `ok` is false.
    """

    shape: Literal["data", "empty", "field", "nulls", "not_ok"] = "data"

    def instead(self, exchange: Exchange) -> Reply:
        """JSON with a hole in it."""
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
    """Sends the client elsewhere: does it take its credentials along?

    Attributes:
        location: Where to.
        status: 307 keeps the method and body; 301, 302 and 303 make most clients GET.
    """

    location: str
    status: int = 307

    def answer(self, exchange: Exchange) -> Reply:
        """The redirect."""
        del exchange
        return Reply(self.status, b"", {"Location": self.location})


@dataclass(frozen=True)
class Duplicated(Fault):
    """Acts twice, as when a gateway on the way resends a request; the client hears one of the answers.

    Attributes:
        hears: Which of the two.
    """

    hears: Literal["first", "last"] = "last"

    def answer(self, exchange: Exchange) -> Reply:
        """Act twice."""
        first, last = exchange.act(), exchange.act()
        return first if self.hears == "first" else last
