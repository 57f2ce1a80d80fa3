"""The settings of an archive. A label of the flow run stores the settings, so that another process can read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prefect.blocks.core import Block, UnknownBlockType
from prefect.filesystems import WritableFileSystem
from pydantic import BaseModel, Field, PrivateAttr

from paradime_blocks import BoltRequestError
from paradime_flows.parameters import LINK_LIMIT, LOG_LIMIT_BYTES, ArchiveOptions
from paradime_flows.prefect_api import filled

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_STORAGE_PATTERNS: Final = ("manifest.json", "run_results.json", "sources.json", "freshness.json")
# If a caller gives only the name of a block, the block is searched in these block types, in this order: Prefect's own
# types, then the types of Prefect's integrations.
_FILESYSTEM_TYPES: Final = (
    "local-file-system",
    "remote-file-system",
    "s3-bucket",
    "gcs-bucket",
    "azure-blob-storage-container",
)


class ArchiveSettings(BaseModel):
    """What an archive contains, and where files are stored.

    Attributes:
        log_limit_bytes: The largest size of a command's log in an artifact, in bytes. A longer log is cut in the
            middle.
        link_limit: The largest number of files that get a link.
        storage: The file system block that stores the files, as `type/name`; None if no saved block stores files.
        storage_patterns: The patterns for the files to store. A pattern matches the whole path of a file, or its name.
        assets: Whether the archive reports the models, seeds and snapshots to Prefect as assets.
        node_task_runs: The largest number of dbt nodes that the flow shows as task runs.
    """

    log_limit_bytes: int = LOG_LIMIT_BYTES
    link_limit: int = LINK_LIMIT
    storage: str | None = None
    storage_patterns: list[str] = Field(default_factory=lambda: list(DEFAULT_STORAGE_PATTERNS))
    assets: bool = False
    node_task_runs: int = 0
    # A block that was created in code and not saved exists only in this process.
    _filesystem: WritableFileSystem | None = PrivateAttr(default=None)

    async def filesystem(self) -> WritableFileSystem | None:
        """Return the file system that stores the files; None if no files are stored.

        Raises:
            BoltRequestError: The block does not exist, or the block cannot write files.
        """
        if self._filesystem is None and self.storage is not None:
            self._filesystem = await load_filesystem(self.storage)
        return self._filesystem

    @classmethod
    async def resolve(cls, options: Mapping[str, Any]) -> ArchiveSettings:
        """Create the settings from a flow's options. The storage block is loaded before any Bolt run is triggered.

        Args:
            options: The flow's options. Options that are not in `ArchiveOptions` are ignored.

        Raises:
            BoltRequestError: The storage block does not exist, cannot be loaded or cannot write files.
        """
        given = filled(ArchiveOptions, options)
        storage = given["storage"]
        settings = cls(
            log_limit_bytes=given["log_limit_bytes"],
            link_limit=given["link_limit"],
            storage_patterns=list(given["storage_patterns"] or DEFAULT_STORAGE_PATTERNS),
            assets=given["assets"],
            node_task_runs=given["node_task_runs"],
        )
        if isinstance(storage, str):
            settings._filesystem = await load_filesystem(storage)
        elif storage is not None:
            settings._filesystem = storage
        if settings._filesystem is not None:
            settings.storage = reference_of(settings._filesystem)
        return settings


def reference_of(filesystem: WritableFileSystem) -> str | None:
    """Return the reference of a saved block, as `type/name`; None if the block is not saved."""
    name = filesystem._block_document_name  # noqa: SLF001 - no public name
    return f"{filesystem.get_block_type_slug()}/{name}" if name else None


async def load_filesystem(reference: str) -> WritableFileSystem:
    """Load the storage block.

    Args:
        reference: `type/name`, such as `s3-bucket/archive`, or only the name. If there is only a name, the function
            searches Prefect's own file systems, then the file systems of Prefect's AWS, GCP and Azure integrations.

    Raises:
        BoltRequestError: The block does not exist, or the block cannot write files.
    """
    slash = "/" in reference
    slugs = [reference] if slash else [f"{kind}/{reference}" for kind in _FILESYSTEM_TYPES]
    reason = ""
    for slug in slugs:
        try:
            block: object = await Block.aload(slug)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            continue
        except (UnknownBlockType, RuntimeError) as error:
            # The block's class belongs to an integration that is not installed here, or that is installed in another
            # version.
            msg = f"The storage block {slug!r} cannot be loaded: {str(error).splitlines()[0]}"
            raise BoltRequestError(msg, guidance="No Bolt run was started.") from error
        if isinstance(block, WritableFileSystem):
            return block
        msg = f"The block {slug!r} cannot store files."
        raise BoltRequestError(
            msg, guidance="Name a block that implements WritableFileSystem. No Bolt run was started."
        )
    msg = f"There is no storage block {reference!r}. {reason if slash else ''}".strip()
    guidance = "Give the block as type/name, such as local-file-system/archive. No Bolt run was started."
    raise BoltRequestError(msg, guidance=guidance)
