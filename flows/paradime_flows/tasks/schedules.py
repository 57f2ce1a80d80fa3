"""Tasks that read schedules from Bolt, and tasks that suspend or resume the timers of schedules."""

from __future__ import annotations

from paradime_blocks.models import BoltScheduleDetail, BoltScheduleSummary
from paradime_blocks.options import NonEmpty
from paradime_flows.parameters import CredentialsParameter
from paradime_flows.prefect_api import async_form, bolt_client, bolt_task


@bolt_task(name="list-bolt-schedules")
async def list_bolt_schedules(
    credentials: CredentialsParameter = None, *, show_inactive: bool = False, suspended: bool | None = None
) -> list[BoltScheduleSummary]:
    """Return all schedules of the workspace, from all pages of `listBoltSchedules`.

    Args:
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.
        show_inactive: Whether the task returns the inactive schedules instead of the active schedules.
        suspended: If true, the task returns only suspended schedules. If false, the task returns only schedules that
            are not suspended. If None, the task returns both.

    Raises:
        BoltError: Bolt refused the request, or Bolt's answer was not valid.

    Example:
        ```python
        from paradime_flows.tasks import list_bolt_schedules

        for schedule in list_bolt_schedules("production"):
            print(schedule.name, schedule.schedule)
        ```
    """
    async with bolt_client(credentials) as client:
        found = client.iter_bolt_schedules(show_inactive=show_inactive)
        # The schedules are filtered here, because an older backend cannot filter them.
        return [schedule async for schedule in found if suspended in {None, bool(schedule.suspended)}]


@bolt_task(name="get-bolt-schedule")
async def get_bolt_schedule(
    schedule_name: NonEmpty, credentials: CredentialsParameter = None
) -> BoltScheduleDetail:
    """Return a schedule with the id of the schedule's latest Bolt run (`boltScheduleName`).

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.

    Raises:
        BoltError: Bolt refused the request, or Bolt's answer was not valid.

    Example:
        ```python
        from paradime_flows.tasks import get_bolt_schedule

        print(get_bolt_schedule("daily", "production").latest_run_id)
        ```
    """
    async with bolt_client(credentials) as client:
        return await client.get_bolt_schedule(schedule_name)


@bolt_task(name="suspend-bolt-schedule", task_run_name="suspend {schedule_name}: {suspend}")
async def suspend_bolt_schedule(
    schedule_name: NonEmpty, credentials: CredentialsParameter = None, *, suspend: bool = True
) -> bool:
    """Suspend or resume the timer of a schedule that was made in Bolt's UI or API (`suspendBoltSchedule`).

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.
        suspend: True to suspend the timer, False to resume the timer.

    Returns:
        Whether Bolt accepted the request.

    Raises:
        BoltUnsupported: The backend cannot suspend schedules.
        BoltError: Bolt refused the request, or Bolt's answer was not valid.

    Example:
        ```python
        from paradime_flows.tasks import suspend_bolt_schedule

        assert suspend_bolt_schedule("daily", "production")
        assert suspend_bolt_schedule("daily", "production", suspend=False)
        ```
    """
    async with bolt_client(credentials) as client:
        return await client.suspend_bolt_schedule(schedule_name, suspend=suspend)


alist_bolt_schedules = async_form(list_bolt_schedules)
aget_bolt_schedule = async_form(get_bolt_schedule)
asuspend_bolt_schedule = async_form(suspend_bolt_schedule)
