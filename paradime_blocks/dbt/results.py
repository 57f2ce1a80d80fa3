"""What the results of a Bolt run's dbt commands come to: merged, counted, and put into one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from paradime_blocks.dbt.artifacts import FreshnessResult, NodeResult, RunResults
from paradime_blocks.text.rendering import one_line

FAILED: Final = frozenset({"error", "fail", "runtime error", "partial success"})
WARNED: Final = frozenset({"warn"})
SKIPPED: Final = frozenset({"skipped"})
SUCCEEDED: Final = frozenset({"success", "pass", "no-op", "reused"})

# Failures first, then what deserves a look: a status that is not known comes before all that went well.
_ORDER: Final = (FAILED, WARNED, SKIPPED)
# A command may be longer than what there is to say of it.
_CALLED_CHARACTERS: Final = 120
_TESTS: Final = frozenset({"test", "unit_test"})


@dataclass(frozen=True)
class Summary:
    """What to tell of a set of results.

    Attributes:
        counts: How many nodes of each resource type ended in each status.
        failed: The failures, models and the like before tests, each in dbt's order.
        warned: The warnings.
        skipped: What dbt skipped, mostly because of the failures.
        slowest: The nodes that took longest, the longest first.
        total_seconds: The time of all nodes; more than the clock's where dbt used several threads.
    """

    counts: Mapping[str, Mapping[str, int]]
    failed: tuple[NodeResult, ...]
    warned: tuple[NodeResult, ...]
    skipped: tuple[NodeResult, ...]
    slowest: tuple[NodeResult, ...]
    total_seconds: float


def merge(results: Iterable[RunResults]) -> RunResults:
    """Merge the results of one run's commands, in the order in which they ran.

    A later result of a node replaces an earlier one, as after ``dbt retry``. Commands that only compile, such
    as ``dbt docs generate``, count for what fails in them: a node that compiles has not been built by that.

    Args:
        results: The commands' results, the first command's first.
    """
    parts = list(results)
    nodes: dict[str, NodeResult] = {}
    for part in parts:
        for node in part.nodes:
            if part.compile_only and node.status not in FAILED:
                continue
            # Taken out first, so that the later result also stands at the later place.
            nodes.pop(node.unique_id, None)
            nodes[node.unique_id] = node
    if not parts:
        return RunResults()
    elapsed = [part.elapsed_seconds for part in parts if part.elapsed_seconds is not None]
    commands = {part.command for part in parts}
    return replace(
        parts[-1],
        nodes=tuple(nodes.values()),
        command=parts[-1].command if len(commands) == 1 else None,
        elapsed_seconds=sum(elapsed) if elapsed else None,
        compile_only=all(part.compile_only for part in parts),
    )


def summarise(nodes: Iterable[NodeResult], slowest: int = 10) -> Summary:
    """Count and sort out a set of results.

    Args:
        nodes: The results.
        slowest: How many of the slowest to name.
    """
    ordered = failures_first(nodes)
    counts: dict[str, dict[str, int]] = {}
    for node in ordered:
        of_type = counts.setdefault(node.resource_type, {})
        of_type[node.status] = of_type.get(node.status, 0) + 1
    timed = sorted((node for node in ordered if node.seconds), key=lambda node: -(node.seconds or 0.0))
    return Summary(
        counts={kind: counts[kind] for kind in sorted(counts)},
        failed=tuple(node for node in ordered if node.status in FAILED),
        warned=tuple(node for node in ordered if node.status in WARNED),
        skipped=tuple(node for node in ordered if node.status in SKIPPED),
        slowest=tuple(timed[:slowest]),
        total_seconds=sum(node.seconds or 0.0 for node in timed),
    )


def failures_first(nodes: Iterable[NodeResult]) -> tuple[NodeResult, ...]:
    """The failures, then the warnings, skips, unknown statuses and successes; within each, dbt's order."""
    return tuple(sorted(nodes, key=_rank))


def _rank(node: NodeResult) -> tuple[int, bool]:
    for rank, statuses in enumerate(_ORDER):
        if node.status in statuses:
            return rank, node.resource_type in _TESTS
    return len(_ORDER) + (node.status in SUCCEEDED), False


def cause(
    nodes: Iterable[NodeResult],
    freshness: Sequence[FreshnessResult] = (),
    *,
    command: str | None = None,
    limit: int = 300,
) -> str | None:
    """Say in one sentence why dbt failed, as "dbt build: model a failed: Runtime Error ...; 2 nodes skipped".

    Args:
        nodes: The results of the command, or of all.
        freshness: The sources that it checked.
        command: The failing command as it is to be called; by default as the results call it.
        limit: The most characters of the sentence.

    Returns:
        One line of plain text, not yet escaped for markdown; None if nothing failed.
    """
    summary = summarise(nodes, slowest=0)
    stale = [source for source in freshness if source.status in FAILED]
    if summary.failed:
        first = summary.failed[0]
        called = one_line(command or first.command or "", _CALLED_CHARACTERS)
        told = f"{first.resource_type.replace('_', ' ')} {first.name} {_failed_as(first)}"
        more = len(summary.failed) - 1 + len(stale)
    elif stale:
        called = one_line(command or "dbt source freshness", _CALLED_CHARACTERS)
        told = stale_as(stale[0])
        more = len(stale) - 1
    else:
        return None
    rest = [f"{more} more failed"] if more else []
    if summary.skipped:
        rest.append(f"{len(summary.skipped)} {'node' if len(summary.skipped) == 1 else 'nodes'} skipped")
    # The counts stay whole: it is the message that is cut.
    tail = "".join(f"; {part}" for part in rest)
    head = one_line(f"{called}: {told}" if called else told, max(1, limit - len(tail)))
    return head + tail


def _failed_as(node: NodeResult) -> str:
    verb = "succeeded in part" if node.status == "partial success" else "failed"
    # dbt Fusion leaves the message out.
    return f"{verb}: {node.message}" if node.message and node.message.strip() else verb


def stale_as(source: FreshnessResult) -> str:
    """Say of a source that failed its check what is wrong with it.

    Args:
        source: What the check found.
    """
    if source.error:
        return f"the freshness of source {source.name} could not be checked: {source.error}"
    limit = f" (more than {source.error_after} old)" if source.error_after else ""
    return f"source {source.name} is stale{limit}"


def calls_dbt(command: str) -> bool:
    """Whether a command is one of dbt's own, rather than a script that may call it.

    Args:
        command: The command as Bolt shows it.
    """
    return any(word == "dbt" or word.endswith("/dbt") for word in command.split())


def may_have_written(command: str, results: RunResults) -> bool:
    """Whether results are a command's own; one that writes none may find those of the command before it.

    Args:
        command: The command as Bolt shows it.
        results: What is in the run_results.json that it left behind.
    """
    if not calls_dbt(command):
        return "dbt" in command
    words = command.split()
    # After `dbt retry` the file has the kind of the command that was retried.
    return results.which is None or "retry" in words or results.which.replace(".", " ").split()[-1] in words


def checks_freshness(command: str) -> bool:
    """Whether a command checks sources; a sources.json beside any other is an earlier command's.

    Args:
        command: The command as Bolt shows it.
    """
    return "freshness" in command
