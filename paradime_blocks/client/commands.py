"""The client's calls about a run's commands: their logs and files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

from paradime_blocks.client import operations as ops
from paradime_blocks.client.aliased_reads import AliasedReads, sorted_out
from paradime_blocks.client.ended_commands import SpooledCommand
from paradime_blocks.client.inputs import check_id
from paradime_blocks.client.large_replies import LargeTexts
from paradime_blocks.client.log_pages import OWN_CURSOR, log_since
from paradime_blocks.errors import BoltUnsupported
from paradime_blocks.models import BoltCommandDetail, BoltLogLine, BoltLogPage, BoltResource
from paradime_blocks.models.reply import readable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from paradime_blocks.errors import BoltError

_FIRST_CURSOR = "0:0"


class _Detail(BoltCommandDetail):
    # The query returns no id.
    id: int = 0


class _OfRun(BaseModel):
    schedule_run_id: int = Field(alias="scheduleRunId", ge=1)


class _Resources(BaseModel):
    resources: Annotated[list[BoltResource], readable(BoltResource)] = Field(default_factory=list)


class CommandCalls(AliasedReads):
    """Calls about the commands of a run."""

    async def get_bolt_command(self, command_id: int) -> BoltCommandDetail:
        """Return one command with its output and resources (Bolt's `boltCommand`).

        Args:
            command_id: The id of the command.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        variables = {"commandId": check_id("command_id", command_id)}
        return await self._read(ops.BOLT_COMMAND, variables, BoltCommandDetail, id=command_id)

    async def spool_bolt_commands(
        self, command_ids: Sequence[int], folder: Path, *, errors: dict[int, BoltError] | None = None
    ) -> dict[int, SpooledCommand]:
        """Return several commands with their output and resources, with as few requests as the backend allows.

        The output may be too long for memory. Long output is written to files.

        Args:
            command_ids: The ids of the commands.
            folder: The folder for the files. Use the result only while the folder exists.
            errors: Receives the error of each command that Bolt does not return; the key is the command's id. The
                result does not contain such a command. Without `errors`, the first error is raised.

        Returns:
            The commands. The key is the command's id.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
            OSError: A file cannot be written.
        """
        ended = self._open_connection().known.ended
        # Of a command whose whole log has been read, only the files are missing.
        await self.get_bolt_command_resources(
            [id_ for id_ in command_ids if ended.has_whole_log(id_)], errors={}
        )
        found = {id_: kept for id_ in command_ids if (kept := ended.get(check_id("command_id", id_)))}
        others = [id_ for id_ in command_ids if id_ not in found]
        each = [{"commandId": id_} for id_ in others]
        large = LargeTexts(folder)
        replies = await self._read_each(ops.BOLT_COMMAND, each, _Detail, large=large)
        for id_, reply in sorted_out(dict(zip(others, replies, strict=True)), errors).items():
            texts = large.text_of(reply.stdout), large.text_of(reply.stderr)
            found[id_] = SpooledCommand(reply.resources, *texts)
            if reply.has_ended:
                ended.keep(id_, found[id_])
        return {id_: found[id_] for id_ in command_ids if id_ in found}

    async def get_bolt_command_resources(
        self, command_ids: Sequence[int], *, errors: dict[int, BoltError] | None = None
    ) -> dict[int, list[BoltResource]]:
        """Return the resources of several commands, with as few requests as the backend allows.

        Args:
            command_ids: The ids of the commands.
            errors: Receives the error of each command whose resources Bolt does not return; the key is the
                command's id. The result does not contain such a command. Without `errors`, the first error
                is raised.

        Returns:
            The resources of each command. The key is the command's id.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        ended = self._open_connection().known.ended
        kept = [(id_, ended.get(check_id("command_id", id_))) for id_ in command_ids]
        found = {id_: command.resources for id_, command in kept if command is not None}
        others = [id_ for id_ in command_ids if id_ not in found]
        each = [{"commandId": id_} for id_ in others]
        replies = await self._read_each(ops.BOLT_COMMAND_RESOURCES, each, _Resources)
        for id_, reply in sorted_out(dict(zip(others, replies, strict=True)), errors).items():
            found[id_] = reply.resources
            ended.add_resources(id_, reply.resources)
        return {id_: found[id_] for id_ in command_ids if id_ in found}

    async def get_runs_of_commands(
        self, command_ids: Sequence[int], *, errors: dict[int, BoltError] | None = None
    ) -> dict[int, int]:
        """Return the ids of the runs that several commands belong to, with as few requests as the backend allows.

        Args:
            command_ids: The ids of the commands.
            errors: Receives the error of each command that Bolt does not return; the key is the command's id. The
                result does not contain such a command. Without `errors`, the first error is raised.

        Returns:
            The run's id for each command. The key is the command's id.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        each = [{"commandId": check_id("command_id", command_id)} for command_id in command_ids]
        replies = await self._read_each(ops.BOLT_COMMAND_RUN, each, _OfRun)
        found = sorted_out(dict(zip(command_ids, replies, strict=True)), errors)
        return {id_: reply.schedule_run_id for id_, reply in found.items()}

    async def get_bolt_command_logs(self, command_id: int, cursor: str | None = None) -> BoltLogPage:
        """Return the part of a command's log that follows a cursor (Bolt's `boltCommandLogs`).

        If the backend does not have this operation, the client reads the whole log (`boltCommand`) and returns
        the part that follows the cursor. In this case the client makes the cursors itself. A backend that has the
        operation does not understand such a cursor.

        Args:
            command_id: The id of the command.
            cursor: The cursor of the previous page; None for the beginning.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        if cursor is None or not cursor.startswith(OWN_CURSOR):
            at = cursor or _FIRST_CURSOR
            variables = {"commandId": check_id("command_id", command_id), "cursor": at}
            try:
                page = await self._read(ops.BOLT_COMMAND_LOGS, variables, BoltLogPage)
            except BoltUnsupported:
                if cursor not in {None, _FIRST_CURSOR}:
                    raise
            else:
                ended = self._open_connection().known.ended
                ended.add_page(command_id, at, page, is_first=at == _FIRST_CURSOR)
                return page
        return log_since(await self.get_bolt_command(command_id), cursor)

    async def stream_bolt_command_logs(
        self, command_id: int, *, poll_interval_seconds: float = 2.0
    ) -> AsyncIterator[BoltLogLine]:
        """Iterate over a command's log until the command has ended.

        Args:
            command_id: The id of the command.
            poll_interval_seconds: The wait after a poll that found no new lines, in seconds.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        cursor: str | None = None
        while True:
            page = await self.get_bolt_command_logs(command_id, cursor)
            for line in page.lines:
                yield line
            if page.finished:
                return
            cursor = page.cursor or cursor
            if not page.lines:
                await self._sleep(poll_interval_seconds)
