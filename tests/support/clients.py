"""Clients that do not wait between attempts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from paradime_blocks.client import BoltClient, ConnectionSettings, auth_for
from paradime_blocks.client.retry import RetryPolicy

if TYPE_CHECKING:
    from paradime_blocks.testing import BoltSimulator


_SETTINGS = {field.name for field in dataclasses.fields(ConnectionSettings)}


class Naps(list[float]):
    """Replaces a sleep: records the requested time and returns at once."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await anyio.lowlevel.checkpoint()


def client_for(target: BoltSimulator | str, **options: Any) -> BoltClient:
    """A client of a simulator, or of an endpoint without credentials. Its waits have no jitter.

    Args:
        target: The simulator or the endpoint.
        options: Options of the client, of its settings, and of its credentials.
    """
    if isinstance(target, str):
        endpoint, key, secret = target, "a-key", "a-secret"
    else:
        endpoint, key, secret = target.api_endpoint, target.api_key, target.api_secret
    auth = {"api_key": key, "api_secret": secret, "workspace_uid": None}
    auth = {name: options.pop(name, value) for name, value in auth.items()}
    settings = {name: options.pop(name) for name in _SETTINGS if name in options}
    options = {"retry_policy": RetryPolicy(random=lambda: 1.0), **options}
    settings = {"api_endpoint": endpoint, "auth": auth_for(**auth), **settings}
    return BoltClient(ConnectionSettings(**settings), **options)
