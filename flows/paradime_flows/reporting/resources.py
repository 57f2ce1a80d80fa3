"""Archives the resources of a Bolt run: links to all files, dbt's results, copies of the files that match patterns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import anyio

from paradime_blocks import BoltClient, BoltError, BoltResourceSummary
from paradime_blocks.client.downloads import FILE_LIMIT_BYTES, RESOURCE_LIMIT_BYTES, fetch_to_file
from paradime_blocks.text import cell
from paradime_flows.prefect_api import artifact_url
from paradime_flows.reporting.archive_context import ArchiveContext
from paradime_flows.reporting.dbt_results import DbtStory, Kind, kind_of, manifest_command
from paradime_flows.reporting.links import link_expiry, safe_url
from paradime_flows.reporting.markdown import and_more, moment, table

# After this many failed downloads in a row, no more downloads are tried, because the file store is probably
# unreachable.
_REFUSALS_AT_MOST: Final = 3
_RESULTS: Final = ("results", "freshness")


@dataclass(frozen=True)
class _Found:
    """A resource, and the command that wrote the resource."""

    n: int
    command: str
    resource: BoltResourceSummary

    @property
    def kind(self) -> Kind | None:
        return kind_of(self.resource.path)

    @property
    def title(self) -> str:
        return f"{self.resource.path} of command {self.n}, {self.command}"


@dataclass
class ResourceArchive:
    """Archives the resources of a Bolt run, one resource at a time.

    Attributes:
        context: The context of the archive.
        story: The dbt results that were read from the resources.
    """

    context: ArchiveContext
    story: DbtStory = field(default_factory=DbtStory)
    _refusals: int = 0
    _urls: dict[int, str] = field(default_factory=dict)
    _url_errors: dict[int, BoltError] = field(default_factory=dict)

    async def archive(self, client: BoltClient, resources: Sequence[BoltResourceSummary]) -> None:
        """Write the artifact with the links to the resources. Then download the resources that are read or stored.

        Args:
            client: An open client for the Bolt run's workspace.
            resources: The resources, in the order of the commands.
        """
        numbered = {command.id: (n, command.command) for n, command in enumerate(self.context.commands, 1)}
        found = [_Found(*numbered[resource.command_id], resource) for resource in resources]
        if not found:
            return
        manifests = [each.n for each in found if each.kind == "manifest"]
        chosen = manifest_command(self.context.commands, manifests)
        wanted = []
        # The manifest is read first, because the results show paths from the manifest.
        for each in sorted(found, key=lambda each: not (each.kind == "manifest" and each.n == chosen)):
            kind = each.kind if each.kind != "manifest" or each.n == chosen else None
            store = self._is_stored(each)
            if kind or store:
                wanted.append((each, kind, store))
        linked = sorted(found, key=lambda each: not (each.kind or self._is_stored(each)))
        linked = linked[: self.context.settings.link_limit]
        if await self._ask_urls(client, [*linked, *(each for each, _, _ in wanted)]):
            await self._link(linked, len(found) - len(linked))
        for at, (each, kind, store) in enumerate(wanted):
            if self._refusals >= _REFUSALS_AT_MOST:
                msg = "the earlier downloads failed."
                dbt = any(kind in _RESULTS for _, kind, _ in wanted[at:])
                self.context.not_archived(f"{len(wanted) - at} more resources", ValueError(msg), dbt=dbt)
                return
            await self._fetch(client, each, kind, store=store)

    def _is_stored(self, each: _Found) -> bool:
        return self.context.storage is not None and self.context.storage.wanted(each.resource.path)

    async def _ask_urls(self, client: BoltClient, found: Sequence[_Found]) -> bool:
        """Ask for the URLs of all files at once. Return whether Bolt answered."""
        ids = list(dict.fromkeys(each.resource.id for each in found))
        try:
            self._urls = await client.get_bolt_resource_urls(ids, errors=self._url_errors)
        except BoltError as error:
            if self.context.settings.link_limit:
                self.context.not_archived("the links to the resources", error)
            return False
        return True

    async def _link(self, found: Sequence[_Found], left_out: int) -> None:
        context = self.context
        linked: list[tuple[_Found, datetime | None]] = []
        rows = []
        for each in found:
            if each.resource.id in self._url_errors:
                context.not_archived(f"the link to {each.title}", self._url_errors[each.resource.id])
                continue
            url = safe_url(self._urls[each.resource.id])
            if url is None:
                context.not_archived(f"the link to {each.title}", ValueError("Bolt returned no valid URL."))
                continue
            expires_at = link_expiry(url)
            linked.append((each, expires_at))
            path = cell(context.redact.line(each.resource.path), 400)
            rows.append(
                (f"{each.n} {cell(each.command)}", f"[{path}]({url})", moment(expires_at) or "unknown")
            )
        if not rows:
            return
        head = ("Command", "File", "Link expires (UTC)")
        run = f"Bolt run {context.record.run_id} of {cell(context.record.title)}"
        parts = [f"# Files of {run}", table(head, rows), *and_more(left_out, "files")]
        try:
            written = await context.writer.markdown(
                context.key("links"), "\n\n".join(parts), f"Links to the files of {run}"
            )
        except Exception as error:  # noqa: BLE001 - the links must not keep the rest from being archived
            context.not_archived("the links to the resources", error)
            return
        for each, expires_at in linked:
            context.file(each.n, each.resource.path, page=artifact_url(written), expires_at=expires_at)

    async def _fetch(self, client: BoltClient, each: _Found, kind: Kind | None, *, store: bool) -> None:
        context = self.context
        path = each.resource.path
        # The resource is downloaded into a temporary file, because a resource that is only stored may be larger than
        # memory.
        with TemporaryDirectory(prefix="bolt-resource-") as folder:
            source = Path(folder, "content")
            limit = FILE_LIMIT_BYTES if store else RESOURCE_LIMIT_BYTES
            try:
                url = self._urls.get(each.resource.id)
                size = await fetch_to_file(client, each.resource.id, source, limit, url=url)
            except (BoltError, OSError) as error:
                self._refusals += 1
                context.not_archived(each.title, error, dbt=kind in _RESULTS)
                return
            self._refusals = 0
            context.file(each.n, path, size=size)
            if store:
                await context.store(each.n, each.command, path, source)
            if kind is None:
                return
            try:
                if size > RESOURCE_LIMIT_BYTES:
                    msg = f"the file has {size:,} bytes, which is too much to read."
                    raise ValueError(msg)  # noqa: TRY301 - reported like a file that cannot be read
                self.story.read(kind, await anyio.Path(source).read_bytes(), each.command)
            except (ValueError, OSError) as error:
                context.not_archived(each.title, error, dbt=kind in _RESULTS)
