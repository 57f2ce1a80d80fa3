"""Shows each command of a Bolt run as a task run.

The task run begins and ends when the command does, exact to one poll.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import anyio
from prefect.states import Cancelled, Completed, Failed

from paradime_blocks import BoltError, BoltRunState, ParadimeCredentials
from paradime_blocks.dbt.errors import failure_facts
from paradime_blocks.text import Redactor, shorten
from paradime_flows.prefect_api import ShownTaskRun, times
from paradime_flows.reporting.markdown import moment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prefect.client.schemas.objects import State

    from paradime_blocks.models import BoltCommand, BoltRunStatus

_NAME_CHARACTERS: Final = 80
_MESSAGE_CHARACTERS: Final = 300


class CommandTaskRuns:
    """The task runs of the commands of one Bolt run.

    Args:
        credentials: The credentials of the Bolt run's workspace.
        logs: Whether the output of the commands is logged. The task run of a command then ends after its output.
    """

    def __init__(self, credentials: ParadimeCredentials, *, logs: bool = False) -> None:
        self._credentials = credentials
        self._redact = Redactor.of(credentials)
        self._shown: dict[int, ShownTaskRun] = {}
        self._ending: dict[int, asyncio.Task[None]] = {}
        self._logged: dict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._logs = logs

    def of(self, command_id: int) -> ShownTaskRun | None:
        """Return the task run that shows a command; None if no task run shows the command."""
        return self._shown.get(command_id)

    async def update(self, status: BoltRunStatus) -> None:
        """Begin the task runs of commands that have begun, and end the task runs of commands that have ended.

        Args:
            status: The Bolt run's status from the last poll.
        """
        for n, command in enumerate(status.commands, 1):
            if command.id not in self._shown:
                name = f"{n} {self._redact.line(command.command, _NAME_CHARACTERS)}"
                self._shown[command.id] = await ShownTaskRun.begin(name)
            if command.id not in self._ending and (command.has_ended or status.state.is_terminal):
                # The error of a failed command is fetched, which must not delay the next poll.
                ending = self._end(self._shown[command.id], command, status.state)
                self._ending[command.id] = asyncio.create_task(ending)

    def output_is_logged(self, command_ids: Iterable[int]) -> None:
        """Let the task runs of these commands end: the whole output of the commands has been logged."""
        for command_id in command_ids:
            self._logged[command_id].set()

    async def close(self) -> None:
        """End all task runs. The task run of a command that has not ended is Cancelled: nobody watches it any more."""
        self.output_is_logged(self._shown)
        if self._ending:
            await asyncio.wait(self._ending.values(), timeout=times().last_fetch_seconds)
        for shown in self._shown.values():
            await shown.end(
                Cancelled(message="The command had not ended when the flow run stopped watching it.")
            )

    async def _end(self, shown: ShownTaskRun, command: BoltCommand, run: BoltRunState) -> None:
        state = await self._state_of(command, run)
        if self._logs:
            with anyio.move_on_after(times().command_output_seconds):
                await self._logged[command.id].wait()
        await shown.end(state)

    async def _state_of(self, command: BoltCommand, run: BoltRunState) -> State[Any]:
        when = _when(command)
        if command.return_code == 0:
            return Completed(message=f"Return code 0{when}.")
        if command.return_code is None and run not in BoltRunState.FAILURES:
            return Cancelled(message=f"The Bolt run ended as {run} while this command was running.")
        code = "No return code" if command.return_code is None else f"Return code {command.return_code}"
        error = await self._error_of(command)
        return Failed(message=error or f"{code}{when}.")

    async def _error_of(self, command: BoltCommand) -> str | None:
        """Return dbt's first error of a command that failed, or else the last line of the command's log."""
        try:
            async with self._credentials.get_client() as client:
                facts = await failure_facts(client, command, self._credentials)
        except BoltError:
            return None
        lines = facts.get("dbt_errors") or (facts.get("log_tail") or "").splitlines()[-1:]
        return self._redact.line(lines[0], _MESSAGE_CHARACTERS) if lines else None


def _when(command: BoltCommand) -> str:
    """Return how long a command took, and when it ended. A task run may begin after the command has ended."""
    if command.duration_seconds is None:
        return ""
    return f" after {shorten(command.duration_seconds)}, at {moment(command.end_dttm)} UTC"
