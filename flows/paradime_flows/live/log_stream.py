"""The output of a Bolt run's commands, logged by the flow run as Bolt produces it.

Each line is logged once and in order, by whichever attempt of the flow run fetches it: the journal keeps how
far that is, batch by batch (`log_position` says how that holds through kills and lost answers).

Where the backend has no cursors, the growth is looked at command by command (`boltCommand`): a command that
has ended is fetched a last time and then never again, one that has not begun never, and the one that runs the
less often the more it has printed. What remains is that each of these looks brings all that the command has
printed so far, in one reply, which is held in memory once.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import anyio

from paradime_blocks import BoltAuthError, BoltClient, BoltRequestError, ParadimeCredentials
from paradime_blocks.client.log_pages import OWN_CURSOR
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.dbt import Record, Stream
from paradime_blocks.text import Redactor
from paradime_flows.live.log_lines import (
    CommandLog,
    Position,
    join_lines,
)
from paradime_flows.live.log_position import Journal
from paradime_flows.prefect_api import run_logger, times

if TYPE_CHECKING:
    from paradime_blocks.models import BoltCommand, BoltRunStatus
    from paradime_flows.choices import LiveLogsMode

# So much is logged at once: a batch is one request to Prefect, which the journal keeps below twice that.
_BATCH_BYTES: Final = 250_000
# Without cursors every fetch brings all there is: it may take so much of the time, and of the line.
_REST_PER_FETCH: Final = 4.0
_CHARACTERS_PER_SECOND: Final = 500_000


class LiveLogs:
    """Logs one Bolt run's output as it grows.

    Args:
        run_id: The run.
        credentials: The credentials of its workspace.
        journal: Where to log.
        mode: How much of each command.
    """

    def __init__(
        self, run_id: int, credentials: ParadimeCredentials, journal: Journal, mode: LiveLogsMode = "all"
    ) -> None:
        self.run_id = run_id
        self.credentials = credentials
        self.commands: dict[int, CommandLog] = {}
        self._journal = journal
        self._mode = mode
        self._redact = Redactor.of(credentials)
        self._kept: dict[int, Position] | None = None
        # What is to be kept with the batch that was shown, until that has arrived.
        self._unwritten: str | None = None
        self._headings: dict[int, str] = {}
        self._headed: int | None = None
        self._paged = True
        self._rest_until: dict[int, float] = {}

    def nodes(self, command_id: int) -> tuple[int, int]:
        """Return how many of a command's nodes are done, and of how many; zeros where that is not known."""
        log = self.commands.get(command_id)
        return (log.nodes.done, log.nodes.total) if log is not None else (0, 0)

    def has_all(self, status: BoltRunStatus) -> bool:
        """Whether all output of the commands that a status lists has been logged and written down."""
        logs = [self.commands.get(command.id) for command in status.commands]
        return self._unwritten is None and all(log is not None and log.position.done for log in logs)

    async def catch_up(self, status: BoltRunStatus, *, at_once: bool = False) -> None:
        """Log what has come since the last time.

        Args:
            status: The run, as seen just now.
            at_once: Do not spare a backend that sends everything each time.

        Raises:
            BoltError: Bolt was out of reach, or refused it.
            Exception: Prefect was out of reach.
        """
        if not status.commands or self.has_all(status):
            return
        if self._unwritten is not None:
            # While Prefect is out of reach nothing more is fetched: it would only pile up here.
            await self._write()
        await self._learn(status.commands)
        # The next look fetches again by itself.
        policy = RetryPolicy(attempts=1, total_seconds=times().log_fetch_seconds)
        async with self.credentials.get_client(retry_policy=policy) as client:
            try:
                await self._fetch(client, status, at_once=at_once)
            except Exception:
                # What was fetched before something failed counts.
                with suppress(Exception):
                    await self._write()
                raise
            await self._write()

    async def drain(self, status: BoltRunStatus) -> None:
        """Log what is left of a run that has ended, within bounds; what cannot be fetched is told."""
        moved = time.monotonic()
        failure: Exception | None = None
        finished = True
        with anyio.move_on_after(times().drain_seconds):
            while not self.has_all(status):
                before = self._progress()
                failure = None
                try:
                    await self.catch_up(status, at_once=True)
                except Exception as error:  # noqa: BLE001 - told below, if it stays the last word
                    failure = error
                now = time.monotonic()
                moved = now if self._progress() != before else moved
                if failure is not None:
                    if now - moved > times().drain_outage_seconds:
                        break
                elif self._paged and now - moved > times().drain_quiet_seconds:
                    # Bolt does not call the log finished, and it may lag: the output itself has all.
                    self._leave_pages()
                    moved, finished = now, False
                if not self.has_all(status):
                    await anyio.sleep(times().drain_pause_seconds)
        if not self.has_all(status):
            with anyio.move_on_after(times().drain_outage_seconds):
                try:
                    await self._write()
                except Exception as error:  # noqa: BLE001
                    failure = failure or error
        self._tell_what_lacks(status, failure, finished=finished)

    def _tell_what_lacks(self, status: BoltRunStatus, failure: Exception | None, *, finished: bool) -> None:
        if not self.has_all(status):
            run_logger().warning(
                "Not all output of Bolt run %s was logged%s; the artifacts with its logs have more.",
                self.run_id,
                f" ({self._redact.line(str(failure))})" if failure else "",
            )
        elif any(log.falls_short for log in self.commands.values()):
            run_logger().warning(
                "Whether all output of Bolt run %s was logged cannot be told: of a command's output, Bolt "
                "gives less now than it gave before.",
                self.run_id,
            )
        elif not finished:
            run_logger().info(
                "Bolt did not call the log of Bolt run %s finished; all that its commands' output had %s s after "
                "the end is logged.",
                self.run_id,
                round(times().drain_quiet_seconds),
            )

    async def _learn(self, commands: Sequence[BoltCommand]) -> None:
        if self._kept is None:
            self._kept = _positions(await self._journal.read(self.run_id))
        for n, command in enumerate(commands, 1):
            if command.id not in self.commands:
                log = CommandLog(command.id, self._kept.get(command.id), self._mode)
                if not self._paged:
                    log.begin_anew()
                self.commands[command.id] = log
                self._headings[command.id] = f"Command {n}, {self._redact.line(command.command)}"

    async def _fetch(self, client: BoltClient, status: BoltRunStatus, *, at_once: bool) -> None:
        for command in status.commands:
            log = self.commands[command.id]
            if self._paged and not log.ended:
                try:
                    await self._fetch_pages(client, log)
                except BoltAuthError:
                    raise
                except BoltRequestError:
                    # The backend lacks it, or has nothing on this command: its whole output tells the same.
                    self._leave_pages()
            if not self._paged and not log.ended:
                over = status.state.is_terminal or _has_ended(command)
                # The last fetch is not put off: what the next command prints comes after it.
                if over or at_once or time.monotonic() >= self._rest_until.get(command.id, 0.0):
                    await self._fetch_whole(client, log, over=over)

    async def _fetch_pages(self, client: BoltClient, log: CommandLog) -> None:
        due = time.monotonic() + times().log_batch_seconds
        while not log.ended:
            page = await client.get_bolt_command_logs(log.command_id, log.cursor)
            if page.cursor is not None and page.cursor.startswith(OWN_CURSOR):
                # The client has asked for the whole output in place of a page.
                self._leave_pages()
                return
            for stream, lines in groupby(page.lines, key=attrgetter("stream")):
                log.feed(stream.upper(), "".join([line.line for line in lines]))
            if page.finished:
                log.end()
            elif page.lines and page.cursor in {None, log.cursor}:
                self._leave_pages()
                return
            elif page.cursor is not None:
                log.turn(page.cursor)
            if not page.lines:
                return
            # While a command prints as fast as it is read, there is always another page.
            await self._write(full=time.monotonic() < due)
            if time.monotonic() >= due:
                due = time.monotonic() + times().log_batch_seconds

    async def _fetch_whole(self, client: BoltClient, log: CommandLog, *, over: bool) -> None:
        """Take in all output of a command.

        Args:
            client: The client.
            log: The command's log.
            over: Whether the command is known to have ended, so that nothing will come after this.
        """
        began = time.monotonic()
        command = await self._output_of(client, log.command_id)
        took = time.monotonic() - began
        streams: tuple[tuple[Stream, str], ...] = (("STDOUT", command.stdout), ("STDERR", command.stderr))
        for stream, text in streams:
            while log.feed_whole(stream, text, _BATCH_BYTES):
                await self._write(full=True)
        if over or _has_ended(command):
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
            # The run's status has the same, beside the output of all other commands.
            status = await client.get_bolt_run(self.run_id)
            found = [command for command in status.commands if command.id == command_id]
            if not found:
                raise
            return found[0]

    def _leave_pages(self) -> None:
        self._paged = False
        for log in self.commands.values():
            if not log.ended:
                log.begin_anew()

    async def _write(self, *, full: bool = False) -> None:
        """Log what waits, a batch at a time.

        Args:
            full: Leave what makes no full batch to wait for more.
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
        """Show as much as fits one batch, in the order of the commands; return whether anything has changed."""
        before = [log.position for log in self.commands.values()]
        shown: list[Record] = []
        room = _BATCH_BYTES
        for log in self.commands.values():
            again = any(log.position.logged)
            before_bytes = log.waiting_bytes
            lines, _ = log.take(room, any_size=not shown)
            room -= before_bytes - log.waiting_bytes
            whole = "\n".join(text for _, text in lines)
            # Most text has no secret, which is seen in all of it at once.
            if self._redact(whole) != whole:
                lines = [Record(level, self._redact(text)) for level, text in lines]
            records = join_lines(lines)
            if records and self._headed != log.command_id:
                self._headed = log.command_id
                heading = f"── {self._headings[log.command_id]}{' (continued)' if again else ''} ──"
                records.insert(0, Record(logging.INFO, heading))
            shown += records
            if log.is_ready:
                break
        if before == [log.position for log in self.commands.values()]:
            return False
        self._journal.show(shown)
        self._unwritten = _kept(self.commands)
        return True

    def _progress(self) -> object:
        return [(log.position, log.cursor, log.ended) for log in self.commands.values()]


def _has_ended(command: BoltCommand) -> bool:
    return command.return_code is not None or command.end_dttm is not None


def _kept(commands: Mapping[int, CommandLog]) -> str:
    """Return the positions as text, for `_positions`."""
    done = [id_ for id_, log in commands.items() if log.position.done]
    at = {id_: log.position[:-1] for id_, log in commands.items() if not log.position.done}
    return json.dumps({"done": done, "at": at}, separators=(",", ":"))


def _positions(kept: str | None) -> dict[int, Position]:
    """Return the positions by command; what cannot be read is none, and begins anew."""
    try:
        content = json.loads(kept or "{}")
        found = {int(id_): Position(done=True) for id_ in content.get("done", [])}
        for id_, (cursor, at, logged, nodes, *last) in content.get("at", {}).items():
            found[int(id_)] = Position(cursor, _pair(at), _pair(logged), _pair(nodes), *last[:1])
    except (ValueError, TypeError, AttributeError, IndexError):
        return {}
    return found


def _pair(numbers: Sequence[int]) -> tuple[int, int]:
    return numbers[0], numbers[1]
