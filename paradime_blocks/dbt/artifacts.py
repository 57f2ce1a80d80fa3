"""Reads dbt's files: run_results.json, sources.json (freshness.json of dbt Fusion) and manifest.json.

The files come from any dbt version since 0.20, or from dbt Fusion, which leaves fields out. So an unknown field is
ignored, a field that is missing or has another type is None, an entry without an id is left out, and an unknown status
is kept. Only a file that is not a JSON object is an error.

The text in the files may contain anything. So show it only with the functions of ``paradime_blocks.text.rendering``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from paradime_blocks.dbt.cost import NO_COST, Cost, cost_of, rows_of
from paradime_blocks.dbt.json import integer, load, mapping, mappings, number, sequence, text, time

# The names of dbt's commands in its files, if they differ from the names that people type.
_WHICH: Final = {
    **dict.fromkeys(("docs", "docs generate", "docs.generate"), "generate"),
    **dict.fromkeys(("source", "source-freshness", "snapshot-freshness", "source freshness"), "freshness"),
    "ls": "list",
}
# These commands also write a run_results.json, but in that file "success" only means that a node compiles.
_COMPILE_ONLY: Final = frozenset({"generate", "compile", "list", "parse", "show"})
_NEWEST_SCHEMA: Final = 6
_SCHEMA: Final = re.compile(r"/v([0-9]{1,9})(?:\.json|/|$)")
_COMPILED_AT: Final = re.compile(r"compiled (?:code|sql) at ([^\s\x00-\x1f]{1,500})", re.IGNORECASE)
_DEFINED_IN: Final = re.compile(r"Error in [a-z_ ]{1,20} [^\s()]{1,300} \(([^()\n]{1,500})\)")
_TEST_HASH: Final = re.compile(r"[0-9a-f]{10}")


@dataclass(frozen=True)
class NodeResult:
    """The result of one dbt node.

    Attributes:
        unique_id: dbt's id, such as ``model.shop.orders``.
        resource_type: model, test, seed, snapshot, unit_test, operation, ...
        name: The node's name, with its version if it has one.
        status: dbt's status, in lower case.
        seconds: How long the node took, in seconds.
        started_at: The time at which dbt began the node.
        completed_at: The time at which dbt ended the node.
        rows_affected: The number of rows that the node affected; None if the warehouse does not report this number.
        failures: The number of rows for which a test failed. For other nodes the number has no meaning.
        batches: The number of batches of a microbatch model.
        failed_batches: For each batch that failed, the time at which the batch begins, as text.
        message: dbt's message, unchanged.
        path: The file that defines the node.
        compiled_path: The file with the node's compiled code.
        relation_name: The table or view, quoted as in SQL.
        command: The command that ran the node, such as ``dbt build``.
        cost: The node's cost, as the warehouse reports it.
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
    """The content of one run_results.json, or the merged content of several such files of one Bolt run.

    Attributes:
        which: dbt's kind of command, such as ``build``; None if the file does not contain the kind.
        unread: A text that says which part of the file cannot be read; None if the whole file can be read.
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
    """The result of a freshness check of one source. If the query failed, ``error`` says why."""

    unique_id: str
    name: str
    status: str
    age_seconds: float | None = None
    max_loaded_at: datetime | None = None
    warn_after: str | None = None
    error_after: str | None = None
    error: str | None = None
    command: str | None = None


# A manifest may have a hundred thousand of these objects. With slots they need half of the memory.
@dataclass(frozen=True, slots=True)
class ManifestNode:
    """A model, test, seed, snapshot, source or other node of a manifest, with the fields that this package uses."""

    resource_type: str
    package: str | None
    path: str | None
    compiled_path: str | None
    relation_name: str | None
    depends_on: tuple[str, ...]
    name: str | None = None
    description: str | None = None
    owner: str | None = None
    # The same setting as for prefect-dbt: `meta: {prefect: {enable_assets: false}}`.
    assets_enabled: bool = True


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.json. ``nodes`` also has sources and unit tests; the key is the unique id."""

    nodes: Mapping[str, ManifestNode] = field(default_factory=dict)
    adapter_type: str | None = None
    project_name: str | None = None


def parse_run_results(
    content: bytes, manifest: Manifest | None = None, *, command: str | None = None
) -> RunResults:
    """Read a run_results.json.

    Args:
        content: The content of the file.
        manifest: The manifest of the same command, which has the nodes' paths.
        command: The command that Bolt ran. The file has only the kind of the command, and after ``dbt retry`` the
            kind of the retried command.

    Raises:
        DbtArtifactError: The file is not a JSON object.
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
    """Whether dbt only compiled the nodes: the results lack the fields that dbt writes for a node that was run."""
    ran = any(
        text(each, "message") or each.get("adapter_response") or each.get("failures") for each in entries
    )
    return not ran and any(_status(entry) == "success" for entry in entries)


def _unread(document: Mapping[str, Any]) -> str | None:
    """Return a text that says which part of a file cannot be read; None if the whole file can be read."""
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
        return f"has schema v{schema[1]}, a newer one than is known: some results may be missing here ({version})"
    return None


def unread_freshness(content: bytes) -> str | None:
    """Return a text that says which part of a freshness file cannot be read; None if the whole file can be read.

    Args:
        content: The content of the sources.json or freshness.json.

    Raises:
        DbtArtifactError: The file is not a JSON object.
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
        # dbt before 1.8 wrote this path into the message.
        compiled_path=(node.compiled_path if node else None) or _found(_COMPILED_AT, message),
        relation_name=text(entry, "relation_name") or (node.relation_name if node else None),
        command=command,
        cost=cost_of(entry),
    )


def _batch(bounds: Any) -> str:
    """Return the time at which a batch begins, as text. At midnight, the text is only the date."""
    first = bounds[0] if isinstance(bounds, list) and bounds else bounds
    return re.sub(r"T00:00:00(?:\.0+)?(?:Z|\+00:00)?$", "", str(first))


def parse_freshness(content: bytes, *, command: str | None = None) -> tuple[FreshnessResult, ...]:
    """Read a sources.json, or the freshness.json of dbt Fusion.

    dbt 1.11 leaves out a source whose query failed; only the command's log reports it.

    Args:
        content: The content of the file.
        command: The command that checked the sources, as Bolt ran it.

    Raises:
        DbtArtifactError: The file is not a JSON object.
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
    """Read the part of a manifest.json that this package uses.

    Args:
        content: The content of the file. Reading the content needs little more memory than the content itself.

    Raises:
        DbtArtifactError: The file is not a JSON object.
    """
    document = load(content, object_hook=_reduced)
    metadata = mapping(document, "metadata")
    nodes: dict[str, ManifestNode] = {}
    for group in ("sources", "unit_tests", "nodes"):
        for unique_id, node in mapping(document, group).items():
            if isinstance(node, ManifestNode):
                nodes[unique_id] = node  # noqa: PERF403 - a comprehension with three loops is hard to read
    return Manifest(nodes, text(metadata, "adapter_type"), text(metadata, "project_name"))


def _reduced(value: dict[str, Any]) -> Any:
    """Replace a node of a manifest by a small object, so that the node's unused fields need no memory."""
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
    """Return a node's name from its unique id: the third part of ``test.shop.unique_orders_id.0a1b2c3d4e``."""
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
