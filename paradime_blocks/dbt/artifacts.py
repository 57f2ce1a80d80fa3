"""What dbt leaves behind, read: run_results.json, sources.json (or Fusion's freshness.json), manifest.json.

The files come from any dbt from 0.20 to today's, or from dbt Fusion, which leaves fields out. So a field that
is unknown is passed over, one that is missing or of another type is None, an entry without an id is left out,
and a status that nobody has heard of is kept. Only a file that is no JSON object at all is an error.

What the files say is remote text: to be compared as it is, but shown only through ``paradime_blocks.text.rendering``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from paradime_blocks.dbt.cost import NO_COST, Cost, cost_of, rows_of
from paradime_blocks.dbt.json import integer, load, mapping, mappings, number, sequence, text, time

# What dbt calls its commands in its files, where it does not call them as they are typed.
_WHICH: Final = {
    **dict.fromkeys(("docs", "docs generate", "docs.generate"), "generate"),
    **dict.fromkeys(("source", "source-freshness", "snapshot-freshness", "source freshness"), "freshness"),
    "ls": "list",
}
# These write a run_results.json too, but in it "success" only says that a node compiles.
_COMPILE_ONLY: Final = frozenset({"generate", "compile", "list", "parse", "show"})
_NEWEST_SCHEMA: Final = 6
_SCHEMA: Final = re.compile(r"/v([0-9]{1,9})(?:\.json|/|$)")
_COMPILED_AT: Final = re.compile(r"compiled (?:code|sql) at ([^\s\x00-\x1f]{1,500})", re.IGNORECASE)
_DEFINED_IN: Final = re.compile(r"Error in [a-z_ ]{1,20} [^\s()]{1,300} \(([^()\n]{1,500})\)")
_TEST_HASH: Final = re.compile(r"[0-9a-f]{10}")


@dataclass(frozen=True)
class NodeResult:
    """How one node fared.

    Attributes:
        unique_id: dbt's id, such as ``model.shop.orders``.
        resource_type: model, test, seed, snapshot, unit_test, operation, ...
        name: The node's name, with its version if it has one.
        status: dbt's word, in lower case.
        seconds: How long it took.
        started_at: When work on it began.
        completed_at: When work on it ended.
        rows_affected: What the warehouse reported, where it reports it.
        failures: The rows that a test found; other nodes have a number there that means nothing.
        batches: How many batches a microbatch model had.
        failed_batches: When each batch that failed begins.
        message: dbt's message, as it is.
        path: The file that defines the node.
        compiled_path: The file with its compiled code.
        relation_name: The table or view, quoted as in SQL.
        command: The command that it ran in, such as ``dbt build``.
        cost: What the warehouse says of its cost.
    """

    unique_id: str
    resource_type: str
    name: str
    status: str
    seconds: float | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    rows_affected: int | None = None
    failures: int | None = None
    batches: int | None = None
    failed_batches: tuple[str, ...] = ()
    message: str | None = None
    path: str | None = None
    compiled_path: str | None = None
    relation_name: str | None = None
    command: str | None = None
    cost: Cost = NO_COST


@dataclass(frozen=True)
class RunResults:
    """What one run_results.json says, or several of one Bolt run merged.

    Attributes:
        which: dbt's kind of command, such as ``build``; None if the file does not say.
        unread: What of the file cannot be read.
    """

    nodes: tuple[NodeResult, ...] = ()
    command: str | None = None
    dbt_version: str | None = None
    generated_at: datetime | None = None
    elapsed_seconds: float | None = None
    compile_only: bool = False
    which: str | None = None
    unread: str | None = None


@dataclass(frozen=True)
class FreshnessResult:
    """How fresh a command found one source; of a check whose query failed, ``error`` says why."""

    unique_id: str
    name: str
    status: str
    age_seconds: float | None = None
    max_loaded_at: datetime | None = None
    warn_after: str | None = None
    error_after: str | None = None
    error: str | None = None
    command: str | None = None


# A manifest may have a hundred thousand of these: slots halve what they cost.
@dataclass(frozen=True, slots=True)
class ManifestNode:
    """A model, test, seed, snapshot, source, ... as far as results, pages and assets need it."""

    resource_type: str
    package: str | None
    path: str | None
    compiled_path: str | None
    relation_name: str | None
    depends_on: tuple[str, ...]
    name: str | None = None
    description: str | None = None
    owner: str | None = None
    # What prefect-dbt goes by: `meta: {prefect: {enable_assets: false}}`.
    assets_enabled: bool = True


@dataclass(frozen=True)
class Manifest:
    """What a manifest.json says; its nodes, sources and unit tests by unique id."""

    nodes: Mapping[str, ManifestNode] = field(default_factory=dict)
    adapter_type: str | None = None
    project_name: str | None = None


def parse_run_results(
    content: bytes, manifest: Manifest | None = None, *, command: str | None = None
) -> RunResults:
    """Read a run_results.json.

    Args:
        content: The file.
        manifest: The manifest of the same command, which knows the nodes' paths.
        command: The command as Bolt ran it. The file only has its kind, and after ``dbt retry`` that of the
            command that was retried.

    Raises:
        DbtArtifactError: The file is no JSON object.
    """
    document = load(content)
    args, metadata = mapping(document, "args"), mapping(document, "metadata")
    which = (text(args, "which") or text(args, "rpc_method") or "").strip().lower() or None
    which = _WHICH.get(which, which) if which else None
    if command is None and which is not None:
        command = "dbt docs generate" if which == "generate" else f"dbt {which}"
    known = manifest.nodes if manifest else {}
    entries = mappings(document, "results")
    return RunResults(
        nodes=tuple(node for entry in entries if (node := _node_result(entry, known, command))),
        command=command,
        dbt_version=text(metadata, "dbt_version"),
        generated_at=time(metadata, "generated_at"),
        elapsed_seconds=number(document, "elapsed_time"),
        compile_only=which in _COMPILE_ONLY if which else _only_compiled(entries),
        which=which,
        unread=_unread(document),
    )


def _only_compiled(entries: list[Mapping[str, Any]]) -> bool:
    """Whether no node has been run, by what the results leave out."""
    ran = any(
        text(each, "message") or each.get("adapter_response") or each.get("failures") for each in entries
    )
    return not ran and any(_status(entry) == "success" for entry in entries)


def _unread(document: Mapping[str, Any]) -> str | None:
    """Say what of a file cannot be read, if anything."""
    metadata = mapping(document, "metadata")
    schema = _SCHEMA.search(text(metadata, "dbt_schema_version") or "")
    version = f"dbt {text(metadata, 'dbt_version') or 'of an unknown version'}"
    results = document.get("results")
    if not isinstance(results, list):
        return f"has no list of results ({version})"
    lost = sum(not (isinstance(entry, dict) and text(entry, "unique_id")) for entry in results)
    if lost:
        return f"has {lost:,} of {len(results):,} results without an id ({version})"
    if schema and int(schema[1]) > _NEWEST_SCHEMA:
        return f"has a newer schema than is known, v{schema[1]}: some of it may be missing here ({version})"
    return None


def unread_freshness(content: bytes) -> str | None:
    """Say what of a sources.json, or freshness.json, cannot be read; None if all of it can.

    Args:
        content: The file.

    Raises:
        DbtArtifactError: The file is no JSON object.
    """
    return _unread(load(content))


def _node_result(
    entry: Mapping[str, Any], known: Mapping[str, ManifestNode], command: str | None
) -> NodeResult | None:
    unique_id = text(entry, "unique_id")
    if not unique_id:
        return None
    node = known.get(unique_id)
    timing = mappings(entry, "timing")
    started = min((t for t in (time(step, "started_at") for step in timing) if t), default=None)
    completed = max((t for t in (time(step, "completed_at") for step in timing) if t), default=None)
    seconds = number(entry, "execution_time")
    if seconds is None and started and completed:
        seconds = (completed - started).total_seconds()
    message, batches = text(entry, "message"), mapping(entry, "batch_results")
    failed_batches = [_batch(batch) for batch in sequence(batches, "failed")]
    return NodeResult(
        unique_id=unique_id,
        resource_type=(node.resource_type if node else "") or unique_id.partition(".")[0],
        name=node_name(unique_id),
        status=_status(entry),
        seconds=seconds,
        started_at=started,
        completed_at=completed,
        rows_affected=rows_of(entry),
        failures=integer(entry, "failures"),
        batches=len(failed_batches) + len(sequence(batches, "successful")) if batches else None,
        failed_batches=tuple(failed_batches),
        message=message,
        path=(node.path if node else None) or _found(_DEFINED_IN, message),
        # dbt before 1.8 wrote it into the message.
        compiled_path=(node.compiled_path if node else None) or _found(_COMPILED_AT, message),
        relation_name=text(entry, "relation_name") or (node.relation_name if node else None),
        command=command,
        cost=cost_of(entry),
    )


def _batch(bounds: Any) -> str:
    """Return when a batch begins; midnight is left out."""
    first = bounds[0] if isinstance(bounds, list) and bounds else bounds
    return re.sub(r"T00:00:00(?:\.0+)?(?:Z|\+00:00)?$", "", str(first))


def parse_freshness(content: bytes, *, command: str | None = None) -> tuple[FreshnessResult, ...]:
    """Read a sources.json, or the freshness.json of dbt Fusion.

    A source whose query failed is missing from what dbt 1.11 writes; only the command's log tells of it.

    Args:
        content: The file.
        command: The command that checked them, as Bolt ran it.

    Raises:
        DbtArtifactError: The file is no JSON object.
    """
    results = []
    for entry in mappings(load(content), "results"):
        if unique_id := text(entry, "unique_id"):
            criteria = mapping(entry, "criteria")
            result = FreshnessResult(
                unique_id=unique_id,
                name=node_name(unique_id),
                status=_status(entry),
                age_seconds=number(entry, "max_loaded_at_time_ago_in_s"),
                max_loaded_at=time(entry, "max_loaded_at"),
                warn_after=_period(criteria, "warn_after"),
                error_after=_period(criteria, "error_after"),
                error=text(entry, "error"),
                command=command,
            )
            results.append(result)
    return tuple(results)


def parse_manifest(content: bytes) -> Manifest:
    """Read what is needed of a manifest.json.

    Args:
        content: The file; of a large one, hardly more is held at a time than the file itself.

    Raises:
        DbtArtifactError: The file is no JSON object.
    """
    document = load(content, object_hook=_reduced)
    metadata = mapping(document, "metadata")
    nodes: dict[str, ManifestNode] = {}
    for group in ("sources", "unit_tests", "nodes"):
        for unique_id, node in mapping(document, group).items():
            if isinstance(node, ManifestNode):
                nodes[unique_id] = node  # noqa: PERF403 - as a comprehension, three loops would hide in it
    return Manifest(nodes, text(metadata, "adapter_type"), text(metadata, "project_name"))


def _reduced(value: dict[str, Any]) -> Any:
    """Make a node of what looks like one as soon as it is read, so that the rest of it can go."""
    resource_type = value.get("resource_type")
    if not isinstance(resource_type, str) or "unique_id" not in value:
        return value
    if resource_type == "macro":
        return None
    meta = mapping(value if resource_type == "source" else mapping(value, "config"), "meta")
    return ManifestNode(
        resource_type=resource_type,
        package=text(value, "package_name"),
        path=text(value, "original_file_path"),
        compiled_path=text(value, "compiled_path"),
        relation_name=text(value, "relation_name"),
        depends_on=tuple(
            name for name in sequence(mapping(value, "depends_on"), "nodes") if isinstance(name, str)
        ),
        name=text(value, "name"),
        description=text(value, "description"),
        owner=text(meta, "owner"),
        assets_enabled=mapping(meta, "prefect").get("enable_assets", True) is not False,
    )


def node_name(unique_id: str) -> str:
    """The name that people know a node by: of ``test.shop.unique_orders_id.0a1b2c3d4e``, the third part."""
    kind, _, rest = unique_id.partition(".")
    parts = rest.split(".")[1:]
    if kind == "test" and len(parts) > 1 and _TEST_HASH.fullmatch(parts[-1]):
        parts = parts[:-1]
    if kind == "unit_test":
        parts = parts[-1:]
    return ".".join(parts) or unique_id


def _status(entry: Mapping[str, Any]) -> str:
    return (text(entry, "status") or "unknown").strip().lower().replace("_", " ")


def _period(criteria: Mapping[str, Any], key: str) -> str | None:
    period = mapping(criteria, key)
    count, unit = integer(period, "count"), text(period, "period")
    return None if count is None or unit is None else f"{count} {unit}{'' if count == 1 else 's'}"


def _found(pattern: re.Pattern[str], message: str | None) -> str | None:
    match = pattern.search(message) if message else None
    return match[1] if match else None
