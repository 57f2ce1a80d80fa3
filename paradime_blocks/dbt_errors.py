"""What an error tells of the command that failed: dbt's own words, and the end of its log."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import anyio

from paradime_blocks.dbt_artifacts import parse_run_results
from paradime_blocks.dbt_json import DbtArtifactError
from paradime_blocks.dbt_logs import first_error
from paradime_blocks.dbt_results import FAILED, failures_first
from paradime_blocks.errors import BoltError
from paradime_blocks.fetching import fetch_resource
from paradime_blocks.redaction import Redactor
from paradime_blocks.text import clean, one_line

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient
    from paradime_blocks.credentials import ParadimeCredentials
    from paradime_blocks.models import BoltCommand, BoltCommandDetail

ERRORS_AT_MOST: Final = 5
_CHARACTERS: Final = 220
_LOG_TAIL_CHARACTERS: Final = 4000
_LIMIT_BYTES: Final = 32 * 1024 * 1024
# The run's outcome waits for this; the archive, which comes after it, has the whole.
_SECONDS: Final = 60.0


async def failure_facts(
    client: BoltClient, command: BoltCommand, credentials: ParadimeCredentials
) -> dict[str, Any]:
    """Return the facts that a `BoltRunError` tells of the command that failed.

    Args:
        client: The workspace's client.
        command: The command, as the run's status has it.
        credentials: What must not be shown.

    Returns:
        Command and return code, and the end of its log and dbt's errors as far as they can be fetched: what
        cannot be must not hide the failure.
    """
    redact = Redactor.of(credentials)
    facts: dict[str, Any] = {"command": redact(command.command), "return_code": command.return_code}
    with anyio.move_on_after(_SECONDS):
        try:
            detail = await client.get_bolt_command(command.id)
        except BoltError:
            return facts
        ends = [text[-_LOG_TAIL_CHARACTERS:].strip() for text in (detail.stdout, detail.stderr)]
        log = clean(redact("\n".join(end for end in ends if end)))
        facts["log_tail"] = log[-_LOG_TAIL_CHARACTERS:].strip() or None
        facts["dbt_errors"] = [redact(error) for error in await dbt_errors_of(client, detail)]
    return facts


async def dbt_errors_of(client: BoltClient, command: BoltCommandDetail) -> list[str]:
    """Return one line for each node that failed, at most five; or else the first error of the log.

    Args:
        client: The workspace's client.
        command: The command that failed, with its output and resources.
    """
    for resource in command.resources:
        if PurePosixPath(resource.path).name != "run_results.json":
            continue
        try:
            results = parse_run_results(await fetch_resource(client, resource.id, _LIMIT_BYTES))
        except (BoltError, DbtArtifactError):
            continue
        failed = [node for node in failures_first(results.nodes) if node.status in FAILED]
        if failed:
            told = [
                (node.resource_type.replace("_", " "), node.name, node.message or node.status)
                for node in failed
            ]
            return [
                one_line(f"{kind} {name}: {message}", _CHARACTERS)
                for kind, name, message in told[:ERRORS_AT_MOST]
            ]
    error = first_error(command.stdout) or first_error(command.stderr)
    return [one_line(error, _CHARACTERS)] if error else []
