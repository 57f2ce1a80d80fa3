"""Shows a Bolt run while it runs: its commands as task runs, its output in the flow run's log, and its progress.

While the flow waits, each poll of the Bolt run updates the view. An error of the view is logged once and never ends the
wait. The output is fetched in the background. If the output of a command is complete, the Bolt run is polled at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

import anyio

from paradime_blocks import BoltError, BoltRun, BoltRunState
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.text import Redactor, cell
from paradime_flows.live.command_task_runs import CommandTaskRuns
from paradime_flows.live.log_position import FlowRunJournal
from paradime_flows.live.log_stream import LiveLogs
from paradime_flows.live.progress import ProgressArtifact, percent_done
from paradime_flows.prefect_api import artifact_key, run_logger, times

if TYPE_CHECKING:
    from types import TracebackType

    from prefect.client.schemas.objects import FlowRun
    from typing_extensions import Self

    from paradime_blocks.models import BoltRunStatus
    from paradime_blocks.polling import Observation
    from paradime_flows.choices import LiveLogsMode


class LiveView:
    """Shows the Bolt runs that a flow run waits for, one after the other.

    The flow may stop waiting before the Bolt run has ended. Then the output so far is logged at the end of the
    `async with` block. After an interrupt, no more output is fetched.

    Args:
        flow_run_id: The flow run.
        schedule_name: The schedule of the Bolt runs; None if it is unknown.
        logs: How much of each command's output is logged.
        command_task_runs: Whether each command is shown as a task run.
        planned: The commands that each Bolt run is to execute. If empty, a Bolt run executes its schedule's commands.

    Attributes:
        stored: The flow run, if it was read since the Bolt run was obtained.
    """

    def __init__(
        self,
        flow_run_id: UUID,
        schedule_name: str | None,
        logs: LiveLogsMode = "all",
        *,
        command_task_runs: bool = True,
        planned: Sequence[str] = (),
    ) -> None:
        self.flow_run_id = flow_run_id
        self.schedule_name = schedule_name
        self.logs = logs
        self.command_task_runs = command_task_runs
        self.planned = planned
        self.stored: FlowRun | None = None
        self._shown: _ShownRun | None = None

    async def watch(self, run: BoltRun, seen: Observation) -> None:
        """Show the result of a poll."""
        if self._shown is None or self._shown.run.run_id != run.run_id:
            if self._shown is not None:
                await self._shown.close(drain=False)
            self._shown = _ShownRun(run, self)
        await self._shown.watch(seen)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown is not None:
            await self._shown.close(drain=kind is None or issubclass(kind, Exception))


class _ShownRun:
    """One Bolt run that is shown."""

    def __init__(self, run: BoltRun, view: LiveView) -> None:
        self.run = run
        self._view = view
        self._name = view.schedule_name or f"run {run.run_id}"
        self._redact = Redactor.of(run.credentials)
        self._commands = (
            CommandTaskRuns(run.credentials, logs=view.logs != "off") if view.command_task_runs else None
        )
        self._logs = (
            None
            if view.logs == "off"
            else LiveLogs(
                run.run_id,
                run.credentials,
                FlowRunJournal(view.flow_run_id, view.stored),
                view.logs,
                task_run_of=self._commands.of if self._commands else lambda _: None,
            )
        )
        self._progress = ProgressArtifact(
            view.flow_run_id,
            artifact_key("paradime-progress", self._name),
            run.run_id,
            stored=view.stored,
        )
        self._planned: list[str] | None = None
        self._latest: Observation | None = None
        self._fetches: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._reported: set[str] = set()
        self._over = False

    async def watch(self, seen: Observation) -> None:
        """Show the result of a poll. Each kind of error is logged once."""
        status = seen.status
        if status is None:
            return
        await self._show_commands(status)
        if status.state.is_terminal:
            await self._finish_fetch()
            if self._logs is not None:
                await self._drain(self._logs, status)
        elif self._logs is not None:
            self._follow(self._logs, status, seen)
        await self._show_progress(status)

    async def close(self, *, drain: bool) -> None:
        """Stop showing the run.

        Args:
            drain: Whether to fetch and log the output so far, if the run had not ended at the last poll. If false,
                only the lines that were fetched are logged.
        """
        try:
            if not drain:
                await self._log_fetched_lines()
            elif not self._over:
                await self._catch_up_at_the_end()
        finally:
            if self._commands is not None:
                await self._commands.close()

    async def _log_fetched_lines(self) -> None:
        """Stop the fetches, and log the lines that wait for the next batch. After an interrupt there is little time."""
        if self._logs is None:
            return
        # After an error, the stored position is before these lines, so another attempt of the flow run logs them.
        with suppress(Exception), anyio.move_on_after(times().prefect_answer_seconds, shield=True):
            if self._fetches is not None:
                self._fetches.cancel()
                await asyncio.wait({self._fetches})
            await self._logs.write()

    async def _catch_up_at_the_end(self) -> None:
        await self._finish_fetch()
        status: BoltRunStatus | None = None
        policy = RetryPolicy(attempts=2, total_seconds=times().last_status_seconds)
        try:
            with anyio.move_on_after(times().last_fetch_seconds):
                async with self.run.credentials.get_client(retry_policy=policy) as client:
                    status = await client.get_bolt_run(self.run.run_id, logs=False)
        except BoltError as error:
            self._report("output", error)
        if status is None:
            return
        await self._show_commands(status)
        if self._logs is not None and status.state.is_terminal:
            await self._drain(self._logs, status)
        elif self._logs is not None:
            await self._catch_up(self._logs, status, at_once=True)
        await self._show_progress(status)

    async def _show_commands(self, status: BoltRunStatus) -> None:
        if self._commands is None:
            return
        try:
            await self._commands.update(status)
        except Exception as error:  # noqa: BLE001 - an error here must not end the wait
            self._report("commands", error)

    async def _drain(self, logs: LiveLogs, status: BoltRunStatus) -> None:
        await logs.drain(status)
        if self._commands is not None:
            self._commands.output_is_logged(command.id for command in status.commands)

    async def _catch_up(self, logs: LiveLogs, status: BoltRunStatus, *, at_once: bool = False) -> None:
        try:
            await logs.catch_up(status, at_once=at_once)
        except Exception as error:  # noqa: BLE001 - the next poll tries again
            self._report("output", error)
        else:
            self._reported.discard("output")
        if self._commands is not None:
            self._commands.output_is_logged(logs.logged())

    def _follow(self, logs: LiveLogs, status: BoltRunStatus, seen: Observation) -> None:
        """Fetch the output in the background from now on."""
        before = self._latest.status if self._latest is not None else None
        self._latest = seen
        if self._fetches is None:
            self._fetches = asyncio.create_task(self._fetch_on(logs))
        elif before is not None and len(before.commands) != len(status.commands):
            self._wake.set()

    async def _fetch_on(self, logs: LiveLogs) -> None:
        """Fetch new output again and again, with pauses that grow while there is no new output."""
        pause = times().log_pause_seconds
        told: set[int] = set()
        while not self._over:
            self._wake.clear()
            seen = self._latest
            if seen is None or seen.status is None:
                return
            before = logs.progress()
            await self._catch_up(logs, seen.status)
            ended = {
                each.id for each in seen.status.commands if logs.has_ended(each.id) and not each.has_ended
            }
            if ended - told:
                told |= ended
                seen.poll_now()
            longest = times().log_longest_pause_seconds
            pause = times().log_pause_seconds if logs.progress() != before else min(longest, 1.5 * pause)
            with anyio.move_on_after(pause):
                await self._wake.wait()

    async def _finish_fetch(self) -> None:
        """Let the running fetch end. If it were cancelled, it would be unknown whether Prefect got its last post."""
        self._over = True
        self._wake.set()
        if self._fetches is not None and not self._fetches.done():
            await asyncio.wait({self._fetches}, timeout=times().last_fetch_seconds)
            self._fetches.cancel()
            await asyncio.wait({self._fetches}, timeout=times().output_patience_seconds)

    async def _show_progress(self, status: BoltRunStatus) -> None:
        if not status.commands:
            return
        if self._planned is None:
            # A run that succeeded is at 100 %, whatever its plan was.
            self._planned = [] if status.state == BoltRunState.SUCCESS else await self._plan()
        nodes = {}
        if self._logs is not None:
            nodes = {command.id: self._logs.nodes(command.id) for command in status.commands}
        last = status.commands[-1]
        done, total = nodes.get(last.id, (0, 0))
        text = f"of {cell(self._name)}"
        if status.state.is_terminal:
            text += f" ended as {cell(str(status.state))}"
        else:
            text += f": {cell(self._redact.line(last.command))}" + (f" ({done} of {total})" if total else "")
        percent = percent_done(status, self._planned, nodes)
        try:
            await self._progress.show(percent, text, final=status.state.is_terminal)
        except Exception as error:  # noqa: BLE001 - an error here must not end the wait
            self._report("progress", error)

    async def _plan(self) -> list[str]:
        """Return the commands of the schedule or of the request; an empty list if Bolt does not return the commands."""
        if self._view.planned or self._view.schedule_name is None:
            return list(self._view.planned)
        try:
            async with self.run.credentials.get_client() as client:
                return (await client.get_bolt_schedule(self._view.schedule_name)).commands
        except BoltError:
            return []

    def _report(self, what: str, error: Exception) -> None:
        if what not in self._reported:
            self._reported.add(what)
            run_logger().warning(
                "The %s of Bolt run %s cannot be shown now; the flow still waits for the run: %s",
                what,
                self.run.run_id,
                self._redact.line(str(error), 300),
            )
