"""Collects the facts for an error about the command that failed: dbt's error messages and the end of the log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import anyio

from paradime_blocks.client.downloads import fetch_resource
from paradime_blocks.dbt.artifacts import (
    FreshnessResult,
    NodeResult,
    RunResults,
    parse_freshness,
    parse_run_results,
)
from paradime_blocks.dbt.json import DbtArtifactError
from paradime_blocks.dbt.reasons import explain, explain_freshness, reasons_in
from paradime_blocks.dbt.results import (
    FAILED,
    calls_dbt,
    failed_as,
    failures_first,
    may_have_checked,
    may_have_written,
    stale_as,
)
from paradime_blocks.errors import BoltError
from paradime_blocks.text.redaction import Redactor
from paradime_blocks.text.rendering import clean

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient
    from paradime_blocks.client.ended_commands import SpooledCommand
    from paradime_blocks.credentials import ParadimeCredentials
    from paradime_blocks.models import BoltCommand

ERRORS_AT_MOST: Final = 5
_CHARACTERS: Final = 220
_LOG_TAIL_CHARACTERS: Final = 4000
_LOG_END_BYTES: Final = 80_000
_FRESHNESS: Final = ("sources.json", "freshness.json")
_LIMIT_BYTES: Final = 32 * 1024 * 1024
# The time limit for these facts: the run's result waits for them. The archive, which is written later, has them all.
_SECONDS: Final = 60.0


async def failure_facts(
    client: BoltClient, command: BoltCommand, credentials: ParadimeCredentials
) -> dict[str, Any]:
    """Return the facts for a `BoltRunError` about the command that failed, or that was running when the run ended.

    Args:
        client: The workspace's client.
        command: The command, as the run's status contains it.
        credentials: The credentials; their secrets are removed.

    Returns:
        The command and its return code. If Bolt returns the log, the facts also contain the end of the log and dbt's
        errors.
    """
    redact = Redactor.of(credentials)
    broken_off = command.return_code is None
    told = redact(clean(command.command))
    facts: dict[str, Any] = {"command": told, "return_code": command.return_code}
    with anyio.move_on_after(_SECONDS), TemporaryDirectory(prefix="bolt-log-") as folder:
        try:
            output = (await client.spool_bolt_commands([command.id], Path(folder)))[command.id]
        except (BoltError, OSError):
            return facts
        texts = (output.stdout, output.stderr)
        ends = [redact.tail(text.end(_LOG_END_BYTES), _LOG_TAIL_CHARACTERS) for text in texts]
        log = "\n".join(end for end in ends if end)
        facts["log_tail"] = log[-_LOG_TAIL_CHARACTERS:].strip() or None
        # A command that was stopped may not have written files. The files in dbt's folder may be from an earlier
        # command.
        files = [] if broken_off else output.resources
        facts["dbt_errors"] = await dbt_errors_of(
            client, replace(output, resources=files), command.command, redact
        )
    return facts


async def dbt_errors_of(
    client: BoltClient, output: SpooledCommand, command: str, redact: Redactor
) -> list[str]:
    """Return one line for each node or source that failed, at most five. If none failed, return the log's first error.

    Args:
        client: The workspace's client.
        output: The output and the files of the command that failed.
        command: The command's text.
        redact: Removes secrets from the lines.
    """
    # The log is read in a thread, since a log may be large and other tasks need the event loop.
    pieces = (piece for text in (output.stdout, output.stderr) for piece in text.pieces())
    log = await anyio.to_thread.run_sync(reasons_in, pieces)
    # The text is cut last, after secrets have been removed.
    said = [redact.line(error, _CHARACTERS) for error in log.errors[:1]]
    if said and not calls_dbt(command):
        return said
    results = RunResults()
    sources: tuple[FreshnessResult, ...] = ()
    for resource in output.resources:
        name = PurePosixPath(resource.path).name
        try:
            if name in _FRESHNESS and may_have_checked(command):
                sources = parse_freshness(await fetch_resource(client, resource.id, _LIMIT_BYTES))
            elif name == "run_results.json":
                found = parse_run_results(await fetch_resource(client, resource.id, _LIMIT_BYTES))
                results = found if may_have_written(command, found) else results
        except (BoltError, DbtArtifactError):
            continue
    if may_have_checked(command):
        sources = explain_freshness(sources, log)
    failed = [
        f"{node.resource_type.replace('_', ' ')} {node.name}{_reason(node)}"
        for node in failures_first(explain(results, log).nodes)
        if node.status in FAILED
    ]
    failed += [stale_as(source) for source in sources if source.status in FAILED]
    return [redact.line(line, _CHARACTERS) for line in failed[:ERRORS_AT_MOST]] or said


def _reason(node: NodeResult) -> str:
    if node.failed_batches:
        return f" {failed_as(node)}"
    return f": {node.message or node.status}"
