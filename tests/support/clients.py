"""Clients that do not wait between their tries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from paradime_blocks import BoltClient
from paradime_blocks.client.retry import RetryPolicy

if TYPE_CHECKING:
    from paradime_blocks.testing import BoltSimulator


class Naps(list[float]):
    """Takes the place of a sleep: notes how long it was to be, and is over at once."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await anyio.lowlevel.checkpoint()


def client_for(target: BoltSimulator | str, **options: Any) -> BoltClient:
    """A client of a simulator, or of an endpoint that no credentials are needed for, whose waits have no jitter."""
    if isinstance(target, str):
        endpoint, key, secret = target, "a-key", "a-secret"
    else:
        endpoint, key, secret = target.api_endpoint, target.api_key, target.api_secret
    good = {"api_key": key, "api_secret": secret, "retry_policy": RetryPolicy(random=lambda: 1.0)}
    return BoltClient(endpoint, **{**good, **options})
