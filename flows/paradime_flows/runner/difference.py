"""Compares the Bolt run of another client with a request, for `attach` and `attach_if_same`."""

from __future__ import annotations

from contextlib import suppress

from paradime_blocks import BoltError, BoltRequestError, BoltRun, BoltRunState
from paradime_blocks.models import count_setup
from paradime_blocks.text import Redactor
from paradime_blocks.trigger import Fit, TriggerRequest, checked_out, fingerprint_of, first_of

_CHARACTERS = 150


async def difference_of(run: BoltRun, request: TriggerRequest) -> str | None:
    """Say in what a Bolt run differs from a request: in its commands, or in its branch. None if nothing is known."""
    differs = f"Bolt run {run.run_id} differs from the request"
    try:
        differences = await _differences_of(run, request)
    except BoltError as error:
        return f"It is unknown whether {differs}: {error.message}"
    return f"{differs}: {', and '.join(differences)}." if differences else None


async def _differences_of(run: BoltRun, request: TriggerRequest) -> list[str]:
    git = None
    async with run.credentials.get_client() as client:
        status = await client.get_bolt_run(run.run_id, logs=False)
        asked = request.commands or (await client.get_bolt_schedule(request.schedule_name)).commands
        # Some backends cannot list runs. The branch is then not compared.
        with suppress(BoltRequestError):
            page = await client.list_bolt_runs(request.schedule_name)
            git = next((record.git_info for record in page.runs if record.id == run.run_id), None)
    shown = [command.command for command in status.commands]
    first = first_of([*map(fingerprint_of, asked)], shown)
    # Until the Bolt run has succeeded, Bolt shows only the commands that have started.
    is_whole = status.state == BoltRunState.SUCCESS
    differences = []
    if asked and (first is None or (is_whole and len(shown) - first < len(asked))):
        redact = Redactor.of(run.credentials)
        own = redact.line("; ".join(shown[count_setup(shown) :] or shown), _CHARACTERS)
        differences.append(f"commands {own!r} instead of {redact.line('; '.join(asked), _CHARACTERS)!r}")
    if git is not None and checked_out(request.branch, git) is Fit.NO:
        differences.append(f"branch {git.branch or git.commit_hash!r} instead of {request.branch!r}")
    return differences
