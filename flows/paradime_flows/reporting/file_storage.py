"""Stores files of a Bolt run through a Prefect file system block, because Bolt's links to the files expire."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

import anyio
from prefect.filesystems import LocalFileSystem, WritableFileSystem
from slugify import slugify

from paradime_flows.reporting.archive_settings import reference_of
from paradime_flows.reporting.uploads import upload

_UNSAFE: Final = re.compile(r"[^\w.+=@, -]")
_SEPARATORS: Final = re.compile(r"[/\\]")
# The URL scheme and the name of the field for the bucket, in the blocks of Prefect's AWS, GCP and Azure integrations.
_BUCKETS: Final = (("s3", "bucket_name"), ("gs", "bucket"), ("azure", "container_name"))
_LONGEST_PART: Final = 100
# File systems accept names of up to 255 bytes. Our limit is lower, because a number may be added to the name.
_LONGEST_PART_BYTES: Final = 240


@dataclass(frozen=True)
class StoredFile:
    """A file that was stored through a file system block.

    Attributes:
        where: The file's path in the folder of the Bolt run.
        address: The file's full address, as far as the file system block contains it.
        url: A link to the file; None if a browser cannot open the file.
        size: The file's size in bytes.
    """

    where: str
    address: str
    url: str | None
    size: int


@dataclass
class Storage:
    """The place where the files of a Bolt run are stored.

    Attributes:
        filesystem: The file system block that writes the files.
        patterns: The patterns for the files to store. A pattern matches the whole path of a file, or its name.
        folder: The folder of the Bolt run, as `<schedule>/<run id>`.
    """

    filesystem: WritableFileSystem
    patterns: Sequence[str]
    folder: str
    _written: set[str] = field(default_factory=set)

    def wanted(self, path: str) -> bool:
        """Whether the path or the name of a file matches a pattern, so that the file is stored."""
        plain = path.lstrip("/")
        name = PurePosixPath(plain).name
        return any(fnmatchcase(plain, pattern) or fnmatchcase(name, pattern) for pattern in self.patterns)

    async def write(self, n: int, command: str, path: str, source: Path) -> StoredFile:
        """Store a copy of a file.

        Args:
            n: The command's number in its Bolt run.
            command: The command that wrote the file.
            path: The file's path, as Bolt returns it.
            source: The local copy of the file.

        Raises:
            Exception: The file system raised any kind of error.
        """
        where = f"{n}-{slugify(command)[:_LONGEST_PART]}/{safe_path(*_SEPARATORS.split(path))}"
        # `safe_path` may return the same path for two different paths.
        if where in self._written:
            where = f"{where}.{len(self._written)}"
        self._written.add(where)
        below = f"{self.folder}/{where}"
        await upload(self.filesystem, source, below)
        size = (await anyio.Path(source).stat()).st_size
        return StoredFile(where, address_of(self.filesystem, below), url_of(self.filesystem, below), size)


def folder_of(schedule_name: str | None, run_id: int) -> str:
    """Return the path of the folder in which the files of a Bolt run are stored."""
    return f"{safe_path(schedule_name or 'unnamed')}/{run_id}"


def safe_path(*parts: str) -> str:
    """Return a relative path that cannot leave its folder, even if Bolt returns parts that would leave the folder.

    Each part becomes one name. The name has no separators, control characters or characters with a special meaning in
    file systems or shells. Empty parts, "." and ".." are left out.
    """
    names = []
    for part in parts:
        name = _cut(_UNSAFE.sub("_", part).strip(" .")).rstrip(" .")
        # `strip` above has also removed the dot from ".env", and both dots from "..".
        if name:
            names.append(f"_{name[1:]}" if name[0] in "-=@+," else name)
    return "/".join(names) or "unnamed"


def _cut(name: str) -> str:
    return name[:_LONGEST_PART].encode()[:_LONGEST_PART_BYTES].decode(errors="ignore")


def address_of(filesystem: WritableFileSystem, path: str) -> str:
    """Return the full address of a path, as far as the file system block contains it.

    Args:
        filesystem: The file system block.
        path: A path in the file system.
    """
    if isinstance(filesystem, LocalFileSystem):
        return str(filesystem._resolve_path(path))  # noqa: SLF001 - no public name
    base = getattr(filesystem, "basepath", None)
    if isinstance(base, str) and "://" in base:
        return f"{base.rstrip('/')}/{path}"
    for scheme, name in _BUCKETS:
        bucket = getattr(filesystem, name, None)
        if bucket and isinstance(bucket, str):
            folder = getattr(filesystem, "bucket_folder", None) or getattr(filesystem, "base_folder", None)
            below = str(folder or "").strip("/")
            return f"{scheme}://{bucket}/{below}{'/' if below else ''}{path}"
    return f"{reference_of(filesystem) or type(filesystem).__name__}: {path}"


def url_of(filesystem: WritableFileSystem, path: str) -> str | None:
    """Return a link to a path in a file system; None if a browser cannot open files of this file system.

    Args:
        filesystem: The file system block.
        path: A path in the file system.
    """
    if isinstance(filesystem, LocalFileSystem):
        return filesystem._resolve_path(path).as_uri()  # noqa: SLF001 - no public name
    return None
