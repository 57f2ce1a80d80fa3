"""The resources of a run: a link to each, those of dbt read, and those that are wanted kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import anyio

from paradime_blocks import BoltClient, BoltError
from paradime_blocks.client.downloads import FILE_LIMIT_BYTES, RESOURCE_LIMIT_BYTES, fetch_to_file
from paradime_blocks.models import BoltResourceSummary
from paradime_blocks.text import cell, one_line
from paradime_flows.prefect_api import artifact_url
from paradime_flows.reporting.archive_context import ArchiveContext
from paradime_flows.reporting.dbt_results import DbtStory, Kind, kind_of, manifest_command
from paradime_flows.reporting.links import link_expiry, safe_url

# In a row: a store that is out of reach is not waited for with each file.
_REFUSALS_AT_MOST: Final = 3


@dataclass(frozen=True)
class _Found:
    """A resource, and the command that left it."""

    n: int
    command: str
    resource: BoltResourceSummary

    @property
    def kind(self) -> Kind | None:
        return kind_of(self.resource.path)

    @property
    def told(self) -> str:
        return f"{one_line(self.resource.path)} of command {self.n}, {one_line(self.command)}"


@dataclass
class ResourceArchive:
    """Archives the resources of a run, one at a time.

    Attributes:
        context: The archive.
        story: What is read of dbt's files.
    """

    context: ArchiveContext
    story: DbtStory = field(default_factory=DbtStory)
    _refusals: int = 0

    async def archive(self, client: BoltClient, resources: Sequence[BoltResourceSummary]) -> None:
        """Link the resources, then fetch those that are read or kept.

        Args:
            client: The workspace's client.
            resources: The resources, in the order of the commands.
        """
        numbered = {command.id: (n, command.command) for n, command in enumerate(self.context.commands, 1)}
        found = [_Found(*numbered[resource.command_id], resource) for resource in resources]
        if not found:
            return
        await self._link(client, found)
        manifests = [each.n for each in found if each.kind == "manifest"]
        chosen = manifest_command(self.context.commands, manifests)
        wanted = []
        # The manifest that is read comes first: it knows the paths of what the others tell of.
        for each in sorted(found, key=lambda each: not (each.kind == "manifest" and each.n == chosen)):
            kind = each.kind if each.kind != "manifest" or each.n == chosen else None
            keep = self.context.storage is not None and self.context.storage.wanted(each.resource.path)
            if kind or keep:
                wanted.append((each, kind, keep))
        for at, (each, kind, keep) in enumerate(wanted):
            if self._refusals >= _REFUSALS_AT_MOST:
                msg = "the store refused or failed those before."
                self.context.missed(f"{len(wanted) - at} more resources", ValueError(msg))
                return
            await self._fetch(client, each, kind, keep=keep)

    async def _link(self, client: BoltClient, found: Sequence[_Found]) -> None:
        context = self.context
        errors: dict[int, BoltError] = {}
        try:
            ids = [each.resource.id for each in found]
            urls = await client.get_bolt_resource_urls(ids, errors=errors)
        except BoltError as error:
            context.missed("the links to the resources", error)
            return
        for each in found:
            path = each.resource.path
            if each.resource.id in errors:
                context.missed(f"the link to {each.told}", errors[each.resource.id])
                continue
            url = safe_url(urls[each.resource.id])
            if url is None:
                context.missed(f"the link to {each.told}", ValueError("Bolt gave no web address."))
                continue
            expires_at = link_expiry(url)
            try:
                written = await context.writer.link(
                    context.key("link", str(each.n), path),
                    cell(f"{path} of {each.command}", 400),
                    url,
                    f"{cell(each.told, 400)} of Bolt run {context.record.run_id}. {_expires(expires_at)}",
                )
            except Exception as error:  # noqa: BLE001 - one link must not keep the rest from being archived
                context.missed(f"the link to {each.told}", error)
            else:
                context.file(each.n, path, page=artifact_url(written), expires_at=expires_at)

    async def _fetch(self, client: BoltClient, each: _Found, kind: Kind | None, *, keep: bool) -> None:
        context = self.context
        path = each.resource.path
        # By way of a file: what is only kept may be larger than memory.
        with TemporaryDirectory(prefix="bolt-resource-") as folder:
            source = Path(folder, "content")
            limit = FILE_LIMIT_BYTES if keep else RESOURCE_LIMIT_BYTES
            try:
                size = await fetch_to_file(client, each.resource.id, source, limit)
            except (BoltError, OSError) as error:
                self._refusals += 1
                context.missed(each.told, error)
                return
            self._refusals = 0
            context.file(each.n, path, size=size)
            if keep:
                await context.keep(each.n, each.command, path, source)
            if kind is None:
                return
            try:
                if size > RESOURCE_LIMIT_BYTES:
                    msg = f"it has {size:,} bytes, which is too much to be read."
                    raise ValueError(msg)  # noqa: TRY301 - told like what cannot be read for other reasons
                self.story.read(kind, await anyio.Path(source).read_bytes(), each.command)
            except (ValueError, OSError) as error:
                context.missed(each.told, error)


def _expires(moment: datetime | None) -> str:
    if moment is None:
        return "The link expires; when, it does not say."
    return f"The link expires on {moment:%Y-%m-%d at %H:%M:%S} UTC."
