"""Says in one sentence why a Bolt run did not succeed. The sentence agrees with the error that the flow raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paradime_blocks.dbt import calls_dbt
from paradime_blocks.errors import BoltError, BoltRunError
from paradime_blocks.models import BoltCommand, BoltRunState, BoltRunStatus
from paradime_blocks.text import one_line

if TYPE_CHECKING:
    from paradime_flows.reporting.dbt_results import DbtStory

_COMMAND_CHARACTERS = 120
_LOG_CHARACTERS = 300


def cause_of(status: BoltRunStatus, story: DbtStory, error: str | None, last: str | None) -> str | None:
    """Return one sentence that says why a Bolt run did not succeed.

    The sentence begins with the command that ended the Bolt run, as the error that the flow raises does. The function
    takes the cause from the dbt results of this command, or else from the command's log, or else from the command's
    return code. With `continueOnError`, other commands may have failed before. The sentence says how many other
    commands or nodes failed.

    Args:
        status: The status of the Bolt run, without secrets.
        story: The results of the Bolt run's dbt commands, without secrets.
        error: The first error in the log of the command that ended the Bolt run.
        last: The last line of the log of the command that ended the Bolt run.

    Returns:
        One line of plain text, not escaped for markdown. None if there is nothing to explain.
    """
    command = status.decisive_command
    if status.state == BoltRunState.CANCELED and command is not None and command.return_code is None:
        return f"{one_line(command.command, _COMMAND_CHARACTERS)} was running when the run was cancelled"
    if status.state not in BoltRunState.FAILURES:
        return None
    if command is None:
        return story.cause()
    found, others = story.cause_in(command.command) if command.return_code is not None else (None, 0)
    logged = (
        f"{one_line(command.command, _COMMAND_CHARACTERS)}: {one_line(error, _LOG_CHARACTERS)}"
        if error
        else None
    )
    # If the command is a script, an earlier command may have written the dbt files. So the script's log comes first.
    cause = (found or logged) if calls_dbt(command.command) else (logged or found)
    cause = cause or _with(last, _ended(command))
    if others:
        return f"{cause}; failed nodes in other commands: {others}"
    failed = sum(each.failed and each.id != command.id for each in status.commands)
    return f"{cause}; {failed} more {'command' if failed == 1 else 'commands'} failed" if failed else cause


def _ended(command: BoltCommand) -> str:
    code = (
        "without a return code" if command.return_code is None else f"with return code {command.return_code}"
    )
    return f"Command {one_line(command.command, _COMMAND_CHARACTERS)} ended {code}"


def _with(last: str | None, cause: str) -> str:
    return f"{cause}: {one_line(last, _LOG_CHARACTERS)}" if last else cause


def outcome_text(outcome: BaseException | None) -> str | None:
    """Return the text of an error for the top of the summary; None if there is no error."""
    if isinstance(outcome, BoltRunError) and outcome.command_summary:
        return f"{outcome.message} {outcome.command_summary}"
    if isinstance(outcome, BoltError):
        return f"{outcome.message} {outcome.guidance}"
    return str(outcome) if outcome is not None else None
