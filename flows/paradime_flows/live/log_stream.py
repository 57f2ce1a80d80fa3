"""Logs the output of a Bolt run's commands while the run is running.

Each line is logged once and in order, also by several attempts of a flow run, but not by two processes at once: the
journal stores the position after each batch. `log_position` explains what happens after a kill or a lost answer.

If the backend has no cursors, each fetch (`boltCommand`) returns the whole output of a command so far. One copy of the
output is then in memory. The output of a command that has ended is fetched one last time. The output of a command that
has not started is never fetched. The more a running command has printed, the less often its output is fetched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import anyio

from paradime_blocks import BoltAuthError, BoltClient, BoltRequestError, ParadimeCredentials
from paradime_blocks.client.log_pages import OWN_CURSOR, PageSize
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.dbt import Record, Stream
from paradime_blocks.text import Redactor
from paradime_flows.live.batch_times import BatchTimes
from paradime_flows.live.log_lines import CommandLog, Position
from paradime_flows.live.log_position import Journal, positions_text, read_positions
from paradime_flows.live.log_records import join_lines
from paradime_flows.prefect_api import ShownTaskRun, run_logger, times

if TYPE_CHECKING:
    from paradime_blocks.models import BoltCommand, BoltRunStatus
    from paradime_flows.choices import LiveLogsMode

# The size of a batch. A batch is one request to Prefect, which the journal keeps below twice this size.
_BATCH_BYTES: Final = 250_000
# Without cursors, each fetch returns the whole output. These numbers limit how much of the time and of the bandwidth
# the fetches take.
_REST_PER_FETCH: Final = 4.0
_CHARACTERS_PER_SECOND: Final = 100_000


class LiveLogs:
    """Logs one Bolt run's output as it grows.

    Args:
        run_id: The Bolt run.
        credentials: The credentials of the run's workspace.
        journal: Writes the lines and stores the position.
        mode: How much of each command's output to log.
        task_run_of: Returns the task run that shows a command. The argument is the command's id.
    """

    def __init__(
        self,
        run_id: int,
        credentials: ParadimeCredentials,
        journal: Journal,
        mode: LiveLogsMode = "all",
        *,
        task_run_of: Callable[[int], ShownTaskRun | None] = lambda _: None,
    ) -> None:
        self.run_id = run_id
        self.credentials = credentials
        self.commands: dict[int, CommandLog] = {}
        self._journal = journal
        self._mode = mode
        self._task_run_of = task_run_of
        self._redact = Redactor.of(credentials)
        self._kept: dict[int, Position] | None = None
        # The position after the batch that was shown last; None once the batch has arrived.
        self._unwritten: str | None = None
        self._batches = BatchTimes()
        self._headings: dict[int, str] = {}
        self._headed: int | None = None
        self._paged = True
        self._page_size = PageSize()
        self._rest_until: dict[int, float] = {}

    def nodes(self, command_id: int) -> tuple[int, int]:
        """Return how many nodes of a command are done, and how many nodes it has. Unknown numbers are zero."""
        log = self.commands.get(command_id)
        return (log.nodes.done, log.nodes.total) if log is not None else (0, 0)

    def has_ended(self, command_id: int) -> bool:
        """Whether the output of a command is complete, so that the command has ended."""
        log = self.commands.get(command_id)
        return log is not None and log.ended

    def logged(self) -> set[int]:
        """Return the commands whose whole output has been logged and the position stored."""
        return {id_ for id_, log in self.commands.items() if log.position.done and self._unwritten is None}

    def has_all(self, status: BoltRunStatus) -> bool:
        """Whether the whole output of the commands in a status has been logged and the position stored."""
        return self.logged().issuperset(command.id for command in status.commands)

    async def catch_up(self, status: BoltRunStatus, *, at_once: bool = False) -> None:
        """Log the output that is new since the last call.

        Args:
            status: The Bolt run's status from the last poll.
            at_once: Whether to fetch now, even if the backend returns the whole output each time, and to log all lines.

        Raises:
            BoltError: Bolt was unreachable, or refused the request.
            Exception: Prefect was unreachable.
        """
        if not status.commands or self.has_all(status):
            return
        if self._unwritten is not None:
            # While Prefect is unreachable, no more output is fetched, because the output would fill the memory.
            await self.write()
        await self._learn(status.commands)
        # No retry here, because the next poll fetches again.
        policy = RetryPolicy(attempts=1, total_seconds=times().log_fetch_seconds)
        async with self.credentials.get_client(retry_policy=policy) as client:
            try:
                await self._fetch(client, status, at_once=at_once)
            except Exception:
                # Log the output that was fetched before the error.
                with suppress(Exception):
                    await self.write()
                raise
            # The last lines of a command do not wait.
            rest = any(log.ended and log.waiting_bytes for log in self.commands.values())
            await self.write(full=not (at_once or rest or self._batches.is_due()))

    async def drain(self, status: BoltRunStatus) -> None:
        """Log the rest of the output of a Bolt run that has ended, within limits. Report output that is missing."""
        moved = time.monotonic()
        failure: Exception | None = None
        finished = True
        with anyio.move_on_after(times().drain_seconds):
            while not self.has_all(status):
                before = self.progress()
                failure = None
                try:
                    await self.catch_up(status, at_once=True)
                except Exception as error:  # noqa: BLE001 - reported below, if it was the last one
                    failure = error
                now = time.monotonic()
                moved = now if self.progress() != before else moved
                if failure is not None:
                    if now - moved > times().drain_outage_seconds:
                        break
                elif self._paged and now - moved > times().drain_quiet_seconds:
                    # The log that Bolt does not report as finished may lack lines. `boltCommand` returns all lines.
                    self._stop_paging()
                    moved, finished = now, False
                if not self.has_all(status):
                    await anyio.sleep(times().drain_pause_seconds)
        if not self.has_all(status):
            with anyio.move_on_after(times().drain_outage_seconds):
                try:
                    await self.write()
                except Exception as error:  # noqa: BLE001
                    failure = failure or error
        self._report_missing(status, failure, finished=finished)

    def _report_missing(self, status: BoltRunStatus, failure: Exception | None, *, finished: bool) -> None:
        if not self.has_all(status):
            run_logger().warning(
                "Not all output of Bolt run %s was logged%s. The artifacts with its logs have more.",
                self.run_id,
                f" ({self._redact.line(str(failure))})" if failure else "",
            )
        elif any(log.is_incomplete for log in self.commands.values()):
            run_logger().warning(
                "The log of Bolt run %s may be incomplete: Bolt now returns less output for a command than before.",
                self.run_id,
            )
        elif not finished:
            run_logger().info(
                "Bolt did not report the log of Bolt run %s as finished. The output that it returned %s s after the "
                "end is logged.",
                self.run_id,
                round(times().drain_quiet_seconds),
            )

    async def _learn(self, commands: Sequence[BoltCommand]) -> None:
        if self._kept is None:
            self._kept = read_positions(await self._journal.read(self.run_id))
        for n, command in enumerate(commands, 1):
            if command.id not in self.commands:
                log = CommandLog(command.id, self._kept.get(command.id), self._mode)
                if not self._paged:
                    log.restart()
                self.commands[command.id] = log
                self._headings[command.id] = f"Command {n}, {self._redact.line(command.command)}"

    async def _fetch(self, client: BoltClient, status: BoltRunStatus, *, at_once: bool) -> None:
        if status.has_short_output:
            await self._fetch_short(client)
        for command in status.commands:
            log = self.commands[command.id]
            over = status.state.is_terminal or command.has_ended
            if self._paged and not log.ended:
                try:
                    await self._fetch_pages(client, log, over=over)
                except BoltAuthError:
                    raise
                except BoltRequestError:
                    # The backend lacks this operation, or has no log for this command. `boltCommand` returns the same
                    # output.
                    self._stop_paging()
            # The last fetch is not delayed, because the output of the next command is logged after it.
            is_due = over or at_once or time.monotonic() >= self._rest_until.get(command.id, 0.0)
            if is_due and not self._paged and not log.ended:
                await self._fetch_whole(client, log, over=over)

    async def _fetch_short(self, client: BoltClient) -> None:
        """Fetch the output of all commands of a short run that has ended in one request, if nothing of it was read."""
        unread = [id_ for id_, log in self.commands.items() if log.is_unread]
        with TemporaryDirectory(prefix="bolt-logs-") as folder:
            # A command whose details Bolt does not return is fetched in the usual way.
            found = await client.spool_bolt_commands(unread, Path(folder), errors={})
            for id_, command in found.items():
                log = self.commands[id_]
                for stream, text in (("STDOUT", command.stdout), ("STDERR", command.stderr)):
                    for piece in text.pieces(_BATCH_BYTES):
                        log.feed(stream, piece)
                        await self.write(full=True)
                log.end()

    async def _fetch_pages(self, client: BoltClient, log: CommandLog, *, over: bool) -> None:
        """Fetch the pages that are full, and the page after them.

        Args:
            client: The client.
            log: The command's log.
            over: Whether the command has ended. Then the rest of its output is fetched.
        """
        at_once = False
        due = time.monotonic() + times().log_batch_seconds
        while not log.ended:
            page = await client.get_bolt_command_logs(log.command_id, log.cursor)
            if page.cursor is not None and page.cursor.startswith(OWN_CURSOR):
                # The client fetched the whole output instead of a page.
                self._stop_paging()
                return
            for stream, lines in groupby(page.lines, key=attrgetter("stream")):
                log.feed(stream.upper(), "".join([line.line for line in lines]))
            if page.finished:
                log.end()
            elif page.lines and page.cursor in {None, log.cursor}:
                self._stop_paging()
                return
            elif page.cursor is not None:
                log.set_cursor(page.cursor)
            may_be_full = self._page_size.may_be_full(len(page.lines), at_once=at_once)
            if not page.lines or not (over or may_be_full):
                return
            at_once = may_be_full
            # If a command prints as fast as we read, there is always another page. So write batches between pages.
            await self.write(full=time.monotonic() < due)
            if time.monotonic() >= due:
                due = time.monotonic() + times().log_batch_seconds

    async def _fetch_whole(self, client: BoltClient, log: CommandLog, *, over: bool) -> None:
        """Fetch the whole output of a command.

        Args:
            client: The client.
            log: The command's log.
            over: Whether the command has ended, so that this output is complete.
        """
        began = time.monotonic()
        command = await self._output_of(client, log.command_id)
        took = time.monotonic() - began
        streams: tuple[tuple[Stream, str], ...] = (("STDOUT", command.stdout), ("STDERR", command.stderr))
        for stream, text in streams:
            while log.feed_whole(stream, text, _BATCH_BYTES):
                await self.write(full=True)
        if over or command.has_ended:
            log.end()
        rest = (len(command.stdout) + len(command.stderr)) / _CHARACTERS_PER_SECOND
        if took > times().log_quick_seconds:
            rest = max(rest, _REST_PER_FETCH * took)
        self._rest_until[log.command_id] = time.monotonic() + rest

    async def _output_of(self, client: BoltClient, command_id: int) -> BoltCommand:
        try:
            return await client.get_bolt_command(command_id)
        except BoltAuthError:
            raise
        except BoltRequestError:
            # The run's status has the same output, together with that of all other commands.
            status = await client.get_bolt_run(self.run_id)
            found = [command for command in status.commands if command.id == command_id]
            if not found:
                raise
            return found[0]

    def _stop_paging(self) -> None:
        self._paged = False
        for log in self.commands.values():
            if not log.ended:
                log.restart()

    async def write(self, *, full: bool = False) -> None:
        """Log the lines that wait, one batch at a time.

        Args:
            full: Whether to log only full batches. The other lines then wait until a batch is full.
        """
        while True:
            if self._unwritten is not None:
                await self._journal.write(self.run_id, self._unwritten)
                self._unwritten = None
            if full and sum(log.waiting_bytes for log in self.commands.values()) < _BATCH_BYTES:
                return
            if not self._show_batch():
                return

    def _show_batch(self) -> bool:
        """Show as many lines as fit in one batch, in the order of the commands. Return whether a position changed."""
        before = [log.position for log in self.commands.values()]
        room = _BATCH_BYTES
        for log in self.commands.values():
            again = any(log.position.logged)
            before_bytes = log.waiting_bytes
            lines, _ = log.take(room, any_size=room == _BATCH_BYTES)
            room -= before_bytes - log.waiting_bytes
            whole = "\n".join(text for _, text in lines)
            # Most texts have no secret, so one check of the whole text is usually enough.
            if self._redact(whole) != whole:
                lines = [Record(level, self._redact(text)) for level, text in lines]
            records = join_lines(lines)
            if records and self._headed != log.command_id:
                self._headed = log.command_id
                heading = f"── {self._headings[log.command_id]}{' (continued)' if again else ''} ──"
                records.insert(0, Record(logging.INFO, heading))
            if records:
                self._journal.show(records, self._task_run_of(log.command_id))
            if log.is_ready:
                break
        if before == [log.position for log in self.commands.values()]:
            return False
        self._unwritten = positions_text({id_: log.position for id_, log in self.commands.items()})
        return True

    def progress(self) -> object:
        """Return a value that changes when there is new output, or when output was logged."""
        return [(log.position, log.cursor, log.ended) for log in self.commands.values()]
