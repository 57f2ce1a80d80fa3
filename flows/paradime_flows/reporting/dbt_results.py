"""Collects the results of a Bolt run's dbt commands from the files that the commands wrote, one file at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar

from paradime_blocks.dbt import (
    FAILED,
    GROUPS,
    FreshnessResult,
    LogReasons,
    Manifest,
    RunResults,
    calls_dbt,
    cause,
    digest,
    explain,
    explain_freshness,
    may_have_checked,
    may_have_written,
    merge,
    parse_freshness,
    parse_manifest,
    parse_run_results,
    unread_freshness,
)
from paradime_blocks.models import BoltCommand, BoltDbtResult
from paradime_blocks.text import Redactor, cell, one_line
from paradime_flows.reporting.dbt_markdown import mark, render_freshness, render_results

Found = TypeVar("Found", bound=Any)
Kind = Literal["manifest", "results", "freshness"]

_ERROR_CHARACTERS = 300
_NOTES_AT_MOST = 20
_KINDS: dict[str, Kind] = {
    "manifest.json": "manifest",
    "run_results.json": "results",
    "sources.json": "freshness",
    "freshness.json": "freshness",
}


# The word that the page shows for each status of a source.
_SOURCES = {
    "error": "stale",
    "fail": "stale",
    "runtime error": "not checked",
    "warn": "warned",
    "pass": "checked",
    "success": "checked",
}


def kind_of(path: str) -> Kind | None:
    """Return the kind of a dbt file with this path. None if this module does not read the file."""
    return _KINDS.get(PurePosixPath(path).name)


def manifest_command(commands: Sequence[BoltCommand], with_manifest: Iterable[int]) -> int | None:
    """Return the number of the command whose manifest is read. Only one manifest is read, because manifests are large.

    The compiled path of a node that failed is only in the manifest of the command in which the node failed. If no
    command failed, the last manifest is read.

    Args:
        commands: The commands of the Bolt run.
        with_manifest: The numbers of the commands that wrote a manifest.
    """
    numbers = sorted(with_manifest)
    failed = [n for n in numbers if commands[n - 1].failed]
    return max(failed or numbers, default=None)


@dataclass
class DbtStory:
    """The results of a Bolt run's dbt commands.

    Attributes:
        parts: The content of each run_results.json, in the order of the commands.
        freshness: The results of the source freshness checks.
        manifest: The dbt manifest; None if no manifest was read.
        besides: The errors of dbt commands that failed although their files show no failure. The key is the command.
        notes: The parts of the files that could not be read, each as a sentence.
    """

    parts: list[RunResults] = field(default_factory=list)
    freshness: list[FreshnessResult] = field(default_factory=list)
    manifest: Manifest | None = None
    besides: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _read: set[bytes] = field(default_factory=set)

    def read(self, kind: Kind, content: bytes, command: str) -> None:
        """Add the content of a dbt file to the results.

        Args:
            kind: The kind of the file.
            content: The content of the file.
            command: The command that wrote the file, as Bolt shows the command.

        Raises:
            DbtArtifactError: The file is not a JSON object.
        """
        if kind == "manifest":
            self.manifest = parse_manifest(content)
            return
        # If a command wrote no file, the file of an earlier command may still exist. Some dbt versions do not store
        # when they wrote a file. So the content of the file is compared with the files that were read before.
        digest = hashlib.sha256(content).digest()
        if digest in self._read:
            return
        self._read.add(digest)
        if kind == "freshness":
            self._check(parse_freshness(content, command=command))
            self._note("The file with the freshness of sources", unread_freshness(content), command)
            return
        results = parse_run_results(content, self.manifest, command=command)
        if not any(_same(results, part) for part in self.parts):
            self.parts.append(results)
            self._note("run_results.json", results.unread, command)

    def _check(self, found: Sequence[FreshnessResult]) -> None:
        checked = {source.unique_id for source in found}
        self.freshness = [*(each for each in self.freshness if each.unique_id not in checked), *found]

    def _note(self, what: str, unread: str | None, command: str) -> None:
        if unread:
            self.notes.append(f"{what} of {one_line(command, 80)} {unread}.")

    def explain(self, command: BoltCommand, log: LogReasons) -> None:
        """Add the errors in a failed command's log to the results of the command.

        Args:
            command: The command that failed.
            log: The errors in the command's log.
        """
        text = command.command
        if not calls_dbt(text):
            return
        own = [
            (at, part)
            for at, part in enumerate(self.parts)
            if part.command == text and may_have_written(text, part)
        ]
        if own:
            at, part = next((each for each in own if _failures(each[1].nodes)), own[-1])
            part = self.parts[at] = explain(part, log)
        else:
            # A command that checks sources also runs hooks, but writes no file with the results of the hooks.
            part = explain(RunResults(command=text), log)
            self.parts[:0] = [part] if part.nodes else []
        failed = bool(_failures(part.nodes))
        if may_have_checked(text):
            checked = [source for source in self.freshness if source.command == text]
            self._check(explain_freshness(checked, log, text))
            failed = failed or bool(_failures(self._checked_by(text)))
        if not failed:
            code = f"ended with return code {command.return_code}"
            self.besides[text] = one_line(log.errors[0], _ERROR_CHARACTERS) if log.errors else code

    def _checked_by(self, command: str) -> list[FreshnessResult]:
        return [
            source for source in self.freshness if source.command == command and may_have_checked(command)
        ]

    def redact(self, redact: Redactor) -> None:
        """Remove secrets from all texts that the page shows.

        Args:
            redact: The object that removes secrets from text.
        """
        self.parts = [
            _redacted(replace(part, nodes=tuple(_redacted(node, redact) for node in part.nodes)), redact)
            for part in self.parts
        ]
        self.freshness = [_redacted(source, redact) for source in self.freshness]
        self.besides = {redact(command): redact(error) for command, error in self.besides.items()}
        self.notes = [redact(note) for note in self.notes]

    @property
    def results(self) -> RunResults:
        """The results of all commands, merged in the same way as dbt would merge them."""
        return merge(self.parts)

    @property
    def built(self) -> RunResults:
        """The merged results of the commands that build something. Commands that only compile are left out."""
        return merge(part for part in self.parts if not part.compile_only)

    @property
    def is_empty(self) -> bool:
        """Whether there are no results and no notes to show."""
        return not self.freshness and not self.notes and not any(part.nodes for part in self.parts)

    def in_short(self, redact: Redactor, unread: Iterable[str] = ()) -> BoltDbtResult:
        """Return the results as data, so that a flow can decide from the results what to do next.

        Args:
            redact: The object that removes secrets from text.
            unread: The files that could not be read. The data lists these files together with `notes`.
        """
        return digest(self.results, self.freshness, redact, [*unread, *self.notes])

    def cause(self) -> str | None:
        """Return what failed in dbt as one sentence; None if nothing failed."""
        found = cause(self.results.nodes, self.freshness)
        return found or next(
            (f"{one_line(command)}: {error}" for command, error in self.besides.items()), None
        )

    def cause_in(self, command: str) -> tuple[str | None, int]:
        """Return what failed in a command as one sentence, and how many nodes failed in other commands.

        Args:
            command: The command, as Bolt shows it.

        Returns:
            The sentence, or None if the results of the command have no failure; and the number of nodes that failed in
            other commands.
        """
        parts = [part for part in self.parts if part.command == command]
        own = parts[-1].nodes if parts and may_have_written(command, parts[-1]) else ()
        checked = self._checked_by(command)
        counted = {node.unique_id for node in own} | {source.unique_id for source in checked}
        failed = {each.unique_id for each in _failures(self.results.nodes)}
        failed |= {each.unique_id for each in _failures(self.freshness)}
        return cause(own, checked), len(failed - counted)

    def counts(self) -> str:
        """Return the number of nodes and sources with each status, as one line of text."""
        counts = Counter(_group(node.status) for node in self.results.nodes)
        words = [f"{counts[word]:,} {word}" for word in (*GROUPS, "unknown") if word in counts]
        sources = Counter(_SOURCES.get(source.status, "unknown") for source in self.freshness)
        words += [
            f"{n:,} {'source' if n == 1 else 'sources'} {word}"
            for word in (*_SOURCES.values(), "unknown")
            if (n := sources.pop(word, 0)) and (word != "checked" or not words)
        ]
        return ", ".join(words)

    def _worst(self) -> str:
        statuses = {node.status for node in self.results.nodes} | {each.status for each in self.freshness}
        groups = {_group(status) for status in statuses}
        if self.notes or "unknown" in groups:
            return "unknown"
        return "warn" if "warned" in groups else "success"

    def render(self, title: str, url: str | None) -> str:
        """Return the page of the results as markdown.

        Args:
            title: The name of the Bolt run for the heading.
            url: The page of the Bolt run in Paradime.
        """
        results = self.results
        why = self.cause()
        parts = [f"# {mark('error' if why else self._worst())} dbt results: {cell(title)}"]
        if why:
            parts.append(f"**{cell(why, 600)}**")
        besides = [f"{one_line(command, 120)}: {error}" for command, error in self.besides.items()]
        parts += [f"**{cell(error, 600)}**" for error in besides[:_NOTES_AT_MOST] if error != why]
        parts += [f"*{cell(note, 400)}*" for note in self.notes[:_NOTES_AT_MOST]]
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


def _group(status: str) -> str:
    """Return the group of a dbt status. A status that we do not know is in the group `unknown`."""
    return next((word for word, statuses in GROUPS.items() if status in statuses), "unknown")


def _failures(found: Iterable[Found]) -> list[Found]:
    return [each for each in found if each.status in FAILED]


def _redacted(found: Found, redact: Redactor) -> Found:
    # Nodes are merged by their ids, so the ids must stay the same. Pages show the name of a node, not the id.
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
