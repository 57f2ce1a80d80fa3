"""Adds to a command's results what only the command's log contains: reasons, and failures that dbt's files leave out.

In the files, dbt has no message for an operation, and dbt Fusion has none for any node. dbt before 1.9 leaves out a
hook that failed. dbt 1.9 and newer leave out a source whose query failed. The log contains all of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from paradime_blocks.dbt.artifacts import FreshnessResult, NodeResult, RunResults
from paradime_blocks.dbt.logs import errors_in
from paradime_blocks.dbt.results import FAILED
from paradime_blocks.text.rendering import clean

# "ERROR", "PARTIAL SUCCESS (1/2)": such a message repeats the status and gives no reason.
_NO_REASON: Final = re.compile(r"(?:[A-Z]+[ -]?){1,3}(?:\([0-9]+/[0-9]+\))?")
_NO_REASON_CHARACTERS: Final = 60
_HOOK: Final = re.compile(r"\s*((?:[^\s]{1,200}\.)?on-run-(?:start|end)(?:\.[0-9]{1,9})?) failed, error:\s*")
_CHECK: Final = re.compile(
    r" of [0-9]{1,9} ERROR freshness of ([^\s]{1,300})|Failed \[[^\]\n]{1,12}\] source +([^\s]{1,300})"
)
# A node's name may be any word. The text before the word shows that it is a node's name.
_NAMED: Final = re.compile(
    r"(?:\b(?:model|test|seed|snapshot|source|unit_test|operation|macro|function|exposure) |[/.'\"`\\])([A-Za-z0-9_]+)"
)
_SOURCES_AT_MOST: Final = 1000


@dataclass(frozen=True)
class LogReasons:
    """The failures that a command's log reports.

    Attributes:
        errors: The errors, each with its further lines.
        sources: The sources whose freshness check could not run, such as ``app.orders``.
    """

    errors: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


def reasons_in(pieces: Iterable[str]) -> LogReasons:
    """Return the failures that a command's output reports.

    Args:
        pieces: The output, in pieces. Each piece ends with a complete line.
    """
    sources: list[str] = []

    def seen() -> Iterator[str]:
        for piece in pieces:
            text = clean(piece)
            if len(sources) < _SOURCES_AT_MOST:
                sources.extend(dbt or fusion for dbt, fusion in _CHECK.findall(text))
            yield text

    errors = tuple(errors_in(seen()))
    return LogReasons(errors, tuple(dict.fromkeys(sources[:_SOURCES_AT_MOST])))


def explain(results: RunResults, log: LogReasons) -> RunResults:
    """Return a command's results, completed with the reasons and the failed hooks from the command's log.

    Args:
        results: The results of a command that failed.
        log: The failures in the command's log.
    """
    silent = [node for node in results.nodes if node.status in FAILED and not _has_reason(node)]
    words = [(error, frozenset(_NAMED.findall(error))) for error in log.errors]
    own = {
        node.unique_id: error
        for node in silent
        if (error := next((error for error, named in words if _is_about(error, named, node)), None))
    }
    others = [
        error for error, named in words if not any(_is_about(error, named, node) for node in results.nodes)
    ]
    hooks = [(error, hook) for error in log.errors if (hook := _HOOK.match(error))]
    free = [error for error in others if not _HOOK.match(error)]
    left = [node.unique_id for node in silent if node.unique_id not in own]
    # With several errors and several nodes, it is unknown which error belongs to which node.
    if free and (len(free) == 1 or len(left) == 1):
        own.update(dict.fromkeys(left, free[0]))
    nodes = [replace(node, message=own.get(node.unique_id, node.message)) for node in results.nodes]
    if not any(node.resource_type == "operation" and node.status in FAILED for node in nodes):
        nodes += [
            NodeResult(
                unique_id=f"operation.{hook[1]}",
                resource_type="operation",
                name=hook[1],
                status="error",
                message=error[hook.end() :] or None,
                command=results.command,
            )
            for error, hook in hooks
        ]
    return replace(results, nodes=tuple(nodes))


def explain_freshness(
    sources: Sequence[FreshnessResult], log: LogReasons, command: str | None = None
) -> tuple[FreshnessResult, ...]:
    """Return the results of a freshness check, completed with the sources whose query failed.

    Args:
        sources: The results in the check's file.
        log: The failures in the command's log.
        command: The command that checked the sources.
    """
    errors = {
        name: next((error for error in log.errors if name.rpartition(".")[2] in _NAMED.findall(error)), None)
        for name in log.sources
    }
    known = [
        replace(source, error=source.error or errors.get(source.name)) if source.status in FAILED else source
        for source in sources
    ]
    found = {source.name for source in known}
    return (
        *known,
        *(
            FreshnessResult(
                unique_id=f"source.{name}",
                name=name,
                status="runtime error",
                error=errors[name],
                command=command,
            )
            for name in log.sources
            if name not in found
        ),
    )


def _has_reason(node: NodeResult) -> bool:
    message = (node.message or "").strip()
    return len(message) > _NO_REASON_CHARACTERS or bool(message and not _NO_REASON.fullmatch(message))


def _is_about(error: str, named: frozenset[str], node: NodeResult) -> bool:
    return bool(node.path and node.path in error) or node.name.partition(".")[0] in named
