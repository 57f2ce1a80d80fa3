"""Observes a run until its end. Several waits share their polls, and polls are more frequent near the usual end."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio

from paradime_blocks.errors import BoltError
from paradime_blocks.models import BoltUsualDuration
from paradime_blocks.polling import Clock, Deadline, Observation, observe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from paradime_blocks.client import BoltClient
    from paradime_blocks.models import BoltRunStatus

_RUNS_READ: Final = 20
_ANSWER_SECONDS: Final = 5.0


@asynccontextmanager
async def observed(  # noqa: PLR0917 - the attributes of a handle, in their order
    client: BoltClient,
    run_id: int,
    schedule_name: str | None,
    poll_interval_seconds: float,
    deadline: Deadline,
    clock: Clock,
) -> AsyncIterator[AsyncIterator[Observation]]:
    """Yield the observations of a run. `polling.observe` describes them.

    Args:
        client: The workspace's client.
        run_id: The run.
        schedule_name: The run's schedule, whose other runs show when this run is likely to end; None if it is unknown.
        poll_interval_seconds: The longest sleep between two polls.
        deadline: The time limit.
        clock: The clock of the wait.
    """
    usual_end = UsualEnd(client, run_id, schedule_name)
    with client.share_polls(run_id, monotonic=clock.monotonic, sleep=clock.sleep) as polls:
        observations = observe(
            polls.poll,
            poll_interval_seconds=poll_interval_seconds,
            deadline=deadline,
            clock=replace(clock, sleep=polls.sleep),
            poll_now=polls.wake,
            until_usual_end=usual_end.seconds_left,
        )
        try:
            yield observations
        finally:
            await observations.aclose()  # type: ignore[attr-defined]


class UsualEnd:
    """Computes when a run ends, if it takes as long as the runs of its schedule usually take. Bolt is asked once.

    Args:
        client: The workspace's client.
        run_id: The run.
        schedule_name: The run's schedule; None if it is unknown.
    """

    def __init__(self, client: BoltClient, run_id: int, schedule_name: str | None) -> None:
        self.client = client
        self.run_id = run_id
        self.schedule_name = schedule_name
        self._asked = False
        self._at: float | None = None

    async def seconds_left(self, status: BoltRunStatus) -> float | None:
        """Return the time until the usual end, in seconds; None if the usual duration is unknown.

        Args:
            status: The run's status from the last poll.
        """
        if not self._asked:
            self._asked = True
            with anyio.move_on_after(_ANSWER_SECONDS):
                self._at = await self._ask(status)
        now = self.client.bolt_time()
        return None if self._at is None or now is None else self._at - now

    async def _ask(self, status: BoltRunStatus) -> float | None:
        if self.schedule_name is None:
            return None
        # The request may fail. Some backends cannot list runs. And the operation needs the schedule's slug, which may
        # differ from its name.
        with suppress(BoltError):
            page = await self.client.list_bolt_runs(self.schedule_name, limit=_RUNS_READ)
            usual = BoltUsualDuration.of(page.runs, self.run_id)
            began = next((run.start_dttm for run in page.runs if run.id == self.run_id), None)
            began = began or status.started_at
            if usual is not None and began is not None:
                return began.timestamp() + usual.seconds
        return None
