"""Storage in file systems of every kind: what arrives, how much memory it takes, which address is reported."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from prefect.filesystems import LocalFileSystem, RemoteFileSystem, WritableFileSystem
from pydantic import PrivateAttr
from support.clients import Naps

from paradime_blocks.client.downloads import fetch_to_file
from paradime_blocks.errors import BoltRequestError, BoltUnavailable
from paradime_flows.reporting import uploads
from paradime_flows.reporting.file_storage import Storage
from paradime_flows.reporting.uploads import upload

CONTENT = bytes(range(256)) * 1000


class Keeping(WritableFileSystem):
    """A file system in memory, as a user may write one."""

    _files: dict[str, bytes] = PrivateAttr(default_factory=dict)
    _threads: set[int] = PrivateAttr(default_factory=set)

    async def read_path(self, path: str) -> bytes:
        return self._files[path]

    async def write_path(self, path: str, content: bytes) -> None:
        self._files[path] = content


class SyncKeeping(Keeping):
    """One with sync methods: its work must not block the event loop."""

    def write_path(self, path: str, content: bytes) -> None:  # type: ignore[override]
        self._threads.add(threading.get_ident())
        self._files[path] = content


class S3Like(SyncKeeping):
    """The common part of the S3, GCS and Azure blocks: an upload from an open file."""

    bucket_name: str = "bucket"
    bucket_folder: str = "archive"

    def write_path(self, path: str, content: bytes) -> None:  # type: ignore[override]
        msg = "The file must not be requested as a whole."
        raise AssertionError(msg)

    def upload_from_file_object(self, from_file_object: BinaryIO, to_path: str) -> str:
        self._threads.add(threading.get_ident())
        self._files[to_path] = b"".join(iter(lambda: from_file_object.read(65536), b""))
        # As boto3 does.
        from_file_object.close()
        return to_path


class AsyncS3Like(S3Like):
    """It also has an async form, as newer releases do."""

    async def aupload_from_file_object(self, from_file_object: BinaryIO, to_path: str) -> str:
        self._files[to_path] = from_file_object.read()
        return to_path

    def upload_from_file_object(self, from_file_object: BinaryIO, to_path: str) -> str:
        raise AssertionError


class AzureLike(Keeping):
    """Its upload replaces a file only on request."""

    container_name: str = "container"

    async def upload_from_file_object(
        self, from_file_object: BinaryIO, to_path: str, *, overwrite: bool = False
    ) -> str:
        if to_path in self._files and not overwrite:
            raise FileExistsError(to_path)
        self._files[to_path] = from_file_object.read()
        return to_path


class PathUploading(Keeping):
    """Uploads files by their path."""

    async def upload_from_path(self, from_path: Path, to_path: str) -> str:
        self._files[to_path] = Path(from_path).read_bytes()  # noqa: ASYNC240
        return to_path


class Encrypting(LocalFileSystem):
    """Derived from Prefect's own, but it changes what is written."""

    _block_type_name = "Encrypting file system of a test"
    _block_type_slug = "encrypting-file-system-of-a-test"

    async def awrite_path(self, path: str, content: bytes) -> str:
        return await super().awrite_path(path, content[::-1])

    async def write_path(self, path: str, content: bytes) -> str:  # type: ignore[override]
        return await self.awrite_path(path, content)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to store."""
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(Keeping, id="write_path"),
        pytest.param(SyncKeeping, id="sync write_path"),
        pytest.param(S3Like, id="sync upload"),
        pytest.param(AsyncS3Like, id="sync and async upload"),
        pytest.param(AzureLike, id="async upload"),
        pytest.param(PathUploading, id="upload by path"),
    ],
)
async def test_a_file_arrives_whatever_methods_the_block_has(
    make: Callable[[], Keeping], source: Path
) -> None:
    """The way with the least memory is used; a second file replaces the first."""
    filesystem = make()
    for content in (b"before", CONTENT):
        source.write_bytes(content)  # noqa: ASYNC240
        await upload(filesystem, source, "daily/7/a.json")
    assert filesystem._files == {"daily/7/a.json": CONTENT}
    assert threading.get_ident() not in filesystem._threads


async def test_prefects_own_file_systems_are_written_piece_by_piece(source: Path, tmp_path: Path) -> None:
    """These are local folders and everything that fsspec reaches; the names are those of `write_path`."""
    local = LocalFileSystem(basepath=str(tmp_path / "local"))
    memory = RemoteFileSystem(basepath="memory://storage")
    for filesystem in (local, memory):
        await upload(filesystem, source, "daily/7/a.json")
    assert (tmp_path / "local/daily/7/a.json").read_bytes() == CONTENT
    assert await memory.aread_path("daily/7/a.json") == CONTENT


async def test_a_block_derived_from_prefects_own_is_used_through_its_methods(
    source: Path, tmp_path: Path
) -> None:
    """Its `write_path` is called: it may encrypt, compress or count."""
    await upload(Encrypting(basepath=str(tmp_path / "kept")), source, "a.json")
    assert (tmp_path / "kept/a.json").read_bytes() == CONTENT[::-1]


async def test_a_file_too_large_for_memory_is_refused_by_some_blocks(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only such a block refuses it; the reason names the block."""
    monkeypatch.setattr(uploads, "WHOLE_LIMIT_BYTES", 1000)
    with pytest.raises(
        ValueError, match=r"The block Keeping can only write a file as a whole.*: 256,000 bytes\."
    ):
        await upload(Keeping(), source, "a.json")
    await upload(S3Like(), source, "a.json")


@pytest.mark.parametrize(
    "filesystem, address",
    [
        pytest.param(S3Like(), "s3://bucket/archive/daily/7/1-dbt-run/a.json", id="s3"),
        pytest.param(AzureLike(), "azure://container/daily/7/1-dbt-run/a.json", id="azure"),
        pytest.param(
            RemoteFileSystem(basepath="memory://storage/"),
            "memory://storage/daily/7/1-dbt-run/a.json",
            id="fsspec",
        ),
        pytest.param(Keeping(), "Keeping: daily/7/1-dbt-run/a.json", id="unknown"),
    ],
)
async def test_a_stored_file_has_its_whole_address(
    filesystem: WritableFileSystem, address: str, source: Path
) -> None:
    """It has bucket, folder and name; an address that a browser cannot open is not a link."""
    kept = await Storage(filesystem, ["*"], "daily/7").write(1, "dbt run", "a.json", source)
    assert (kept.address, kept.url, kept.size) == (address, None, len(CONTENT))


async def test_a_local_stored_file_is_a_link(source: Path, tmp_path: Path) -> None:
    """No folder name can break the markdown link."""
    filesystem = LocalFileSystem(basepath=str(tmp_path / "kept (old)"))
    kept = await Storage(filesystem, ["*"], "my daily/7").write(1, "dbt run", "a.json", source)
    assert kept.address == str(tmp_path / "kept (old)/my daily/7/1-dbt-run/a.json")
    assert kept.url == f"{tmp_path.as_uri()}/kept%20%28old%29/my%20daily/7/1-dbt-run/a.json"


class Streaming:
    """A client with one resource of this many chunks; the first tries fail."""

    def __init__(self, chunks: int, failures: int = 0) -> None:
        self.chunks = chunks
        self.failures = failures

    @asynccontextmanager
    async def stream_bolt_resource(
        self, resource_id: int, url: str | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        del resource_id, url
        yield self._content()

    async def _content(self) -> AsyncIterator[bytes]:
        for n in range(self.chunks):
            if n == 2 and self.failures:
                self.failures -= 1
                msg = "It broke off."
                raise BoltUnavailable(msg, retry_after_seconds=0)
            yield n.to_bytes(4, "big") * 16384


async def test_an_interrupted_download_starts_again(tmp_path: Path, naps: Naps) -> None:
    """The file has the resource once, without a part of it in front."""
    client: Any = Streaming(5, failures=2)
    assert await fetch_to_file(client, 1, tmp_path / "file", sleep=naps) == 5 * 65536
    assert len(naps) == 2
    assert (tmp_path / "file").read_bytes() == b"".join(n.to_bytes(4, "big") * 16384 for n in range(5))


async def test_an_endless_download_is_stopped(tmp_path: Path) -> None:
    """It must not fill the disk."""
    client: Any = Streaming(1_000_000)
    with pytest.raises(BoltRequestError, match="larger than 1,000,000 bytes"):
        await fetch_to_file(client, 1, tmp_path / "file", 1_000_000)


async def test_a_large_resource_is_never_in_memory(tmp_path: Path) -> None:
    """From the store to the stored file, hardly more than a chunk is in memory at a time."""
    storage = Storage(LocalFileSystem(basepath=str(tmp_path / "kept")), ["*"], "daily/7")

    async def keep(chunks: int) -> int:
        client: Any = Streaming(chunks)
        size = await fetch_to_file(client, 1, tmp_path / "file")
        kept = await storage.write(1, "dbt run", "a.json", tmp_path / "file")
        assert kept.size == size
        return size

    # Memory for imports does not count.
    await keep(1)
    tracemalloc.start()
    try:
        assert await keep(40) == 40 * 65536
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
