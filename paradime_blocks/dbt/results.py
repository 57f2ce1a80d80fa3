"""Merges and counts the results of a Bolt run's dbt commands, and describes these results in one sentence."""

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
# A status that is in none of these groups is unknown: from a newer dbt, or missing.
GROUPS: Final = {"failed": FAILED, "warned": WARNED, "skipped": SKIPPED, "succeeded": SUCCEEDED}

# The order: failures, warnings, skips. Then unknown statuses, and successes last.
_ORDER: Final = (FAILED, WARNED, SKIPPED)
# The command is cut, since it may be longer than the rest of the sentence.
_CALLED_CHARACTERS: Final = 120
TESTS: Final = frozenset({"test", "unit_test"})
# A node that was not run took no time, even if the file contains a time.
_NOT_RUN: Final = SKIPPED | {"no-op", "reused"}
_BATCHES_NAMED: Final = 5
_DBT_COMMANDS: Final = frozenset(
    {
        *(
            "build",
            "clean",
            "clone",
            "compile",
            "debug",
            "deps",
            "docs",
            "init",
            "list",
            "ls",
            "parse",
            "retry",
        ),
        *("run", "run-operation", "seed", "show", "snapshot", "source", "test"),
    }
)
# dbt's global options that have a value; they stand before the command.
_WITH_VALUE: Final = frozenset(
    {
        *(
            "--log-format",
            "--log-level",
            "--log-path",
            "--profile",
            "--profiles-dir",
            "--project-dir",
            "--target",
        ),
        *("--target-path", "--vars", "--warn-error-options", "-t"),
    }
)
_AS_IN_FILES: Final = {"docs": "generate", "ls": "list", "source": "freshness"}
_WHICH_KNOWN: Final = _DBT_COMMANDS | {*_AS_IN_FILES.values()}


@dataclass(frozen=True)
class Summary:
    """The summary of a set of results.

    Attributes:
        counts: How many nodes of each resource type ended in each status.
        failed: The failures: first models and other nodes, then tests, each in dbt's order.
        warned: The nodes that ended with a warning.
        skipped: The nodes that dbt skipped, mostly because of the failures.
        slowest: The nodes that took longest, the longest first, without nodes that were skipped or reused.
        total_seconds: The sum of the nodes' times. With several threads, the sum is more than the elapsed time.
    """

    counts: Mapping[str, Mapping[str, int]]
    failed: tuple[NodeResult, ...]
    warned: tuple[NodeResult, ...]
    skipped: tuple[NodeResult, ...]
    slowest: tuple[NodeResult, ...]
    total_seconds: float


def merge(results: Iterable[RunResults]) -> RunResults:
    """Merge the results of the commands of one Bolt run, in the order in which the commands ran.

    A later result of a node replaces an earlier result of the same node, as after ``dbt retry``. From commands that
    only compile, such as ``dbt docs generate``, only failures are kept: a node that compiles has not been built.

    Args:
        results: The results of the commands, in the order of the commands.
    """
    parts = list(results)
    nodes: dict[str, NodeResult] = {}
    for part in parts:
        for node in part.nodes:
            if part.compile_only and node.status not in FAILED:
                continue
            # The earlier result is removed first, so that the later result gets the later position.
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
    """Return the summary of a set of results.

    Args:
        nodes: The results.
        slowest: How many of the slowest nodes to return.
    """
    ordered = failures_first(nodes)
    counts: dict[str, dict[str, int]] = {}
    for node in ordered:
        of_type = counts.setdefault(node.resource_type, {})
        of_type[node.status] = of_type.get(node.status, 0) + 1
    ran = (node for node in ordered if node.seconds and node.status not in _NOT_RUN)
    timed = sorted(ran, key=lambda node: -(node.seconds or 0.0))
    return Summary(
        counts={kind: counts[kind] for kind in sorted(counts)},
        failed=tuple(node for node in ordered if node.status in FAILED),
        warned=tuple(node for node in ordered if node.status in WARNED),
        skipped=tuple(node for node in ordered if node.status in SKIPPED),
        slowest=tuple(timed[:slowest]),
        total_seconds=sum(node.seconds or 0.0 for node in timed),
    )


def failures_first(nodes: Iterable[NodeResult]) -> tuple[NodeResult, ...]:
    """Return the failures, then warnings, skips, unknown statuses, successes; each group in dbt's order."""
    return tuple(sorted(nodes, key=_rank))


def _rank(node: NodeResult) -> tuple[int, bool]:
    for rank, statuses in enumerate(_ORDER):
        if node.status in statuses:
            return rank, node.resource_type in TESTS
    return len(_ORDER) + (node.status in SUCCEEDED), False


def cause(
    nodes: Iterable[NodeResult],
    freshness: Sequence[FreshnessResult] = (),
    *,
    command: str | None = None,
    limit: int = 300,
) -> str | None:
    """Return one sentence that says why dbt failed: "dbt build: model a failed: Runtime Error ...; 2 nodes skipped".

    Args:
        nodes: The results of the command, or of all commands.
        freshness: The sources that the command checked.
        command: The name of the failing command in the sentence; by default, the name in the results.
        limit: The largest length of the sentence, in characters.

    Returns:
        One line of plain text, not yet escaped for markdown; None if nothing failed.
    """
    summary = summarise(nodes, slowest=0)
    stale = [source for source in freshness if source.status in FAILED]
    if summary.failed:
        first = summary.failed[0]
        called = one_line(command or first.command or "", _CALLED_CHARACTERS)
        told = f"{first.resource_type.replace('_', ' ')} {first.name} {failed_as(first)}"
        more = len(summary.failed) - 1 + len(stale)
    elif stale:
        called = one_line(command or stale[0].command or "dbt source freshness", _CALLED_CHARACTERS)
        told = stale_as(stale[0])
        more = len(stale) - 1
    else:
        return None
    rest = [f"{more} more failed"] if more else []
    if summary.skipped:
        rest.append(f"{len(summary.skipped)} {'node' if len(summary.skipped) == 1 else 'nodes'} skipped")
    # The message is cut, not the counts.
    tail = "".join(f"; {part}" for part in rest)
    head = one_line(f"{called}: {told}" if called else told, max(1, limit - len(tail)))
    return head + tail


def failed_as(node: NodeResult) -> str:
    """Return a text that says how a node failed, and also why, if the reason is known.

    Args:
        node: The node.
    """
    how = "succeeded in part" if node.status == "partial success" else "failed"
    if node.failed_batches:
        how += f": {told_batches(node)} failed"
    # dbt Fusion leaves the message out.
    return f"{how}: {node.message}" if node.message and node.message.strip() else how


def told_batches(node: NodeResult) -> str:
    """Return a text that says which batches of a microbatch model failed, such as "1 of 2 batches (2024-01-01)".

    Args:
        node: The model.
    """
    named = ", ".join(node.failed_batches[:_BATCHES_NAMED])
    more = ", …" if len(node.failed_batches) > _BATCHES_NAMED else ""
    return f"{len(node.failed_batches):,} of {node.batches or 0:,} batches ({named}{more})"


def stale_as(source: FreshnessResult) -> str:
    """Return a text that says what is wrong with a source that failed its freshness check.

    Args:
        source: The result of the check.
    """
    if source.error or source.status == "runtime error":
        why = f": {source.error}" if source.error else ""
        return f"the freshness of source {source.name} could not be checked{why}"
    limit = f" (more than {source.error_after} old)" if source.error_after else ""
    return f"source {source.name} is stale{limit}"


def calls_dbt(command: str) -> bool:
    """Whether a command is a dbt command, and not a script that may call dbt.

    Args:
        command: The command's text, as Bolt shows it.
    """
    return any(word == "dbt" or word.endswith("/dbt") for word in command.split())


def may_have_written(command: str, results: RunResults) -> bool:
    """Whether a command may have written these results. If not, the results are from an earlier command.

    Args:
        command: The command's text, as Bolt shows it.
        results: The content of the run_results.json that was found after the command.
    """
    if not calls_dbt(command):
        return "dbt" in command
    asked = command_asked(command)
    # After `dbt retry` the file has the kind of the command that was retried.
    return asked in {None, "retry", results.which} or results.which not in _WHICH_KNOWN


def may_have_checked(command: str) -> bool:
    """Whether a command may have checked these sources. If not, the results are from an earlier command.

    Args:
        command: The command's text, as Bolt shows it.
    """
    return calls_dbt(command) and command_asked(command) in {None, "retry", "freshness"}


def command_asked(command: str) -> str | None:
    """Return the dbt command in a command line, under its name in dbt's files. None if there is no known command.

    The position decides which word is the command: a selected model, or an option's value, may have a command's name.

    Args:
        command: The command's text, as Bolt shows it.
    """
    words = command.split()
    start = next((at for at, word in enumerate(words) if word == "dbt" or word.endswith("/dbt")), len(words))
    before = ""
    for word in words[start + 1 :]:
        if word in _DBT_COMMANDS and before not in _WITH_VALUE:
            return _AS_IN_FILES.get(word, word)
        before = word
    return None
