"""What the dbt commands of a Bolt run left behind, gathered from its resources one file at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from paradime_blocks.dbt.artifacts import (
    FreshnessResult,
    Manifest,
    NodeResult,
    RunResults,
    parse_freshness,
    parse_manifest,
    parse_run_results,
)
from paradime_blocks.dbt.results import (
    FAILED,
    SKIPPED,
    WARNED,
    cause,
    checks_freshness,
    may_have_written,
    merge,
)
from paradime_blocks.models import BoltCommand
from paradime_blocks.text.rendering import cell
from paradime_flows.reporting.dbt_markdown import mark, render_freshness, render_results

if TYPE_CHECKING:
    from paradime_blocks.text.redaction import Redactor

Found = TypeVar("Found", bound=Any)
Kind = Literal["manifest", "results", "freshness"]

_KINDS: dict[str, Kind] = {
    "manifest.json": "manifest",
    "run_results.json": "results",
    "sources.json": "freshness",
    "freshness.json": "freshness",
}


def kind_of(path: str) -> Kind | None:
    """Return what a resource is to dbt, by its name; None if nothing that is read here."""
    return _KINDS.get(PurePosixPath(path).name)


def manifest_command(commands: Sequence[BoltCommand], with_manifest: Iterable[int]) -> int | None:
    """Return the number of the command whose manifest to read: one is enough, and a manifest is large.

    A node that failed has its compiled path in the manifest of its own command only; without a failure,
    the last one knows most.

    Args:
        commands: The run's commands.
        with_manifest: The numbers of those that left a manifest.
    """
    numbers = sorted(with_manifest)
    failed = [n for n in numbers if commands[n - 1].failed]
    return max(failed or numbers, default=None)


@dataclass
class DbtStory:
    """The results of a run's dbt commands.

    Attributes:
        parts: What each run_results.json says, in the order of the commands.
        freshness: What the source freshness checks say.
        manifest: The manifest, if there is one.
    """

    parts: list[RunResults] = field(default_factory=list)
    freshness: list[FreshnessResult] = field(default_factory=list)
    manifest: Manifest | None = None
    _read: set[bytes] = field(default_factory=set)

    def read(self, kind: Kind, content: bytes, command: str) -> None:
        """Take a file in.

        Args:
            kind: What it is.
            content: The file.
            command: The command that left it, as Bolt shows it.

        Raises:
            DbtArtifactError: It is no JSON object.
        """
        if kind == "manifest":
            self.manifest = parse_manifest(content)
        elif kind == "freshness":
            found = parse_freshness(content)
            checked = {source.unique_id for source in found}
            self.freshness = [source for source in self.freshness if source.unique_id not in checked] + [
                *found
            ]
        else:
            # A command that wrote none may find, and leave, that of the command before it. Not every dbt says
            # when it wrote a file, so the content itself is compared, too.
            digest = hashlib.sha256(content).digest()
            if digest in self._read:
                return
            self._read.add(digest)
            results = parse_run_results(content, self.manifest, command=command)
            if not any(_same(results, part) for part in self.parts):
                self.parts.append(results)

    def redact(self, redact: Redactor) -> None:
        """Take the secrets out of all that is told of what was read.

        Args:
            redact: Takes secrets out of text.
        """
        self.parts = [
            _redacted(replace(part, nodes=tuple(_redacted(node, redact) for node in part.nodes)), redact)
            for part in self.parts
        ]
        self.freshness = [_redacted(source, redact) for source in self.freshness]

    @property
    def results(self) -> RunResults:
        """All results, merged as dbt would."""
        return merge(self.parts)

    @property
    def built(self) -> RunResults:
        """The results of the commands that build something, merged: to compile a model is not to build it."""
        return merge(part for part in self.parts if not part.compile_only)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.freshness and not any(part.nodes for part in self.parts)

    def cause(self) -> str | None:
        """Say in one sentence what failed; None if nothing did."""
        return cause(self.results.nodes, self.freshness)

    def cause_in(self, command: str) -> tuple[str | None, int]:
        """Say in one sentence what failed in a command, and how much failed in the others.

        Args:
            command: The command, as Bolt shows it.

        Returns:
            The sentence, None if its results tell of no failure; and the failures that it does not count.
        """
        if checks_freshness(command):
            own: Sequence[NodeResult] = ()
            told = cause((), self.freshness)
        else:
            parts = [part for part in self.parts if part.command == command]
            own = parts[-1].nodes if parts and may_have_written(command, parts[-1]) else ()
            told = cause(own)
        counted = {node.unique_id for node in own}
        failed = [node for node in self.results.nodes if node.status in FAILED]
        stale = (
            [] if checks_freshness(command) else [each for each in self.freshness if each.status in FAILED]
        )
        return told, sum(node.unique_id not in counted for node in failed) + len(stale)

    def told(self) -> str:
        """Return the counts in one line."""
        counts: dict[str, int] = {}
        for node in self.results.nodes:
            word = next(
                (
                    word
                    for word, group in (("failed", FAILED), ("warned", WARNED), ("skipped", SKIPPED))
                    if node.status in group
                ),
                "succeeded",
            )
            counts[word] = counts.get(word, 0) + 1
        stale = sum(source.status in FAILED for source in self.freshness)
        told = [
            f"{counts[word]:,} {word}"
            for word in ("failed", "warned", "skipped", "succeeded")
            if word in counts
        ]
        if stale:
            told.append(f"{stale:,} {'source' if stale == 1 else 'sources'} stale")
        elif self.freshness and not told:
            told.append(f"{len(self.freshness):,} sources checked")
        return ", ".join(told)

    def render(self, title: str, url: str | None) -> str:
        """Return the results as markdown.

        Args:
            title: What to call the run.
            url: The run's page in Paradime.
        """
        results = self.results
        why = self.cause()
        worst = (
            "error"
            if why
            else ("warn" if any(node.status in WARNED for node in results.nodes) else "success")
        )
        parts = [f"# {mark(worst)} dbt results: {cell(title)}"]
        if why:
            parts.append(f"**{cell(why, 600)}**")
        facts = [
            f"[Bolt run]({url})" if url else "",
            f"dbt {cell(results.dbt_version)}" if results.dbt_version else "",
        ]
        commands = [part.command for part in self.parts if part.command]
        if len(commands) > 1:
            facts.append(f"merged from {', '.join(cell(command, 80) for command in commands[:20])}")
        parts.append(", ".join(fact for fact in facts if fact))
        nodes = render_results(results.nodes)
        if nodes:
            parts.append(nodes)
        if self.freshness:
            parts += ["#### Source freshness", render_freshness(self.freshness)]
        return "\n\n".join(part for part in parts if part) + "\n"


def _redacted(found: Found, redact: Redactor) -> Found:
    # By its id a node is merged; what is shown of it is its name.
    texts = {
        each.name: redact(text)
        for each in fields(found)
        if isinstance(text := getattr(found, each.name), str) and each.name not in {"unique_id", "status"}
    }
    changed = {name: text for name, text in texts.items() if text != getattr(found, name)}
    return replace(found, **changed) if changed else found


def _same(one: RunResults, other: RunResults) -> bool:
    known = one.generated_at is not None and one.generated_at == other.generated_at
    return known and one.elapsed_seconds == other.elapsed_seconds and len(one.nodes) == len(other.nodes)
