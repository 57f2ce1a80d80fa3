"""Decides from the commands of a run in an unknown state whether the run has ended, and how.

Bolt's states are not completely documented. The name of an unknown state never shows that the run has ended. But if the
state lasts and no command is running, the run counts as ended. Without this rule, the wait would continue until the
time limit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from paradime_blocks.models.states import BoltRunState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paradime_blocks.models.runs import BoltRunStatus

# From the end of a command to the start of the next one, or to the end of the run, Bolt takes only seconds.
SETTLING_SECONDS = 120.0
SETUP_COMMANDS = ("git clone", "dbt deps")
_BAD = re.compile(r"cancel|fail|err|time|abort|kill|stop|terminat|reject|expire|skip", re.IGNORECASE)


def count_setup(shown: Sequence[str]) -> int:
    """Return the number of Bolt's own commands at the beginning of a run, before the schedule's commands."""
    return next((n for n, one in enumerate(shown) if not one.startswith(SETUP_COMMANDS)), len(shown))


def end_by_commands(status: BoltRunStatus) -> BoltRunState | None:
    """Return the final state of a run in an unknown state, derived from the run's commands.

    The result is None if the state is known, if a command is running, or if no command of the schedule has ended.

    Args:
        status: The run's status.
    """
    commands = status.commands
    running = any(command.return_code is None and command.end_dttm is None for command in commands)
    if status.state.is_known or running or not commands:
        return None
    if any(command.return_code != 0 for command in commands):
        return BoltRunState.FAILED
    if count_setup([command.command for command in commands]) == len(commands):
        return None
    return BoltRunState.FAILED if _BAD.search(status.state) else BoltRunState.SUCCESS


def settled(status: BoltRunStatus, now: float | None) -> BoltRunStatus:
    """Return a run's status. An unknown state is replaced two minutes after the last command has ended.

    The new state is derived from the commands, as `end_by_commands` describes.

    Args:
        status: The status that Bolt returned.
        now: The time by Bolt's clock, in seconds since the epoch; None if Bolt's time is unknown.
    """
    end = end_by_commands(status)
    ended = max((command.end_dttm for command in status.commands if command.end_dttm), default=None)
    if end is None or ended is None or now is None or now - ended.timestamp() < SETTLING_SECONDS:
        return status
    return status.model_copy(update={"state": end, "reported_state": status.state})
