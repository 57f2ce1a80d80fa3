"""The client's calls about schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paradime_blocks.client import operations as ops
from paradime_blocks.client.inputs import (
    LARGEST_PAGE,
    check_count,
    check_flag,
    check_id,
    check_schedule,
)
from paradime_blocks.client.session import BoltSession
from paradime_blocks.errors import BoltError, BoltUnsupported
from paradime_blocks.models import BoltRunPage, BoltScheduleDetail, BoltSchedulePage, BoltScheduleSummary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_RUNS_TO_SEARCH = 100


class ScheduleCalls(BoltSession):
    """Calls about schedules."""

    async def list_bolt_schedules(
        self,
        *,
        offset: int = 0,
        limit: int = 100,
        show_inactive: bool = False,
        suspended: bool | None = None,
    ) -> BoltSchedulePage:
        """Return one page of the workspace's schedules (`reference.txt`).

        Args:
            offset: How many schedules to pass over.
            limit: How many to return at most, 1 to 1000.
            show_inactive: Whether to list the inactive schedules instead of the active ones.
            suspended: Only schedules whose timer is, or is not, suspended (`facts.md`); None for either.

        Raises:
            BoltUnsupported: The backend cannot filter.
            BoltError: Bolt refused it, or no usable answer came.
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
            page_size: How many schedules to ask for at a time, 1 to 1000.
            show_inactive: Whether to list the inactive schedules instead of the active ones.

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
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
        """Return one schedule with the id of its latest run (`reference.txt`: `boltScheduleName`).

        Args:
            schedule_name: The schedule's name or slug.

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
        """
        variables = {"scheduleName": check_schedule(schedule_name)}
        return await self._read(ops.BOLT_SCHEDULE_NAME, variables, BoltScheduleDetail)

    async def suspend_bolt_schedule(self, schedule_name: str, *, suspend: bool = True) -> bool:
        """Suspend a schedule's timer, or resume it (`facts.md`); safe to repeat.

        Bolt does so only for schedules that were made in its UI or by API. Triggers work all the same.

        Args:
            schedule_name: The schedule's name or slug.
            suspend: Whether to suspend; False to resume.

        Returns:
            Whether Bolt accepted the request.

        Raises:
            BoltUnsupported: The backend lacks the operation.
            BoltError: Bolt refused it, or no usable answer came.
        """
        variables = {
            "slug": check_schedule(schedule_name),
            "suspend": check_flag("suspend", suspend),
        }
        reply = await self._call(ops.SUSPEND_BOLT_SCHEDULE, variables)
        return bool(isinstance(reply, dict) and reply.get("ok"))

    async def find_schedule_of_run(self, run_id: int) -> str | None:
        """Return the name of the schedule of a run, which Bolt's API does not return for a run.

        It searches the newest runs of all active schedules, fifty schedules per request. If the backend has no list of
        runs, it checks only the latest run of each schedule.

        Args:
            run_id: The run.

        Returns:
            The schedule's name; None if none of them has the run.

        Raises:
            BoltError: Bolt refused it, or no usable answer came.
        """
        check_id("run_id", run_id)
        names = [schedule.name async for schedule in self.iter_bolt_schedules() if schedule.name]
        try:
            each = [{"slug": name, "offset": 0, "limit": _RUNS_TO_SEARCH} for name in names]
            # A schedule that Bolt does not return is skipped: the run is most likely another one's.
            pages = await self._read_each(ops.LIST_BOLT_RUNS, each, BoltRunPage)
            runs = [set() if isinstance(page, BoltError) else {run.id for run in page.runs} for page in pages]
        except BoltUnsupported:
            details = await self._read_each(
                ops.BOLT_SCHEDULE_NAME, [{"scheduleName": name} for name in names], BoltScheduleDetail
            )
            runs = [
                set() if isinstance(detail, BoltError) else {detail.latest_run_id or 0} for detail in details
            ]
        return next((name for name, found in zip(names, runs, strict=True) if run_id in found), None)
