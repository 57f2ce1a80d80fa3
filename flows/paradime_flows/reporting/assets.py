"""Reports dbt's models, seeds and snapshots to Prefect as assets, with the same lineage as prefect-dbt.

Keys, properties and upstream nodes are the same as in prefect-dbt 0.7.25. An asset key has the adapter's type and the
relation's name, such as `snowflake://analytics/core/orders`. The key has slashes instead of dots. Quotes, spaces and
other characters that Prefect does not accept are removed from the key. A key that is too long is cut. The upstream
nodes of a node are the nodes that the node depends on. An ephemeral model is replaced by its own upstream nodes. A
node whose `meta` has `prefect: {enable_assets: false}` is left out, as in prefect-dbt, but a source is never left out.
The URL of an asset is the page of the last Bolt run that built the asset. prefect-dbt sets no URL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from prefect.assets import Asset, AssetProperties
from prefect.assets.core import MAX_ASSET_DESCRIPTION_LENGTH
from prefect.context import AssetContext
from prefect.events import emit_event
from prefect.exceptions import EventTooLarge
from prefect.settings import get_current_settings
from prefect.types.names import MAX_ASSET_KEY_LENGTH, RESTRICTED_ASSET_CHARACTERS
from pydantic import ValidationError

from paradime_blocks.dbt import FAILED, Manifest, ManifestNode, NodeResult, RunResults
from paradime_blocks.text import clean

_MATERIALISED: Final = frozenset({"model", "seed", "snapshot"})
# A node with one of these statuses has failed, as in prefect-dbt. A microbatch model counts as built even if only some
# of its batches were built.
_FAILED: Final = FAILED - {"partial success"}
_BUILT: Final = frozenset({"success", "partial success"})
_NOT_IN_KEYS: Final = {ord(character): None for character in RESTRICTED_ASSET_CHARACTERS} | {ord("."): "/"}
_QUOTES: Final = {ord(quote): None for quote in '"`'}
_MESSAGE_CHARACTERS: Final = 2000
# An event also needs room for the related resources that Prefect adds: the flow run, its flow, deployment, work pool
# and tags.
_RELATED_TO_A_RUN: Final = 25


@dataclass
class Emitted:
    """Counts the asset events that Prefect accepted and did not accept.

    Attributes:
        succeeded: The number of nodes that were built.
        failed: The number of nodes that failed in dbt.
        unnamed: The names of nodes whose name Prefect does not accept in an asset key.
        refused: The names of nodes whose event Prefect did not accept.
        shortened: The number of events that list only some of the upstream nodes.
    """

    succeeded: int = 0
    failed: int = 0
    unnamed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    shortened: int = 0

    def counts(self) -> str:
        """Return the counts of the asset events as one line of text."""
        counts = f"{self.succeeded:,} materialised, {self.failed:,} failed"
        if self.shortened:
            counts += (
                f"; {self.shortened:,} with only the first {most_upstream()} upstream nodes (Prefect's limit)"
            )
        return counts


def most_upstream() -> int:
    """Return how many upstream nodes an event can list. Prefect limits the number of an event's related resources."""
    return max(0, get_current_settings().server.events.maximum_related_resources - _RELATED_TO_A_RUN)


def asset_key(adapter_type: str, relation_name: str) -> str:
    """Return the asset key of a table or view. prefect-dbt makes the same key.

    Args:
        adapter_type: The type of dbt's adapter, such as `snowflake`.
        relation_name: The name of the table or view, quoted as in SQL.
    """
    return f"{adapter_type}://{relation_name.translate(_NOT_IN_KEYS)}"[:MAX_ASSET_KEY_LENGTH]


def emit_assets(
    results: RunResults, manifest: Manifest, facts: dict[str, Any], url: str | None = None
) -> Emitted:
    """Report to Prefect each node that was built or has failed. Skipped and reused nodes are left out.

    A task made with `prefect.assets.materialize` emits the same events. But here, there is no task run for each node,
    because dbt has already run the nodes. In a flow run, the events are related to the flow run.

    Args:
        results: The results of the commands that build something.
        manifest: The manifest of one of these commands.
        facts: The facts that are added to the metadata of each event.
        url: The page of the Bolt run that built the nodes. The assets link to this page.
    """
    emitted = Emitted()
    adapter = manifest.adapter_type
    for node in results.nodes:
        known = manifest.nodes.get(node.unique_id)
        failed = node.status in _FAILED
        if node.resource_type not in _MATERIALISED or not (failed or node.status in _BUILT):
            continue
        relation = node.relation_name or (known.relation_name if known else None)
        if not relation or not adapter or (known and not known.assets_enabled):
            continue
        asset = _asset(adapter, relation, known, url)
        if asset is None:
            emitted.unnamed.append(node.name)
            continue
        upstream = {
            found.key: found
            for above in (_upstream(known, manifest) if known else ())
            if (found := _asset(adapter, above.relation_name or "", above)) is not None
        }
        named = list(upstream.values())[: most_upstream()]
        if not _emit(asset, named, {**_metadata(node), **facts}, failed=failed):
            emitted.refused.append(node.name)
            continue
        emitted.shortened += len(named) < len(upstream)
        emitted.failed += failed
        emitted.succeeded += not failed
    return emitted


def _emit(asset: Asset, upstream: Sequence[Asset], metadata: dict[str, Any], *, failed: bool) -> bool:
    """Emit the events for one node. Return whether Prefect accepted the event that the node was built or failed."""
    for above in upstream:
        emit_event("prefect.asset.referenced", AssetContext.asset_as_resource(above), related=[])
    related = [AssetContext.asset_as_related(above) for above in upstream]
    try:
        event = emit_event(
            f"prefect.asset.materialization.{'failed' if failed else 'succeeded'}",
            AssetContext.asset_as_resource(asset),
            related=[*related, AssetContext.related_materialized_by("dbt")],
            payload=metadata,
        )
    except EventTooLarge:
        return False
    return event is not None


def _asset(adapter: str, relation: str, node: ManifestNode | None, url: str | None = None) -> Asset | None:
    """Return the asset for a table or view; None if Prefect does not accept the name of the table or view."""
    properties = None if node is None else _properties(relation, node, url)
    try:
        return Asset(key=asset_key(adapter, relation), properties=properties)
    except ValidationError:
        return None


def _properties(relation: str, node: ManifestNode, url: str | None) -> AssetProperties:
    """Return the properties of an asset. An unknown property is left out, so that Prefect keeps the stored value."""
    properties: dict[str, Any] = {"name": clean(relation.translate(_QUOTES))}
    description = clean(node.description or "")
    if len(description) > MAX_ASSET_DESCRIPTION_LENGTH:
        description = f"{description[: MAX_ASSET_DESCRIPTION_LENGTH - 3]}..."
    if url:
        properties["url"] = url
    if description:
        properties["description"] = description
    if node.owner:
        properties["owners"] = [node.owner]
    return AssetProperties(**properties)


def _upstream(node: ManifestNode, manifest: Manifest) -> Iterator[ManifestNode]:
    """Return the upstream nodes of a node that are in the warehouse.

    An ephemeral model is not in the warehouse, so it is replaced by its own upstream nodes.
    """
    seen: set[str] = set()
    waiting = list(reversed(node.depends_on))
    while waiting:
        unique_id = waiting.pop()
        found = manifest.nodes.get(unique_id)
        if unique_id in seen or found is None:
            continue
        seen.add(unique_id)
        if found.relation_name:
            built = found.resource_type in _MATERIALISED and found.assets_enabled
            if built or found.resource_type == "source":
                yield found
        elif found.resource_type in _MATERIALISED:
            waiting.extend(reversed(found.depends_on))


def _metadata(node: NodeResult) -> dict[str, Any]:
    metadata = {
        "unique_id": node.unique_id,
        "node_name": node.name,
        "resource_type": node.resource_type,
        "node_status": node.status,
        "node_started_at": node.started_at.isoformat() if node.started_at else None,
        "node_finished_at": node.completed_at.isoformat() if node.completed_at else None,
        "execution_time": node.seconds,
        "rows_affected": node.rows_affected,
        "message": clean(node.message)[:_MESSAGE_CHARACTERS] if node.message else None,
        "command": node.command,
    }
    return {name: value for name, value in metadata.items() if value is not None}
