"""Shows a Bolt run while it runs: its output in the flow run's log, and its progress.

The view is updated at each poll of the wait for the Bolt run. An error of the view is logged once and never ends the
wait. If a fetch of output takes long, it continues in the background.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import anyio

from paradime_blocks import BoltError, BoltRun, BoltSchedule
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.text import Redactor, cell
from paradime_flows.live.log_position import FlowRunJournal
from paradime_flows.live.log_stream import LiveLogs
from paradime_flows.live.progress import ProgressArtifact, percent_done
from paradime_flows.prefect_api import artifact_key, run_logger, times

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from paradime_blocks.models import BoltRunStatus
    from paradime_blocks.polling import Observation
    from paradime_flows.choices import LiveLogsMode


class LiveView:
    """Shows the Bolt runs that a flow run waits for, one after the other.

    The flow may stop waiting before the Bolt run has ended. Then the output so far is logged at the end of the
    `async with` block.

    Args:
        schedule: The schedule of the Bolt runs.
        flow_run_id: The flow run.
        logs: How much of each command's output is logged.
    """

    def __init__(self, schedule: BoltSchedule, flow_run_id: UUID, logs: LiveLogsMode = "all") -> None:
        self.schedule = schedule
        self.flow_run_id = flow_run_id
        self.logs = logs
        self._shown: _ShownRun | None = None

    async def watch(self, run: BoltRun, seen: Observation) -> None:
        """Show the result of a poll."""
        if self._shown is None or self._shown.run.run_id != run.run_id:
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
        self._schedule = view.schedule
        self._name = view.schedule.schedule_name or f"run {run.run_id}"
        self._redact = Redactor.of(run.credentials)
        self._logs = (
            None
            if view.logs == "off"
            else LiveLogs(run.run_id, run.credentials, FlowRunJournal(view.flow_run_id), view.logs)
        )
        self._progress = ProgressArtifact(
            view.flow_run_id, artifact_key("paradime-progress", self._name), run.run_id
        )
        self._planned: list[str] | None = None
        self._fetch: asyncio.Task[None] | None = None
        self._reported: set[str] = set()
        self._over = False

    async def watch(self, seen: Observation) -> None:
        """Show the result of a poll. Each kind of error is logged once."""
        status = seen.status
        if status is None:
            return
        if status.state.is_terminal:
            await self._finish_fetch()
            if self._logs is not None:
                await self._logs.drain(status)
            self._over = True
        elif self._logs is not None:
            if self._fetch is None or self._fetch.done():
                self._fetch = asyncio.create_task(self._catch_up(self._logs, status))
            # If the fetch would delay the next poll for too long, it continues in the background.
            await asyncio.wait({self._fetch}, timeout=times().output_patience_seconds)
        try:
            await self._show_progress(status)
        except Exception as error:  # noqa: BLE001 - an error here must not end the wait
            self._report("progress", error)

    async def close(self, *, drain: bool) -> None:
        """Stop showing the run.

        Args:
            drain: Whether to log the output so far, if the run had not ended at the last poll.
        """
        if not drain and self._fetch is not None:
            self._fetch.cancel()
        if self._over or not drain or self._logs is None:
            return
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
        if status.state.is_terminal:
            await self._logs.drain(status)
        else:
            await self._catch_up(self._logs, status)

    async def _catch_up(self, logs: LiveLogs, status: BoltRunStatus) -> None:
        try:
            await logs.catch_up(status)
        except Exception as error:  # noqa: BLE001 - the next poll tries again
            self._report("output", error)
        else:
            self._reported.discard("output")

    async def _finish_fetch(self) -> None:
        """Let the running fetch end. If it were cancelled, it would be unknown whether Prefect got its last post."""
        if self._fetch is not None and not self._fetch.done():
            await asyncio.wait({self._fetch}, timeout=times().last_fetch_seconds)
            self._fetch.cancel()
            await asyncio.wait({self._fetch}, timeout=times().output_patience_seconds)

    async def _show_progress(self, status: BoltRunStatus) -> None:
        if not status.commands:
            return
        if self._planned is None:
            self._planned = await self._plan()
        nodes = {}
        if self._logs is not None:
            nodes = {command.id: self._logs.nodes(command.id) for command in status.commands}
        last = status.commands[-1]
        done, total = nodes.get(last.id, (0, 0))
        text = f"Bolt run {self.run.run_id} of {cell(self._name)}: {cell(self._redact.line(last.command))}"
        if total and not status.state.is_terminal:
            text += f" ({done} of {total})"
        await self._progress.show(
            percent_done(status, self._planned, nodes), text, final=status.state.is_terminal
        )

    async def _plan(self) -> list[str]:
        """Return the commands of the schedule or of the request. Return none if Bolt does not return them."""
        if self._schedule.commands:
            return list(self._schedule.commands)
        try:
            async with self.run.credentials.get_client() as client:
                return (await client.get_bolt_schedule(self._schedule.schedule_name)).commands
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
