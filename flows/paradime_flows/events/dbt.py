"""The events of a Bolt run's dbt results: one for each failed test, and one for each stale source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from paradime_blocks.dbt import FAILED, TESTS, FreshnessResult, Manifest, NodeResult
from paradime_blocks.text import one_line
from paradime_flows.events.bolt_runs import RunSubject
from paradime_flows.events.names import RUN_ROLE, SOURCE_STALE, TEST_FAILED, event_id
from paradime_flows.events.sending import Resource, send
from paradime_flows.prefect_api import run_logger

# The largest number of events about tests, and of events about sources, for one Bolt run. A person does not read more
# messages one by one. The page with the dbt results shows all tests.
MOST_EVENTS: Final = 200
_STALE: Final = frozenset({"warn", "error"})
_MESSAGE_CHARACTERS: Final = 1000

AssetKey = Callable[[str, str], str]


def emit_dbt_events(
    subject: RunSubject,
    nodes: Iterable[NodeResult],
    freshness: Iterable[FreshnessResult],
    manifest: Manifest | None,
    asset_key: AssetKey,
) -> int:
    """Send an event for each test that failed, and for each source that is stale.

    Args:
        subject: The Bolt run.
        nodes: The results of the Bolt run's nodes, without secrets.
        freshness: The results of the checks of sources, without secrets.
        manifest: dbt's manifest, which says what a test tests; None if there is no manifest.
        asset_key: Makes the key of an asset from the type of the adapter and the name of a relation.

    Returns:
        How many events were sent.
    """
    failed = [node for node in nodes if node.resource_type in TESTS and node.status in FAILED]
    stale = [source for source in freshness if source.status in _STALE and source.error is None]
    sent = 0
    for node in failed[:MOST_EVENTS]:
        sent += _emit_test(subject, node, _assets(node.unique_id, manifest, asset_key))
    for source in stale[:MOST_EVENTS]:
        sent += _emit_source(subject, source, _assets(source.unique_id, manifest, asset_key))
    left = max(0, len(failed) - MOST_EVENTS) + max(0, len(stale) - MOST_EVENTS)
    if left:
        run_logger().info(
            "Sent events for %d failed tests and stale sources, and not for %d others.", sent, left
        )
    return sent


def _emit_test(subject: RunSubject, node: NodeResult, assets: list[Resource]) -> bool:
    payload = {
        "failures": node.failures,
        "message": one_line(node.message, _MESSAGE_CHARACTERS) if node.message else None,
        "path": node.path,
        "command": node.command,
    }
    return _emit(subject, TEST_FAILED, node, assets, payload)


def _emit_source(subject: RunSubject, source: FreshnessResult, assets: list[Resource]) -> bool:
    payload = {
        "age_seconds": source.age_seconds,
        "max_loaded_at": source.max_loaded_at.isoformat() if source.max_loaded_at else None,
        "warn_after": source.warn_after,
        "error_after": source.error_after,
    }
    return _emit(subject, SOURCE_STALE, source, assets, payload)


def _emit(
    subject: RunSubject,
    event: str,
    node: NodeResult | FreshnessResult,
    assets: list[Resource],
    payload: Mapping[str, object],
) -> bool:
    run = subject.resource(None)
    resource = {
        **{label: value for label, value in run.items() if not label.startswith("prefect.")},
        "prefect.resource.id": f"{event.rpartition('.')[0]}.{node.unique_id}",
        "prefect.resource.name": node.name,
        "state": node.status,
    }
    of_run = {
        "prefect.resource.id": run["prefect.resource.id"],
        "prefect.resource.name": run["prefect.resource.name"],
        "prefect.resource.role": RUN_ROLE,
    }
    about = {"run_id": subject.run_id, "schedule": subject.schedule, "url": run["url"]}
    sent = send(
        event,
        resource,
        id=event_id(subject.workspace, subject.run_id, event, node.unique_id),
        related=[of_run, *assets],
        payload={**about, "unique_id": node.unique_id, "status": node.status, **payload},
        flow_run_id=subject.flow_run_id,
    )
    return sent is not None


def _assets(unique_id: str, manifest: Manifest | None, asset_key: AssetKey) -> list[Resource]:
    """Return the asset of a source, or the assets that a test tests. The keys are the same as in prefect-dbt."""
    node = manifest.nodes.get(unique_id) if manifest is not None else None
    if manifest is None or node is None or not manifest.adapter_type:
        return []
    tested = (
        [node] if node.resource_type == "source" else [manifest.nodes.get(id_) for id_ in node.depends_on]
    )
    keys = [
        asset_key(manifest.adapter_type, one.relation_name) for one in tested if one and one.relation_name
    ]
    return [{"prefect.resource.id": key, "prefect.resource.role": "asset"} for key in dict.fromkeys(keys)]
