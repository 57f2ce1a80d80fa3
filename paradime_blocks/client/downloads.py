"""Fetching resources of a Bolt run, one at a time and within a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from paradime_blocks.client.retry import RetryPolicy, Sleep, call_with_retries
from paradime_blocks.errors import BoltRequestError

if TYPE_CHECKING:
    from pathlib import Path

    from paradime_blocks.client import BoltClient

# What is read is in memory as a whole; the manifest of a project with ten thousand models has some 100 MB.
RESOURCE_LIMIT_BYTES: Final = 256 * 1024 * 1024
# What is only passed on lies on disk meanwhile; a file without an end must not fill it.
FILE_LIMIT_BYTES: Final = 10 * 1024**3
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
                _check_size(resource_id, len(content), limit_bytes)
        return bytes(content)

    return await call_with_retries(fetch, _POLICY)


async def fetch_to_file(
    client: BoltClient,
    resource_id: int,
    target: Path,
    limit_bytes: int = FILE_LIMIT_BYTES,
    *,
    sleep: Sleep = anyio.sleep,
) -> int:
    """Stream a resource into a file, of which hardly more than a chunk is in memory at a time.

    Args:
        client: The workspace's client.
        resource_id: The resource.
        target: The file; whatever it held is gone.
        limit_bytes: The largest size to take.
        sleep: How to wait between tries; for tests.

    Returns:
        The resource's size in bytes.

    Raises:
        BoltError: It could not be fetched, or is larger; the file may hold a part of it then.
        OSError: The file cannot be written.
    """

    async def fetch() -> int:
        size = 0
        async with (
            await anyio.open_file(target, "wb") as file,
            client.stream_bolt_resource(resource_id) as chunks,
        ):
            async for chunk in chunks:
                size += len(chunk)
                _check_size(resource_id, size, limit_bytes)
                await file.write(chunk)
        return size

    return await call_with_retries(fetch, _POLICY, sleep=sleep)


def _check_size(resource_id: int, size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        msg = f"Resource {resource_id} is larger than {limit_bytes:,} bytes."
        raise BoltRequestError(msg, guidance="")
