"""Why a run did not succeed, in one sentence that agrees with the run's error."""

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
    """Return why a Bolt run did not succeed.

    The sentence begins with the command that ended the run, as the run's error does. The cause is in the results of
    this command, or else in its log, or else it is its return code. With `continueOnError`, other commands may have
    failed before. The sentence counts them.

    Args:
        status: The run's status, without secrets.
        story: The results of the run's dbt commands, without secrets.
        error: The first error in the log of the command that ended the run.
        last: The last line of that log.

    Returns:
        One line of plain text, not escaped for markdown; None if there is nothing to explain.
    """
    command = status.decisive_command
    if status.state == BoltRunState.CANCELED and command is not None and command.return_code is None:
        return _with(
            last, f"{one_line(command.command, _COMMAND_CHARACTERS)} was running when the run was canceled"
        )
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
    # If the command is a script, the dbt files may be from an earlier command. So the script's log comes first.
    cause = (found or logged) if calls_dbt(command.command) else (logged or found)
    cause = cause or _with(last, _ended(command))
    if others:
        return f"{cause}; {others} more failed in other commands"
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
    """Return the error as text for the top of the summary."""
    if isinstance(outcome, BoltRunError) and outcome.command_summary:
        return f"{outcome.message} {outcome.command_summary}"
    if isinstance(outcome, BoltError):
        return f"{outcome.message} {outcome.guidance}"
    return str(outcome) if outcome is not None else None
