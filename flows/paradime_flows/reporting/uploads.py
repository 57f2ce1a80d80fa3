"""Writes files to a Prefect file system block. If the block allows it, a file is never in memory as a whole.

Every file system block has the method `write_path`, which takes the whole content of a file. Prefect's own blocks can
also write a file piece by piece. The blocks of Prefect's AWS, GCP and Azure integrations can upload an open file.
"""

from __future__ import annotations

import inspect
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeGuard, TypeVar

import anyio
from prefect.filesystems import SMB, LocalFileSystem, RemoteFileSystem, WritableFileSystem

T = TypeVar("T")
# The largest size of a file that is written with `write_path`, which needs the whole content of the file in memory.
WHOLE_LIMIT_BYTES: Final = 256 * 1024 * 1024


async def upload(filesystem: WritableFileSystem, source: Path, path: str) -> None:
    """Write a file to a file system. If a file with the same path exists, replace this file.

    Args:
        filesystem: The file system block.
        source: The path of the local file.
        path: The path in the file system.

    Raises:
        ValueError: The block accepts only the whole content of a file, and the file is too large for this.
        Exception: The file system raised any kind of error.
    """
    if _is(filesystem, LocalFileSystem):
        target = filesystem._resolve_path(path)  # noqa: SLF001 - no public name
        await anyio.to_thread.run_sync(_copy, source, target)
    elif _is(filesystem, RemoteFileSystem):
        await anyio.to_thread.run_sync(_put, source, filesystem, path)
    elif _is(filesystem, SMB):
        await upload(filesystem.filesystem, source, path)
    elif hasattr(filesystem, "upload_from_file_object"):
        # Only Azure needs this option to replace a file. The `write_path` of the Azure block sets it, too.
        options = {"overwrite": True} if hasattr(filesystem, "container_name") else {}
        with source.open("rb") as file:
            await _call(filesystem, "upload_from_file_object", file, path, **options)
    elif hasattr(filesystem, "upload_from_path"):
        await _call(filesystem, "upload_from_path", source, path)
    else:
        whole = anyio.Path(source)
        size = (await whole.stat()).st_size
        if size > WHOLE_LIMIT_BYTES:
            msg = (
                f"The block {type(filesystem).__name__} can only write a file as a whole, "
                f"and the file is too large for this: {size:,} bytes."
            )
            raise ValueError(msg)
        await _call(filesystem, "write_path", path, await whole.read_bytes())


def _is(filesystem: object, kind: type[T]) -> TypeGuard[T]:
    """Whether a block uses the `write_path` of Prefect's own class. A subclass may have a `write_path` of its own."""
    own: Any = type(filesystem)
    known: Any = kind
    return isinstance(filesystem, kind) and own.write_path is known.write_path


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _put(source: Path, filesystem: RemoteFileSystem, path: str) -> None:
    target = filesystem._resolve_path(path)  # noqa: SLF001 - no public name
    filesystem.filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
    with source.open("rb") as file, filesystem.filesystem.open(target, "wb") as written:
        shutil.copyfileobj(file, written)


async def _call(filesystem: WritableFileSystem, name: str, *arguments: Any, **options: Any) -> None:
    """Call the async form of a block's method. If the method has only a sync form, call the method in a thread."""
    method = getattr(filesystem, f"a{name}", None) or getattr(filesystem, name)
    # If a method has a sync form and an async form, Prefect stores the async form, unbound, in the attribute `aio`.
    both = getattr(method, "aio", None)
    if both is not None:
        method = partial(both, filesystem)
    if inspect.iscoroutinefunction(method):
        await method(*arguments, **options)
    else:
        done = await anyio.to_thread.run_sync(partial(method, *arguments, **options))
        if inspect.isawaitable(done):
            await done
