"""Reads the newest Bolt runs of all schedules with one request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from paradime_blocks import BoltAuthError, BoltClient, BoltRequestError
from paradime_blocks.models import BoltRunRecord, BoltRunState, BoltRunStatus, BoltUsualDuration
from paradime_flows.prefect_api import run_logger

PAGE: Final = 100
_LARGER_PAGE: Final = 1000
_MOST_PAGES: Final = 10
_UNKNOWN: Final = BoltRunState("UNKNOWN")
_RUNS_OF_A_SCHEDULE: Final = 20


@dataclass
class NewestRuns:
    """The newest Bolt runs of a workspace.

    Attributes:
        runs: The Bolt runs.
        schedules: The newest Bolt runs of each schedule; empty if they were not read. The key is the schedule's name.
        lost: The ids of the runs whose state was needed, but that Bolt does not know any more.
    """

    runs: list[BoltRunRecord]
    schedules: dict[str, list[BoltRunRecord]] = field(default_factory=dict)
    lost: frozenset[int] = frozenset()

    async def name_runs(self, client: BoltClient) -> None:
        """Read which runs belong to which schedule, with one request per fifty schedules.

        This is needed because a run in Bolt's list does not name its schedule.
        """
        if not self.schedules:
            self.schedules = await client.runs_of_schedules(limit=_RUNS_OF_A_SCHEDULE)

    def schedule_of(self, run_id: int) -> str | None:
        """Return the name of a run's schedule; None if the run is not among the newest runs of the schedules."""
        return next(
            (name for name, runs in self.schedules.items() if any(run.id == run_id for run in runs)), None
        )

    def usual_seconds(self) -> dict[int, float]:
        """Return, for each run, how many seconds the runs of its schedule usually take. The key is the run's id."""
        found = {}
        for runs in self.schedules.values():
            for run in runs:
                usual = BoltUsualDuration.of(runs, run.id)
                if usual is not None:
                    found[run.id] = usual.seconds
        return found


async def newest_runs(
    client: BoltClient, is_new: Callable[[int], bool] | None, still_open: Collection[int]
) -> NewestRuns:
    """Return the newest runs of all schedules, and the runs that had not ended at the last poll.

    A further page is read only if all runs of the page before it are new. This happens after a pause of the watch.

    Args:
        client: An open client.
        is_new: Returns whether a run has not been seen yet; None at the first poll, which reads only one page.
        still_open: The ids of the runs that had not ended at the last poll.

    Raises:
        BoltError: Bolt refused the request, or sent no usable answer.
    """
    try:
        found = NewestRuns(await _pages(client, is_new))
    except BoltAuthError:
        raise
    except BoltRequestError as error:
        # An older backend cannot list runs, or can list only the runs of one schedule.
        run_logger().warning(
            "Bolt does not list the runs of all schedules (%s). The newest runs of each schedule are read instead. "
            "If Bolt shows only the latest run of a schedule, earlier runs since the last poll are missed.",
            error.message,
        )
        schedules = await client.runs_of_schedules(limit=_RUNS_OF_A_SCHEDULE)
        found = NewestRuns([run for runs in schedules.values() for run in runs], schedules)
    listed = {run.id: run for run in found.runs}
    wanted = {run.id for run in found.runs if run.state == _UNKNOWN and (is_new is None or is_new(run.id))}
    wanted |= {id_ for id_ in still_open if id_ not in listed or listed[id_].state == _UNKNOWN}
    states, found.lost = await states_of(client, sorted(wanted))
    found.runs = [*{**listed, **states}.values()]
    return found


async def _pages(client: BoltClient, is_new: Callable[[int], bool] | None) -> list[BoltRunRecord]:
    page = await client.list_bolt_runs(None, limit=PAGE)
    runs, received = list(page.runs), page.received
    pages = 1
    while is_new is not None and received and page.received and all(is_new(run.id) for run in page.runs):
        if pages == _MOST_PAGES:
            run_logger().warning("More than %d runs are new; the oldest of them are left out.", len(runs))
            break
        page = await client.list_bolt_runs(None, offset=received, limit=_LARGER_PAGE)
        runs += page.runs
        received += page.received
        pages += 1
    return runs


async def states_of(
    client: BoltClient, run_ids: Sequence[int]
) -> tuple[dict[int, BoltRunRecord], frozenset[int]]:
    """Return the runs with the given ids, and the ids that Bolt does not know any more. The key of a run is its id.

    Args:
        client: An open client.
        run_ids: The ids of the runs.

    Raises:
        BoltError: Bolt refused the request, or sent no usable answer.
    """
    states: dict[int, BoltRunStatus] = {}
    lost = set()
    try:
        states = await client.get_bolt_runs(run_ids) if run_ids else {}
    except BoltAuthError:
        raise
    except BoltRequestError:
        # Bolt refuses at least one of the runs. Single requests show which.
        for run_id in run_ids:
            try:
                states[run_id] = await client.get_bolt_run(run_id, logs=False)
            except BoltRequestError as error:
                run_logger().warning("Bolt run %d is not watched any more: %s", run_id, error.message)
                lost.add(run_id)
    records = {
        id_: BoltRunRecord(id=id_, state=one.state, start_dttm=one.started_at, end_dttm=one.ended_at)
        for id_, one in states.items()
    }
    return records, frozenset(lost)
