"""Sends Bolt's log lines to a flow run, and stores in a label which lines have been sent.

This module posts log records to Prefect's API itself, because Prefect's own handler drops records that it cannot post.
Only records that Prefect has accepted may count as logged.

A process can be killed at any point, and the answer to a post can be lost. So the label announces each post before the
post is sent. The next attempt then checks whether the last record of this post is in the flow run's log:

    label: at A, then B if record R is there      post … R      label: at B, then C if record S is there      post … S
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from uuid import UUID
from zlib import crc32

import httpx
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
from prefect.client.schemas.sorting import LogSort
from prefect.settings import get_current_settings

from paradime_blocks.dbt import Record
from paradime_blocks.text import one_line
from paradime_flows.live.log_lines import Position, size_of
from paradime_flows.prefect_api import (
    LOGS_LABEL_PREFIX,
    ShownTaskRun,
    current_task_run_id,
    is_first_attempt,
    prefect_client,
    run_logger,
    times,
)

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, Log

# Some proxies and servers refuse every request that is larger.
_REQUEST_BYTES: Final = 500_000
# The size of a record without its text.
_RECORD_BYTES: Final = 400
# A server returns at most this many log records in one answer.
_MOST_RECORDS: Final = 200
_TOO_LARGE: Final = 413
# These status codes are about the content of the request. The server may accept a part of the content.
_OF_THE_CONTENT: Final = frozenset({400, _TOO_LARGE, 422})
# After these status codes, the same request may succeed later.
_FOR_NOW: Final = frozenset({408, 429})


class Journal(Protocol):
    """Writes lines to a log, and stores the position up to which the output was logged."""

    async def read(self, run_id: int) -> str | None:
        """Return the position in a Bolt run's output after the last write whose records arrived."""

    def show(self, records: Sequence[Record], shown: ShownTaskRun | None = None) -> None:
        """Log records of one command to the console, as records of the command's task run. This method cannot fail."""

    async def write(self, run_id: int, kept: str) -> None:
        """Send the records that were shown, and store the position `kept`, which is one line of text.

        Raises:
            Exception: The records may not have arrived. Write them again before you show more.
        """


class _ArrivedError(Exception):
    """The post has already arrived, so it is not sent again."""


class _Last(NamedTuple):
    """The time and checksum of the last record of a post, by which the record can be found in the log."""

    timestamp: datetime
    checksum: int

    @classmethod
    def of(cls, record: LogCreate | Log) -> _Last:
        return cls(record.timestamp, crc32(record.message.encode()))

    @classmethod
    def parse(cls, text: str) -> _Last:
        timestamp, _, checksum = text.partition(" ")
        return cls(datetime.fromisoformat(timestamp), int(checksum))

    def __str__(self) -> str:
        return f"{self.timestamp.isoformat()} {self.checksum}"


class FlowRunJournal:
    """Sends Bolt's log lines to a flow run, and stores in a label which lines have been sent.

    The lines of one write go to Prefect in one request of at most half a megabyte. Prefect stores all lines of a
    request or none of them. So no line appears twice if a failed request is sent again. A write needs more than one
    request only if a single line is longer than half a megabyte, or if Prefect refused a request as too large. If the
    process is killed between two requests of one write, the next attempt repeats the whole write. Only then do lines
    appear twice.

    Args:
        flow_run_id: The flow run.
        stored: The flow run, if it was read after the Bolt run was obtained; None to read the flow run again.
    """

    def __init__(self, flow_run_id: UUID, stored: FlowRun | None = None) -> None:
        self.flow_run_id = flow_run_id
        self._stored = stored
        self._task_run_id = current_task_run_id()
        self._logger = run_logger()
        self._kept = ""
        self._unsent: list[LogCreate] = []
        # How many unsent records are in the post that is being sent, and in a post whose outcome is unknown.
        self._posting = self._in_flight = 0
        self._request_bytes = _REQUEST_BYTES
        self._last = datetime.min.replace(tzinfo=timezone.utc)
        self._refused = 0
        self._reported: set[int] = set()
        self._client: PrefectClient

    @staticmethod
    def _label(run_id: int) -> str:
        return f"{LOGS_LABEL_PREFIX}{run_id}"

    async def read(self, run_id: int) -> str | None:
        """Return the position that this flow run stored. A label that was copied from another flow run is ignored."""
        async with prefect_client() as client:
            flow_run = self._stored or await client.read_flow_run(self.flow_run_id)
            labels = flow_run.labels or {}
            owner, _, label = str(labels.get(self._label(run_id), "")).partition(" ")
            if owner == str(self.flow_run_id):
                self._kept, _, announced = label.partition("\n")
                last, _, then = announced.partition("\t")
                # If another program changed the label, there may be no valid announcement in it.
                with suppress(ValueError):
                    if then and await self._has_arrived(client, _Last.parse(last)):
                        self._kept = then
            if not is_first_attempt(flow_run):
                # The clock of an earlier attempt's machine may have been ahead of ours.
                newest = await self._find(client, LogFilter(flow_run_id=self._ours()), limit=1)
                self._last = max([self._last, *(record.timestamp for record in newest)])
        return self._kept or None

    def show(self, records: Sequence[Record], shown: ShownTaskRun | None = None) -> None:
        """Log to the console and to other handlers, and prepare the records for Prefect.

        Args:
            records: The records.
            shown: The task run that shows the command. The records are in its log and in the log of the flow run.
        """
        to_api = get_current_settings().logging.to_api.enabled
        logger = (shown.logger if shown is not None else None) or self._logger
        task_run_id = (shown.id if shown is not None else None) or self._task_run_id
        for record in records:
            # A person has turned on dbt's debug lines. If Prefect's log level is info, log these lines as info.
            level = record.level if logger.isEnabledFor(record.level) else max(record.level, logging.INFO)
            if not logger.isEnabledFor(level):
                continue
            logger.log(level, record.text, extra={"send_to_api": False})
            if to_api:
                self._unsent.append(
                    LogCreate(
                        name=logger.name,
                        level=level,
                        message=record.text,
                        timestamp=self._now(),
                        flow_run_id=self.flow_run_id,
                        task_run_id=task_run_id,
                    )
                )

    def _now(self) -> datetime:
        # Prefect orders logs only by time, so no two of our records may have the same time.
        self._last = max(datetime.now(timezone.utc), self._last + timedelta(microseconds=1))
        return self._last

    async def write(self, run_id: int, kept: str) -> None:
        """Announce the records that were shown, post them, and store the new position.

        If nothing was shown since the last position, the new position is not stored: the next attempt may as well read
        from the last position.
        """
        if not self._unsent:
            self._kept = kept
            return
        async with prefect_client(self._before_request) as client:
            self._client = client
            await self._write_label(run_id, f"{self._kept}\n{_Last.of(self._unsent[-1])}\t{kept}")
            refused = self._refused
            while self._unsent:
                await self._post(self._in_flight or self._first_part())
            if self._refused != refused:
                await self._write_label(run_id, kept)
        self._kept = kept

    async def _write_label(self, run_id: int, text: str) -> None:
        await self._client.update_flow_run_labels(
            self.flow_run_id, {self._label(run_id): f"{self.flow_run_id} {text}"}
        )

    def _first_part(self) -> int:
        """Return how many records fit in one request. The number is at least one."""
        sizes = accumulate(size_of(record.message) + _RECORD_BYTES for record in self._unsent)
        return max(1, sum(size <= self._request_bytes for size in sizes))

    async def _post(self, count: int) -> None:
        """Post the first records. If Prefect refuses them because of their content, post each half separately.

        Records that have arrived, or that Prefect will never accept, are removed from the unsent records.
        """
        self._posting = count
        try:
            await self._client.create_logs(self._unsent[:count])
        except _ArrivedError:
            pass
        except httpx.HTTPStatusError as error:
            if not _is_final(error.response):
                raise
            self._in_flight = 0
            status = error.response.status_code
            if count > 1 and status in _OF_THE_CONTENT:
                if status == _TOO_LARGE:
                    size = sum(size_of(record.message) + _RECORD_BYTES for record in self._unsent[:count])
                    self._request_bytes = min(self._request_bytes, size // 2)
                for part in (count // 2, count - count // 2):
                    await self._post(part)
                return
            self._refused += count
            self._report(count, error.response)
        self._in_flight = 0
        del self._unsent[:count]

    async def _before_request(self, request: httpx.Request) -> None:
        """Check whether a post has arrived, before Prefect's client or we send it again.

        Raises:
            _ArrivedError: The post has arrived.
        """
        if not request.url.path.endswith("/logs/"):
            return
        if self._in_flight and await self._has_arrived(
            self._client, _Last.of(self._unsent[self._in_flight - 1])
        ):
            raise _ArrivedError
        self._in_flight = self._posting

    async def _has_arrived(self, client: PrefectClient, last: _Last) -> bool:
        around = timedelta(seconds=times().log_precision_seconds)
        nearby = LogFilterTimestamp(after_=last.timestamp - around, before_=last.timestamp + around)
        wanted = LogFilter(flow_run_id=self._ours(), timestamp=nearby)
        found = await self._find(client, wanted, limit=_MOST_RECORDS)
        return any(_Last.of(record).checksum == last.checksum for record in found)

    async def _find(self, client: PrefectClient, wanted: LogFilter, limit: int) -> Sequence[Log]:
        """Return log records, newest first. Return an empty list if Prefect refuses to return log records."""
        try:
            return await client.read_logs(wanted, limit=limit, sort=LogSort.TIMESTAMP_DESC)
        except httpx.HTTPStatusError as error:
            if _is_final(error.response):
                return []
            raise

    def _ours(self) -> LogFilterFlowRunId:
        return LogFilterFlowRunId(any_=[self.flow_run_id])

    def _report(self, count: int, response: httpx.Response) -> None:
        if response.status_code not in self._reported:
            self._reported.add(response.status_code)
            self._logger.warning(
                "Prefect refused %s log records with output from Bolt (%s: %s), and may refuse more. They are not "
                "sent again; the artifacts with the commands' logs have this output.",
                count,
                response.status_code,
                one_line(response.text),
            )


def _is_final(response: httpx.Response) -> bool:
    """Whether Prefect would refuse the same request again."""
    # If the CSRF token is too old, Prefect's client gets a new token for its next request.
    stale = "CSRF" in response.text
    return response.is_client_error and response.status_code not in _FOR_NOW and not stale


def positions_text(positions: Mapping[int, Position]) -> str:
    """Return the position of each command as one line of text, which `read_positions` can read."""
    done = [id_ for id_, position in positions.items() if position.done]
    at = {id_: position[:-1] for id_, position in positions.items() if not position.done}
    return json.dumps({"done": done, "at": at}, separators=(",", ":"))


def read_positions(kept: str | None) -> dict[int, Position]:
    """Return the position of each command. If the text cannot be read, return none: then logging starts again."""
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
