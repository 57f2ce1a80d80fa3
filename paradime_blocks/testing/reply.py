"""An HTTP response before it is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Reply:
    """An HTTP response.

    Attributes:
        status: The status code.
        body: The bytes to send, or the file that holds them.
        headers: Headers besides Content-Length and Date.
        announced_length: The Content-Length to send, if it is not the real length; otherwise None.
    """

    status: int
    body: bytes | Path = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    announced_length: int | None = None

    @classmethod
    def of_json(cls, content: object, status: int = 200) -> Reply:
        """Return a response with a JSON body."""
        return cls(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    @classmethod
    def of_error(cls, status: int, message: str) -> Reply:
        """Return a response with an error message in GraphQL's format."""
        return cls.of_json({"errors": [{"message": message}]}, status)

    @property
    def size(self) -> int:
        """The body's size in bytes."""
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)


@dataclass(frozen=True)
class Later:
    """A response that is held back.

    Attributes:
        seconds: How long the response is held back, in real seconds.
        then: A function that makes the response after that time. If it returns None, the connection is reset.
    """

    seconds: float
    then: Callable[[], Reply | Later | None]
