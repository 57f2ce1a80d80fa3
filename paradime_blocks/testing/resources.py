"""Signed links to resources, like those of object stores."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import parse_qs, quote, unquote, urlsplit

from .clock import Clock

PREFIX = "/storage/bolt-resources/"


class SignedPaths:
    """Makes and checks paths that are valid for some time and cannot be guessed.

    Example:
        >>> paths = SignedPaths(Clock(speed=0), lifetime_seconds=60)
        >>> paths.check(paths.sign(2023484, "target/manifest.json"))
        2023484
    """

    def __init__(self, clock: Clock, lifetime_seconds: float) -> None:
        """Create a signing key.

        Args:
            clock: The clock of the simulator.
            lifetime_seconds: How long a path is valid, in virtual seconds.
        """
        self._clock = clock
        self._lifetime = lifetime_seconds
        self._key = secrets.token_bytes(16)

    def sign(self, resource_id: int, name: str) -> str:
        """Return the path and query string for a resource."""
        path = f"{PREFIX}{resource_id}/{quote(name)}"
        expires = f"{self._clock.seconds() + self._lifetime:.3f}"
        return f"{path}?X-Expires={expires}&X-Signature={self._signature(path, expires)}"

    def check(self, target: str) -> int | None:
        """Return the id of the path's resource; None if the path is forged or has expired."""
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        expires, signature = query.get("X-Expires", [""])[0], query.get("X-Signature", [""])[0]
        # A client may encode the path in another, equivalent way.
        path = quote(unquote(parts.path))
        if not hmac.compare_digest(signature.encode(), self._signature(path, expires).encode()):
            return None
        if float(expires) < self._clock.seconds():
            return None
        return int(path.removeprefix(PREFIX).split("/")[0])

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
