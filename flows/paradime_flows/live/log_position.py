"""Writes live logs to a flow run's log, and their position to a label of the flow run.

This module posts records to Prefect's API itself, because Prefect's own handler drops records that it cannot post: only
records that Prefect accepted may count as logged.

A process can be killed at any point, and the answer to a post can be lost. So the label announces a post before it is
sent, and the next attempt checks in the flow run's log whether the last record of the post is there:

    label: at A                    label: at A, then B if record R is there      post … R      label: at B
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from uuid import UUID
from zlib import crc32

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
from prefect.client.schemas.sorting import LogSort
from prefect.settings import get_current_settings

from paradime_blocks.dbt import Record
from paradime_blocks.text import one_line
from paradime_flows.live.log_lines import size_of
from paradime_flows.prefect_api import LOGS_LABEL_PREFIX, current_task_run_id, run_logger, times

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Log

# Proxies and servers refuse larger requests, every time.
_REQUEST_BYTES: Final = 500_000
# The size of a record without its text.
_RECORD_BYTES: Final = 400
# A server returns at most so many at once.
_MOST_RECORDS: Final = 200
_TOO_LARGE: Final = 413
# These status codes are about the content: the server may accept a part of it.
_OF_THE_CONTENT: Final = frozenset({400, _TOO_LARGE, 422})
# After these status codes, the same request may succeed later.
_FOR_NOW: Final = frozenset({408, 429})


class Journal(Protocol):
    """Writes lines to a log, and stores the position."""

    async def read(self, run_id: int) -> str | None:
        """Return the position of a Bolt run that was stored with the last write whose records arrived."""

    def show(self, records: Sequence[Record]) -> None:
        """Log records to the console, which cannot fail."""

    async def write(self, run_id: int, kept: str) -> None:
        """Send the records that were shown, and store the position, one line of text.

        Raises:
            Exception: The records may not have arrived. Write them again before you show more.
        """


class _ArrivedError(Exception):
    """A post is not sent again, because it has arrived."""


class _Last(NamedTuple):
    """The last record of a post, in a form that can be found in the log."""

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
    """Logs to a flow run, and stores the position in a label of it.

    A write is posted in one request of at most half a megabyte. A request arrives as a whole or not at all, so none of
    its records is there twice. A write needs more requests only if a single line is longer, or if Prefect refused a
    request as too large. If the process is killed between these requests, the next attempt repeats the first of them.

    Args:
        flow_run_id: The flow run.
    """

    def __init__(self, flow_run_id: UUID) -> None:
        self.flow_run_id = flow_run_id
        self._task_run_id = current_task_run_id()
        self._logger = run_logger()
        self._kept = ""
        self._unsent: list[LogCreate] = []
        # How many of these are in the post that is being sent, and in a post whose outcome is unknown.
        self._posting = self._in_flight = 0
        self._request_bytes = _REQUEST_BYTES
        self._last = datetime.min.replace(tzinfo=timezone.utc)
        self._reported: set[int] = set()
        self._client: PrefectClient

    @staticmethod
    def _label(run_id: int) -> str:
        return f"{LOGS_LABEL_PREFIX}{run_id}"

    async def read(self, run_id: int) -> str | None:
        """Return the position that this flow run stored; labels that were copied from another one do not count."""
        async with get_client() as client:
            labels = (await client.read_flow_run(self.flow_run_id)).labels or {}
            owner, _, label = str(labels.get(self._label(run_id), "")).partition(" ")
            if owner == str(self.flow_run_id):
                self._kept, _, announced = label.partition("\n")
                last, _, then = announced.partition("\t")
                # A label that another program changed counts as no announcement.
                with suppress(ValueError):
                    if then and await self._has_arrived(client, _Last.parse(last)):
                        self._kept = then
            # The clock of an earlier attempt's machine may have been ahead of ours.
            newest = await self._find(client, LogFilter(flow_run_id=self._ours()), limit=1)
            self._last = max([self._last, *(record.timestamp for record in newest)])
        return self._kept or None

    def show(self, records: Sequence[Record]) -> None:
        """Log to the console and to other handlers, and prepare the records for Prefect."""
        to_api = get_current_settings().logging.to_api.enabled
        for record in records:
            # A person who turned on dbt's debug lines must not lose them because Prefect's level is info.
            level = (
                record.level if self._logger.isEnabledFor(record.level) else max(record.level, logging.INFO)
            )
            if not self._logger.isEnabledFor(level):
                continue
            self._logger.log(level, record.text, extra={"send_to_api": False})
            if to_api:
                self._unsent.append(
                    LogCreate(
                        name=self._logger.name,
                        level=level,
                        message=record.text,
                        timestamp=self._now(),
                        flow_run_id=self.flow_run_id,
                        task_run_id=self._task_run_id,
                    )
                )

    def _now(self) -> datetime:
        # Prefect orders logs only by time, so no two of our records may have the same time.
        self._last = max(datetime.now(timezone.utc), self._last + timedelta(microseconds=1))
        return self._last

    async def write(self, run_id: int, kept: str) -> None:
        """Announce the records that were shown, post them, and store the new position."""
        async with get_client(httpx_settings={"event_hooks": {"request": [self._before_request]}}) as client:
            self._client = client
            if self._unsent:
                await self._write_label(run_id, f"{self._kept}\n{_Last.of(self._unsent[-1])}\t{kept}")
            while self._unsent:
                await self._post(self._in_flight or self._first_part())
            await self._write_label(run_id, kept)
        self._kept = kept

    async def _write_label(self, run_id: int, text: str) -> None:
        await self._client.update_flow_run_labels(
            self.flow_run_id, {self._label(run_id): f"{self.flow_run_id} {text}"}
        )

    def _first_part(self) -> int:
        """Return how many records fit in one request; at least one."""
        sizes = accumulate(size_of(record.message) + _RECORD_BYTES for record in self._unsent)
        return max(1, sum(size <= self._request_bytes for size in sizes))

    async def _post(self, count: int) -> None:
        """Post the first records, in halves if they are refused, and drop those that arrived or never will."""
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
            self._report(count, error.response)
        self._in_flight = 0
        del self._unsent[:count]

    async def _before_request(self, request: httpx.Request) -> None:
        """Check whether a post has arrived, before Prefect's client or we send it again.

        Raises:
            _ArrivedError: It has arrived.
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
        """Return records, newest first; none if Prefect refuses to return them."""
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
    """Whether the same request would be refused again."""
    # Prefect's client gets a new token with its next request.
    stale = "CSRF" in response.text
    return response.is_client_error and response.status_code not in _FOR_NOW and not stale
