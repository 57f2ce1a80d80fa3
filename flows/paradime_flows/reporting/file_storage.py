"""Stores files of a Bolt run through a Prefect file system block, before their links expire."""

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
# The field of the bucket in the blocks of Prefect's AWS, GCP and Azure integrations.
_BUCKETS: Final = (("s3", "bucket_name"), ("gs", "bucket"), ("azure", "container_name"))
_LONGEST_PART: Final = 100
# File systems accept names of 255 bytes. The limit here is lower, because a number may follow the name.
_LONGEST_PART_BYTES: Final = 240


@dataclass(frozen=True)
class StoredFile:
    """A stored file.

    Attributes:
        where: The file's path in the run's folder.
        address: The file's whole address, as far as the file system can tell it.
        url: The address as a link, if a browser can open the link.
        size: The file's size in bytes.
    """

    where: str
    address: str
    url: str | None
    size: int


@dataclass
class Storage:
    """The place where a run's files are stored.

    Attributes:
        filesystem: The block that writes the files.
        patterns: The patterns of the resources to store. A pattern matches the whole path or the file's name.
        folder: The run's folder, as `<schedule>/<run id>`.
    """

    filesystem: WritableFileSystem
    patterns: Sequence[str]
    folder: str
    _written: set[str] = field(default_factory=set)

    def wanted(self, path: str) -> bool:
        """Whether a resource matches a pattern."""
        plain = path.lstrip("/")
        name = PurePosixPath(plain).name
        return any(fnmatchcase(plain, pattern) or fnmatchcase(name, pattern) for pattern in self.patterns)

    async def write(self, n: int, command: str, path: str, source: Path) -> StoredFile:
        """Store a file.

        Args:
            n: The command's number in its run.
            command: The command.
            path: The file's path, as Bolt returns it.
            source: The local copy of the file.

        Raises:
            Exception: Any error of the file system.
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
    """Return the folder of a run's storage."""
    return f"{safe_path(schedule_name or 'unnamed')}/{run_id}"


def safe_path(*parts: str) -> str:
    """Return a relative path that cannot leave its folder, even if the parts, which are remote text, try to do so.

    Each part becomes one name without separators, control characters and characters with a special meaning in file
    systems or shells. Empty parts, "." and ".." are left out.
    """
    names = []
    for part in parts:
        name = _cut(_UNSAFE.sub("_", part).strip(" .")).rstrip(" .")
        # `strip` above has also removed the dot of ".env", and both dots of "..".
        if name:
            names.append(f"_{name[1:]}" if name[0] in "-=@+," else name)
    return "/".join(names) or "unnamed"


def _cut(name: str) -> str:
    return name[:_LONGEST_PART].encode()[:_LONGEST_PART_BYTES].decode(errors="ignore")


def address_of(filesystem: WritableFileSystem, path: str) -> str:
    """Return the whole address of a path, as far as the file system can tell it.

    Args:
        filesystem: The file system.
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
    """Return a link to a path; None if a browser cannot open paths of its file system.

    Args:
        filesystem: The file system.
        path: A path in the file system.
    """
    if isinstance(filesystem, LocalFileSystem):
        return filesystem._resolve_path(path).as_uri()  # noqa: SLF001 - no public name
    return None
