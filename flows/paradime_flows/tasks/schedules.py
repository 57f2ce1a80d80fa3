"""Tasks that ask Bolt for schedules, and suspend or resume their timers."""

from __future__ import annotations

from paradime_blocks.models import BoltScheduleDetail, BoltScheduleSummary
from paradime_blocks.options import NonEmpty
from paradime_flows.parameters import CredentialsParameter
from paradime_flows.prefect_api import async_form, bolt_client, bolt_task


@bolt_task(name="list-bolt-schedules")
async def list_bolt_schedules(
    credentials: CredentialsParameter = None, *, show_inactive: bool = False, suspended: bool | None = None
) -> list[BoltScheduleSummary]:
    """Return all schedules of the workspace (`listBoltSchedules`, every page).

    Args:
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        show_inactive: Whether to list the inactive schedules instead of the active ones.
        suspended: Only schedules whose timer is, or is not, suspended; None for either.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.

    Example:
        ```python
        from paradime_flows.tasks import list_bolt_schedules

        for schedule in list_bolt_schedules("production"):
            print(schedule.name, schedule.schedule)
        ```
    """
    async with bolt_client(credentials) as client:
        found = client.iter_bolt_schedules(show_inactive=show_inactive)
        # Here and not in Bolt: an older backend cannot filter.
        return [schedule async for schedule in found if suspended in {None, bool(schedule.suspended)}]


@bolt_task(name="get-bolt-schedule")
async def get_bolt_schedule(
    schedule_name: NonEmpty, credentials: CredentialsParameter = None
) -> BoltScheduleDetail:
    """Return a schedule with the id of its latest run (`boltScheduleName`).

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.

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
    """Suspend a schedule's timer, or resume it (`suspendBoltSchedule`); only schedules of Bolt's UI or API.

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        suspend: Whether to suspend; False to resume.

    Returns:
        Whether Bolt took the request.

    Raises:
        BoltUnsupported: The backend lacks the operation.
        BoltError: Bolt refused it, or no usable answer came.

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
