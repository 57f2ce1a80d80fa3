"""Fetching resources of a Bolt run, one at a time and within a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from paradime_blocks.errors import BoltRequestError
from paradime_blocks.retrying import RetryPolicy, call_with_retries

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient

# Prefect's file systems take a file as a whole, so it is in memory once; the manifest of a project with ten
# thousand models has some 100 MB.
RESOURCE_LIMIT_BYTES: Final = 256 * 1024 * 1024
_POLICY: Final = RetryPolicy(attempts=3, total_seconds=20.0)


async def fetch_resource(
    client: BoltClient, resource_id: int, limit_bytes: int = RESOURCE_LIMIT_BYTES
) -> bytes:
    """Stream a resource into memory, as far as the limit allows.

    Args:
        client: The workspace's client.
        resource_id: The resource.
        limit_bytes: The largest size to take.

    Raises:
        BoltError: It could not be fetched, or is larger; nothing of it is kept then.
    """

    async def fetch() -> bytes:
        content = bytearray()
        async with client.stream_bolt_resource(resource_id) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > limit_bytes:
                    msg = f"Resource {resource_id} is larger than {limit_bytes:,} bytes."
                    raise BoltRequestError(msg, guidance="")
        return bytes(content)

    return await call_with_retries(fetch, _POLICY)
