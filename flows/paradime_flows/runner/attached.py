"""Checks whether a Bolt run of another client does what this flow run requested.

The flow run waits for that Bolt run instead of a Bolt run of its own.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from paradime_blocks import BoltAlreadyRunning, BoltError, BoltRequestError, BoltRun, BoltRunState
from paradime_blocks.models import BoltGitInfo, count_setup
from paradime_blocks.text import Redactor
from paradime_blocks.trigger import DecisionLog, Fit, TriggerRequest, checked_out, first_of
from paradime_flows.prefect_api import run_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paradime_flows.ledger import Record
    from paradime_flows.runner.policies import RunPolicies

_CHARACTERS = 150


async def check_what_it_did(
    run: BoltRun, request: TriggerRequest, record: Record, policies: RunPolicies
) -> str | None:
    """Describe how a Bolt run that has succeeded differs from the request; None if it does not differ.

    Bolt shows all commands of a Bolt run only after the Bolt run has succeeded. A difference is noted in the record.

    Raises:
        BoltAlreadyRunning: The Bolt run differs from the request, and the policy is `attach_if_same`.
    """
    differs = await how_it_differs(run, request)
    if differs is not None:
        DecisionLog(record.notes, log=run_logger().warning).note(differs)
        if policies.on_already_running == "attach_if_same":
            raise BoltAlreadyRunning(differs, schedule_name=record.schedule, run_id=run.run_id, url=run.url)
    return differs


async def how_it_differs(run: BoltRun, request: TriggerRequest) -> str | None:
    """Describe how another client's Bolt run differs from the request; None if no difference is known so far."""
    git: BoltGitInfo | None = None
    try:
        async with run.credentials.get_client() as client:
            status = await client.get_bolt_run(run.run_id, logs=False)
            asked = request.commands or (await client.get_bolt_schedule(request.schedule_name)).commands
            # Some backends cannot list runs. The branch is then not compared.
            with suppress(BoltRequestError):
                page = await client.list_bolt_runs(request.schedule_name)
                git = next((record.git_info for record in page.runs if record.id == run.run_id), None)
    except BoltError as error:
        return f"It is unknown whether Bolt run {run.run_id} differs from the request: {error.message}"
    shown = [command.command for command in status.commands]
    redact = Redactor.of(run.credentials)
    differences = []
    if not _runs_commands(asked, shown, is_whole=status.state == BoltRunState.SUCCESS):
        own = redact.line("; ".join(shown[count_setup(shown) :] or shown), _CHARACTERS)
        differences.append(f"commands {own!r} instead of {redact.line('; '.join(asked), _CHARACTERS)!r}")
    if checked_out(request.branch, git) is Fit.NO and git is not None:
        differences.append(f"branch {git.branch or git.commit_hash!r} instead of {request.branch!r}")
    if not differences:
        return None
    return f"Bolt run {run.run_id} differs from the request: {', and '.join(differences)}."


def _runs_commands(asked: Sequence[str], shown: Sequence[str], *, is_whole: bool) -> bool:
    """Whether the commands of a Bolt run are the requested commands, as far as Bolt shows them.

    While a Bolt run is running (`is_whole` is False), Bolt shows only the commands that have started.
    """
    if not asked or (not is_whole and count_setup(shown) == len(shown)):
        return True
    first = first_of(asked, shown)
    return first is not None and not (is_whole and len(shown) - first < len(asked))
