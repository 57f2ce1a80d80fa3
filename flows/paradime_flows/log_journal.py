"""Where live logs go, and where it is kept how far they have got: a flow run's log, and a label of it.

Records are posted to Prefect's API here rather than left to Prefect's own handler, which drops what it cannot
post: only what Prefect has taken may be written down as logged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Protocol
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import LogCreate
from prefect.settings import get_current_settings

from paradime_flows.context import current_task_run_id, run_logger
from paradime_flows.log_lines import Record


class Journal(Protocol):
    """Where lines are logged, and where it is kept how far."""

    async def read(self, run_id: int) -> str | None:
        """Return what was kept for a Bolt run."""

    def show(self, records: Sequence[Record]) -> None:
        """Log records where that cannot fail."""

    async def write(self, run_id: int, kept: str) -> None:
        """See that what was shown has arrived, then keep how far that is.

        Raises:
            Exception: It may not have arrived, and will be tried again with the next call.
        """


class FlowRunJournal:
    """Logs for a flow run, and keeps the position in a label of it.

    Args:
        flow_run_id: The flow run.
    """

    def __init__(self, flow_run_id: UUID) -> None:
        self.flow_run_id = flow_run_id
        self._task_run_id = current_task_run_id()
        self._logger = run_logger()
        self._unsent: list[LogCreate] = []
        self._last = datetime.min.replace(tzinfo=timezone.utc)

    @staticmethod
    def _label(run_id: int) -> str:
        return f"paradime.logs.{run_id}"

    async def read(self, run_id: int) -> str | None:
        """Return what this flow run kept; labels that were copied from another one do not count."""
        async with get_client() as client:
            labels = (await client.read_flow_run(self.flow_run_id)).labels or {}
        owner, _, kept = str(labels.get(self._label(run_id), "")).partition(" ")
        return kept if owner == str(self.flow_run_id) else None

    def show(self, records: Sequence[Record]) -> None:
        """Log to the console and to whoever listens besides, and prepare what Prefect is told."""
        to_api = get_current_settings().logging.to_api.enabled
        for record in records:
            # Who asked dbt for its debug lines must not lose them because Prefect's level is info.
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
        # Prefect shows logs by their time alone, so no two of ours may have the same.
        self._last = max(datetime.now(timezone.utc), self._last + timedelta(microseconds=1))
        return self._last

    async def write(self, run_id: int, kept: str) -> None:
        """Post what was shown, then write the label."""
        async with get_client() as client:
            if self._unsent:
                await client.create_logs(self._unsent)
                self._unsent = []
            await client.update_flow_run_labels(
                self.flow_run_id, {self._label(run_id): f"{self.flow_run_id} {kept}"}
            )
