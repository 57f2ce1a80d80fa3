"""The client's calls about schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paradime_blocks.client import operations as ops
from paradime_blocks.client.aliased_reads import AliasedReads
from paradime_blocks.client.inputs import (
    LARGEST_PAGE,
    check_count,
    check_flag,
    check_id,
    check_schedule,
)
from paradime_blocks.errors import BoltError, BoltUnsupported
from paradime_blocks.models import (
    BoltRunPage,
    BoltRunRecord,
    BoltScheduleDetail,
    BoltSchedulePage,
    BoltScheduleSummary,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_RUNS_TO_SEARCH = 100


class ScheduleCalls(AliasedReads):
    """Calls about schedules."""

    async def list_bolt_schedules(
        self,
        *,
        offset: int = 0,
        limit: int = 100,
        show_inactive: bool = False,
        suspended: bool | None = None,
    ) -> BoltSchedulePage:
        """Return one page of the workspace's schedules (Bolt's `listBoltSchedules`).

        Args:
            offset: How many schedules to skip.
            limit: How many schedules to return at most, 1 to 1000.
            show_inactive: Whether to list the inactive schedules instead of the active ones.
            suspended: True returns only the schedules whose timer is suspended. False returns only the schedules whose
                timer is not suspended. None returns all.

        Raises:
            BoltUnsupported: The backend cannot filter schedules.
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        variables: dict[str, Any] = {
            "offset": check_count("offset", offset, least=0),
            "limit": check_count("limit", limit, least=1, most=LARGEST_PAGE),
            "showInactive": check_flag("show_inactive", show_inactive),
        }
        if suspended is not None:
            variables["filter"] = {"suspended": check_flag("suspended", suspended)}
        return await self._read(ops.LIST_BOLT_SCHEDULES, variables, BoltSchedulePage)

    async def iter_bolt_schedules(
        self, *, page_size: int = 100, show_inactive: bool = False
    ) -> AsyncIterator[BoltScheduleSummary]:
        """Iterate over all schedules of the workspace, page by page.

        Args:
            page_size: How many schedules to read with one request, 1 to 1000.
            show_inactive: Whether to list the inactive schedules instead of the active ones.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        offset = 0
        while True:
            page = await self.list_bolt_schedules(offset=offset, limit=page_size, show_inactive=show_inactive)
            for schedule in page.schedules:
                yield schedule
            offset += page.received
            if not page.received or (page.total_count is not None and offset >= page.total_count):
                return

    async def get_bolt_schedule(self, schedule_name: str) -> BoltScheduleDetail:
        """Return one schedule with the id of its latest run (Bolt's `boltScheduleName`).

        Args:
            schedule_name: The schedule's name or slug.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        variables = {"scheduleName": check_schedule(schedule_name)}
        return await self._read(ops.BOLT_SCHEDULE_NAME, variables, BoltScheduleDetail)

    async def suspend_bolt_schedule(self, schedule_name: str, *, suspend: bool = True) -> bool:
        """Suspend a schedule's timer, or resume it. The request is safe to repeat.

        Bolt allows this only for schedules that were created in Bolt's UI or through Bolt's API. A suspended schedule
        can still be triggered.

        Args:
            schedule_name: The schedule's name or slug.
            suspend: True to suspend the timer, False to resume it.

        Returns:
            Whether Bolt accepted the request.

        Raises:
            BoltUnsupported: The backend does not have the operation.
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        variables = {
            "slug": check_schedule(schedule_name),
            "suspend": check_flag("suspend", suspend),
        }
        reply = await self._call(ops.SUSPEND_BOLT_SCHEDULE, variables)
        return bool(isinstance(reply, dict) and reply.get("ok"))

    async def find_schedule_of_run(self, run_id: int) -> str | None:
        """Return the name of the schedule that a run belongs to. Bolt's API has no query for this name.

        The client searches for the run among the newest runs of all active schedules, with one request per hundred
        schedules. If the backend cannot list runs, the client checks only the latest run of each schedule.

        Args:
            run_id: The id of the run.

        Returns:
            The schedule's name; None if the run was not found.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        check_id("run_id", run_id)
        runs = await self.runs_of_schedules(limit=_RUNS_TO_SEARCH)
        return next((name for name, found in runs.items() if run_id in {run.id for run in found}), None)

    async def runs_of_schedules(self, *, limit: int) -> dict[str, list[BoltRunRecord]]:
        """Return the newest runs of each active schedule, newest first, with one request per fifty schedules.

        If the backend cannot list runs, the list of each schedule has only the schedule's latest run, in a state that
        is not known. A schedule whose runs Bolt does not return has an empty list.

        Args:
            limit: How many runs to return of each schedule, 1 to 1000.

        Returns:
            The runs. The key is the schedule's name.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        check_count("limit", limit, least=1, most=LARGEST_PAGE)
        names = [schedule.name async for schedule in self.iter_bolt_schedules() if schedule.name]
        try:
            each = [{"slug": name, "offset": 0, "limit": limit} for name in names]
            pages = await self._read_each(ops.LIST_BOLT_RUNS, each, BoltRunPage)
            runs = [[] if isinstance(page, BoltError) else page.runs for page in pages]
        except BoltUnsupported:
            details = await self._read_each(
                ops.BOLT_SCHEDULE_NAME, [{"scheduleName": name} for name in names], BoltScheduleDetail
            )
            latest = [None if isinstance(detail, BoltError) else detail.latest_run_id for detail in details]
            runs = [[BoltRunRecord(id=id_, state="UNKNOWN")] if id_ else [] for id_ in latest]
        return dict(zip(names, runs, strict=True))
