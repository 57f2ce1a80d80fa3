"""What to archive of a Bolt run. The settings are stored in the flow run's labels, so another process can read them."""

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
# The block types in which a name without a type is searched, in this order: Prefect's own types, then the types of
# Prefect's integrations.
_FILESYSTEM_TYPES: Final = (
    "local-file-system",
    "remote-file-system",
    "s3-bucket",
    "gcs-bucket",
    "azure-blob-storage-container",
)


class ArchiveSettings(BaseModel):
    """What to archive, and where.

    Attributes:
        log_limit_bytes: How much of a command's log an artifact holds. A longer log is cut in the middle.
        link_limit: How many files are linked.
        storage: The reference of the file system block for storage, as `type/name`.
        storage_patterns: Patterns of the resources to store. A pattern matches the whole path or the file's name.
        assets: Whether to report the models, seeds and snapshots to Prefect as assets.
    """

    log_limit_bytes: int = LOG_LIMIT_BYTES
    link_limit: int = LINK_LIMIT
    storage: str | None = None
    storage_patterns: list[str] = Field(default_factory=lambda: list(DEFAULT_STORAGE_PATTERNS))
    assets: bool = False
    # A block that was made in code and not saved. It exists only in this process.
    _filesystem: WritableFileSystem | None = PrivateAttr(default=None)

    async def filesystem(self) -> WritableFileSystem | None:
        """Return the file system for storage; None if nothing is stored.

        Raises:
            BoltRequestError: The block does not exist, or it cannot write.
        """
        if self._filesystem is None and self.storage is not None:
            self._filesystem = await load_filesystem(self.storage)
        return self._filesystem

    @classmethod
    async def resolve(cls, options: Mapping[str, Any]) -> ArchiveSettings:
        """Make settings from a flow's options. The storage block is loaded now, before anything is sent to Bolt.

        Args:
            options: The flow's options. Options that are not in `ArchiveOptions` are ignored.

        Raises:
            BoltRequestError: The block for storage cannot be used.
        """
        given = filled(ArchiveOptions, options)
        storage = given["storage"]
        settings = cls(
            log_limit_bytes=given["log_limit_bytes"],
            link_limit=given["link_limit"],
            storage_patterns=list(given["storage_patterns"] or DEFAULT_STORAGE_PATTERNS),
            assets=given["assets"],
        )
        if isinstance(storage, str):
            settings._filesystem = await load_filesystem(storage)
        elif storage is not None:
            settings._filesystem = storage
        if settings._filesystem is not None:
            settings.storage = reference_of(settings._filesystem)
        return settings


def reference_of(filesystem: WritableFileSystem) -> str | None:
    """Return a saved block's reference, `type/name`; None if the block is not saved."""
    name = filesystem._block_document_name  # noqa: SLF001 - no public name
    return f"{filesystem.get_block_type_slug()}/{name}" if name else None


async def load_filesystem(reference: str) -> WritableFileSystem:
    """Load the storage block.

    Args:
        reference: `type/name`, such as `s3-bucket/archive`; or only the name. A name is searched in Prefect's own file
            systems, and in the file systems of its AWS, GCP and Azure integrations.

    Raises:
        BoltRequestError: The block does not exist, or it cannot write.
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
            # The class of the block belongs to an integration that is not installed here, or to another version of it.
            msg = f"The storage block {slug!r} cannot be loaded: {str(error).splitlines()[0]}"
            raise BoltRequestError(msg, guidance="Nothing was sent.") from error
        if isinstance(block, WritableFileSystem):
            return block
        msg = f"The block {slug!r} cannot store files."
        raise BoltRequestError(
            msg, guidance="Name a block that implements WritableFileSystem. Nothing was sent."
        )
    msg = f"There is no storage block {reference!r}. {reason if slash else ''}".strip()
    guidance = "Give it as type/name, such as local-file-system/archive. Nothing was sent."
    raise BoltRequestError(msg, guidance=guidance)
