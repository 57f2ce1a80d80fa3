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
# Each status is in one of these, or is neither good nor bad: dbt's of tomorrow, or none at all.
GROUPS: Final = {"failed": FAILED, "warned": WARNED, "skipped": SKIPPED, "succeeded": SUCCEEDED}

# Failures first, then what deserves a look: a status that is not known comes before all that went well.
_ORDER: Final = (FAILED, WARNED, SKIPPED)
# A command may be longer than what there is to say of it.
_CALLED_CHARACTERS: Final = 120
TESTS: Final = frozenset({"test", "unit_test"})
# What was not run took no time, whatever the file says.
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
# Options of dbt itself that stand before the command, and have a value.
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
    """What to say about a set of results.

    Attributes:
        counts: How many nodes of each resource type ended in each status.
        failed: The failures, models and the like before tests, each in dbt's order.
        warned: The warnings.
        skipped: What dbt skipped, mostly because of the failures.
        slowest: The nodes that took longest, the longest first; what was skipped or reused is none of them.
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
    """The failures, then the warnings, skips, unknown statuses and successes; within each, dbt's order."""
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
    # The counts stay whole: it is the message that is cut.
    tail = "".join(f"; {part}" for part in rest)
    head = one_line(f"{called}: {told}" if called else told, max(1, limit - len(tail)))
    return head + tail


def failed_as(node: NodeResult) -> str:
    """Say of a node that failed how, and why if anything says it.

    Args:
        node: The node.
    """
    how = "succeeded in part" if node.status == "partial success" else "failed"
    if node.failed_batches:
        how += f": {told_batches(node)} failed"
    # dbt Fusion leaves the message out.
    return f"{how}: {node.message}" if node.message and node.message.strip() else how


def told_batches(node: NodeResult) -> str:
    """Say which batches of a microbatch model failed, as "1 of 2 batches (2024-01-01)".

    Args:
        node: The model.
    """
    named = ", ".join(node.failed_batches[:_BATCHES_NAMED])
    more = ", …" if len(node.failed_batches) > _BATCHES_NAMED else ""
    return f"{len(node.failed_batches):,} of {node.batches or 0:,} batches ({named}{more})"


def stale_as(source: FreshnessResult) -> str:
    """Say of a source that failed its check what is wrong with it.

    Args:
        source: What the check found.
    """
    if source.error or source.status == "runtime error":
        why = f": {source.error}" if source.error else ""
        return f"the freshness of source {source.name} could not be checked{why}"
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
    asked = command_asked(command)
    # After `dbt retry` the file has the kind of the command that was retried.
    return asked in {None, "retry", results.which} or results.which not in _WHICH_KNOWN


def may_have_checked(command: str) -> bool:
    """Whether sources that were found with a command are its own; beside most there lie those of an earlier one.

    Args:
        command: The command as Bolt shows it.
    """
    return calls_dbt(command) and command_asked(command) in {None, "retry", "freshness"}


def command_asked(command: str) -> str | None:
    """Return which of dbt's commands a command line asks for, as dbt's files call it; None if none that is known.

    It is the word in its place: whatever is selected, or set, may be called like a command.

    Args:
        command: The command as Bolt shows it.
    """
    words = command.split()
    start = next((at for at, word in enumerate(words) if word == "dbt" or word.endswith("/dbt")), len(words))
    before = ""
    for word in words[start + 1 :]:
        if word in _DBT_COMMANDS and before not in _WITH_VALUE:
            return _AS_IN_FILES.get(word, word)
        before = word
    return None
