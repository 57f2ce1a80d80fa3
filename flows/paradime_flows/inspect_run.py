"""The flow `inspect_run`: one page about any Bolt run, as it stands now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paradime_blocks.errors import BoltError
from paradime_blocks.models import (
    BoltAttempt,
    BoltCommandSummary,
    BoltResourceSummary,
    BoltRunResult,
    BoltRunState,
    run_url,
)
from paradime_blocks.text import clean, fence, head_and_tail
from paradime_flows.artifacts import ArtifactWriter, artifact_key
from paradime_flows.calling import async_form, bolt_flow
from paradime_flows.context import current_flow_run_id, resolve_credentials
from paradime_flows.parameters import CredentialsParameter, RunId
from paradime_flows.summary import RunRecord, render_summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paradime_blocks.models import BoltCommand

_LOG_BYTES = 20_000


@bolt_flow(
    name="inspect-run",
    description="Shows a Paradime Bolt run as it stands now: state, commands, ends of their logs, files.",
    flow_run_name="inspect-{run_id}",
)
async def inspect_run(run_id: RunId, credentials: CredentialsParameter = None) -> BoltRunResult:
    """Show a Bolt run as it stands now, in one page; nothing is waited for, and no end of it is a failure.

    Args:
        run_id: The id of the run, as in its address in Paradime.
        credentials: A Paradime Credentials block or the name of one. Empty: the environment's.

    Returns:
        What is known of the run.

    Raises:
        BoltError: The run cannot be seen.

    Example:
        ```python
        from paradime_flows.inspect_run import inspect_run

        print(inspect_run(76035, "production").state)
        ```
    """
    record = RunRecord(schedule_name=None, run_id=run_id)
    resources: list[BoltResourceSummary] = []
    async with (await resolve_credentials(credentials)).get_client() as client:
        status = record.status = await client.get_bolt_run(run_id)
        record.state = status.state
        try:
            # Both are for the page alone.
            record.schedule_name = await client.find_schedule_of_run(run_id)
            found = await client.get_bolt_command_resources([command.id for command in status.commands])
            resources = [
                BoltResourceSummary(id=resource.id, path=resource.path, command_id=command_id)
                for command_id, left in found.items()
                for resource in left
            ]
        except BoltError as error:
            record.problems.append(f"schedule and files: {error}")
    if not status.state.is_terminal:
        record.outcome = f"The run has not ended yet ({status.state})."
    page = "\n\n".join([render_summary(record).rstrip(), *(_log(command) for command in status.commands)])
    writer = ArtifactWriter(current_flow_run_id())
    key = artifact_key("paradime-inspect", str(run_id))
    await writer.markdown(key, f"{page}\n", f"Bolt run {run_id} is {status.state}.")
    return result_of(record, resources)


ainspect_run = async_form(inspect_run)


def _log(command: BoltCommand) -> str:
    text = clean("\n".join(stream.rstrip() for stream in (command.stdout, command.stderr) if stream.strip()))
    shown, omitted = head_and_tail(text, _LOG_BYTES)
    told = f" ({omitted:,} bytes left out in the middle)" if omitted else ""
    return f"## Log of command {command.id}{told}\n\n{fence(shown)}"


def result_of(record: RunRecord, resources: Sequence[BoltResourceSummary]) -> BoltRunResult:
    """Return what is known of a run as a result, whatever its state.

    Args:
        record: What is known of it.
        resources: The files that it left behind.
    """
    assert record.run_id is not None  # noqa: S101 - the callers have looked at it
    status = record.status
    state = status.state if status is not None else record.state or BoltRunState("UNKNOWN")
    started = status.started_at if status is not None else None
    ended = status.ended_at if status is not None else None
    return BoltRunResult(
        run_id=record.run_id,
        schedule_name=record.schedule_name,
        state=state,
        url=run_url(record.run_id),
        started_at=started,
        ended_at=ended,
        commands=[BoltCommandSummary.of(command) for command in status.commands] if status else [],
        resources=list(resources),
        attempts=[BoltAttempt(run_id=record.run_id, state=state, started_at=started, ended_at=ended)],
    )
