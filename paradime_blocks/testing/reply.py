"""An HTTP answer, before it is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Reply:
    """An HTTP answer.

    Attributes:
        status: The status code.
        body: The bytes to send, or the file to send them from.
        headers: Headers besides Content-Length and Date.
        announced_length: What Content-Length claims, if that is not the truth.
    """

    status: int
    body: bytes | Path = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    announced_length: int | None = None

    @classmethod
    def of_json(cls, content: object, status: int = 200) -> Reply:
        """An answer with a JSON body."""
        return cls(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    @classmethod
    def of_error(cls, status: int, message: str) -> Reply:
        """An answer that says what is wrong, as GraphQL says it."""
        return cls.of_json({"errors": [{"message": message}]}, status)

    @property
    def size(self) -> int:
        """How many bytes the body has."""
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)


@dataclass(frozen=True)
class Later:
    """An answer that is held back.

    Attributes:
        seconds: How long it is held back, in real seconds.
        then: What makes the answer then; it returns None to reset the connection.
    """

    seconds: float
    then: Callable[[], Reply | Later | None]
