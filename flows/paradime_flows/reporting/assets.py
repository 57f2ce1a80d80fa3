"""dbt's models, seeds and snapshots as Prefect assets, so that their lineage joins what prefect-dbt emits.

The keys are those of prefect-dbt (read in 0.7.25): the adapter's type, then the relation's name with slashes
for dots and without quotes, spaces and whatever else Prefect takes in no key, cut to the longest one, as
`snowflake://analytics/core/orders`. So are the properties, and what is upstream: the nodes that a node depends
on, with ephemeral models replaced by what those depend on. A node whose `meta` says `prefect: {enable_assets:
false}` is left out, as there; a source is none of dbt's own and always named.
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
# prefect-dbt fails a materialisation for none but these: a microbatch model of which some batches were built
# has been built.
_FAILED: Final = FAILED - {"partial success"}
_BUILT: Final = frozenset({"success", "partial success"})
_NOT_IN_KEYS: Final = {ord(character): None for character in RESTRICTED_ASSET_CHARACTERS} | {ord("."): "/"}
_QUOTES: Final = {ord(quote): None for quote in '"`'}
_MESSAGE_CHARACTERS: Final = 2000
# Prefect adds the flow run, its flow, deployment, work pool and tags to the tool.
_RELATED_TO_A_RUN: Final = 25


@dataclass
class Emitted:
    """How many materialisations Prefect has accepted.

    Attributes:
        succeeded: Nodes that were built.
        failed: Nodes that failed.
        unnamed: Names of nodes that can have no asset key.
        refused: Names of nodes whose event Prefect did not accept.
        shortened: How many events name only some of the nodes that theirs was made from.
    """

    succeeded: int = 0
    failed: int = 0
    unnamed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    shortened: int = 0

    def told(self) -> str:
        """Return the counts in one line."""
        told = f"{self.succeeded:,} materialised, {self.failed:,} failed"
        if self.shortened:
            told += f"; {self.shortened:,} with the first {most_upstream()} upstream nodes only: Prefect takes no more"
        return told


def most_upstream() -> int:
    """Return how many upstream nodes an event can name: Prefect limits what it relates to, the flow run included."""
    return max(0, get_current_settings().server.events.maximum_related_resources - _RELATED_TO_A_RUN)


def asset_key(adapter_type: str, relation_name: str) -> str:
    """Return the key of a table or view, as prefect-dbt makes it.

    Args:
        adapter_type: dbt's adapter, such as `snowflake`.
        relation_name: The relation, quoted as in SQL.
    """
    return f"{adapter_type}://{relation_name.translate(_NOT_IN_KEYS)}"[:MAX_ASSET_KEY_LENGTH]


def emit_assets(results: RunResults, manifest: Manifest, facts: dict[str, Any]) -> Emitted:
    """Tell Prefect of each node that was built or failed to be; skipped or reused nodes are neither.

    The events are Prefect's own, as a task made with `prefect.assets.materialize` emits them, but without
    a task run for each node: dbt has run them already. Within a flow run they are related to it.

    Args:
        results: The results of the commands that build something.
        manifest: The manifest of one of them.
        facts: What to add to each materialisation's metadata.
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
        asset = _asset(adapter, relation, known)
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
    """Emit the events of a materialisation, as `AssetContext` does, which hides whether Prefect accepts them."""
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


def _asset(adapter: str, relation: str, node: ManifestNode | None) -> Asset | None:
    """The asset of a relation; None where its name is none that Prefect takes."""
    properties = None if node is None else _properties(relation, node)
    try:
        return Asset(key=asset_key(adapter, relation), properties=properties)
    except ValidationError:
        return None


def _properties(relation: str, node: ManifestNode) -> AssetProperties:
    """What to tell of an asset; what the manifest does not say is not set, as it would blank what is known."""
    told: dict[str, Any] = {"name": clean(relation.translate(_QUOTES))}
    description = clean(node.description or "")
    if len(description) > MAX_ASSET_DESCRIPTION_LENGTH:
        description = f"{description[: MAX_ASSET_DESCRIPTION_LENGTH - 3]}..."
    if description:
        told["description"] = description
    if node.owner:
        told["owners"] = [node.owner]
    return AssetProperties(**told)


def _upstream(node: ManifestNode, manifest: Manifest) -> Iterator[ManifestNode]:
    """What a node is made from; for an ephemeral model, which is in no warehouse, what that is made from."""
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
