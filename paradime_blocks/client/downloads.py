"""Fetches resources of a Bolt run, one at a time, up to a largest size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from paradime_blocks.client.retry import RetryPolicy, Sleep, call_with_retries
from paradime_blocks.errors import BoltRequestError

if TYPE_CHECKING:
    from pathlib import Path

    from paradime_blocks.client import BoltClient

# The limit for a file that this package reads: the whole file is in memory. The manifest of a project with ten thousand
# models has about 100 MB.
RESOURCE_LIMIT_BYTES: Final = 256 * 1024 * 1024
# The limit for a file that this package only copies: the file is on disk in the meantime. The limit keeps a file
# without an end from filling the disk.
FILE_LIMIT_BYTES: Final = 10 * 1024**3
_POLICY: Final = RetryPolicy(attempts=3, total_seconds=20.0)


async def fetch_resource(
    client: BoltClient, resource_id: int, limit_bytes: int = RESOURCE_LIMIT_BYTES
) -> bytes:
    """Stream a resource into memory, up to a largest size.

    Args:
        client: The workspace's client.
        resource_id: The id of the resource.
        limit_bytes: The largest size that is accepted, in bytes.

    Raises:
        BoltError: The resource could not be fetched, or is larger than the limit. No part of the resource is kept.
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
    url: str | None = None,
    sleep: Sleep = anyio.sleep,
) -> int:
    """Stream a resource into a file. Only about one chunk of the resource is in memory at a time.

    Args:
        client: The workspace's client.
        resource_id: The id of the resource.
        target: The file to write. The former content of the file is lost.
        limit_bytes: The largest size that is accepted, in bytes.
        url: A signed URL for the first try. Each further try asks for a new URL, since this one may have expired.
        sleep: Waits between two tries. Tests replace this function.

    Returns:
        The resource's size in bytes.

    Raises:
        BoltError: The resource could not be fetched, or is larger than the limit. The file may contain a part of the
            resource.
        OSError: The file cannot be written.
    """

    async def fetch() -> int:
        nonlocal url
        size = 0
        first, url = url, None
        async with (
            await anyio.open_file(target, "wb") as file,
            client.stream_bolt_resource(resource_id, first) as chunks,
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
