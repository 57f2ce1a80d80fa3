"""The flow `list_schedules`: shows the workspace's schedules in a table, overdue and failing schedules first."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

from paradime_blocks import BoltRunState
from paradime_blocks.options import Flag, NonEmpty
from paradime_blocks.text import one_line
from paradime_flows.parameters import CredentialsParameter
from paradime_flows.prefect_api import ArtifactWriter, async_form, bolt_client, bolt_flow, current_flow_run_id
from paradime_flows.reporting.cron_words import cron_in_words
from paradime_flows.reporting.markdown import moment

if TYPE_CHECKING:
    from paradime_blocks.models import BoltScheduleSummary


class ListedSchedule(BaseModel):
    """A schedule as the table shows it.

    Attributes:
        name: The schedule's name.
        slug: The schedule's slug; None if the backend does not return slugs.
        cron: The schedule's timer, as a cron expression.
        timer: The schedule's timer in words.
        owner: The schedule's owner.
        last_state: The state of the schedule's last Bolt run.
        last_run_at: The time at which the schedule's last Bolt run started, in UTC.
        next_run_at: The time at which the schedule's next Bolt run is due, in UTC.
        suspended: Whether the timer is suspended; None if the backend does not return this field.
        overdue: Whether the schedule's next Bolt run should already have started.
        failing: Whether the schedule's last Bolt run failed.
    """

    name: str
    slug: str | None = None
    cron: str | None = None
    timer: str
    owner: str | None = None
    last_state: str | None = None
    last_run_at: datetime | None = None
    next_run_at: datetime | None = None
    suspended: bool | None = None
    overdue: bool = False
    failing: bool = False

    @classmethod
    def of(cls, schedule: BoltScheduleSummary, due: datetime) -> ListedSchedule:
        """Create the table's entry for a schedule.

        Args:
            schedule: The schedule, as Bolt lists it.
            due: A schedule is overdue if its next Bolt run was due before this time.
        """
        state = BoltRunState(schedule.last_run_state) if (schedule.last_run_state or "").strip() else None
        next_run = schedule.next_run_at
        running = state is not None and not state.is_terminal
        return cls(
            name=schedule.name,
            slug=schedule.slug,
            cron=schedule.schedule,
            timer=cron_in_words(schedule.schedule),
            owner=schedule.owner,
            last_state=str(state) if state is not None else None,
            last_run_at=schedule.last_run_at,
            next_run_at=next_run,
            suspended=schedule.suspended,
            overdue=next_run is not None and next_run < due and not schedule.suspended and not running,
            failing=state in BoltRunState.FAILURES,
        )

    def row(self) -> dict[str, str]:
        """Return the schedule as a row of the table. The keys are the column names, the values are the cells."""
        return {
            "Problem": "⏰ overdue" if self.overdue else "❌ failing" if self.failing else "",
            "Schedule": one_line(self.name),
            "Timer (UTC)": self.timer,
            "Owner": one_line(self.owner or ""),
            "Last state": one_line(self.last_state or "never run"),
            "Last run (UTC)": moment(self.last_run_at, seconds=False),
            "Next run (UTC)": moment(self.next_run_at, seconds=False),
            "Suspended": "" if self.suspended is None else "yes" if self.suspended else "no",
        }


@bolt_flow(
    name="list-schedules",
    description="Lists the Paradime Bolt schedules of a workspace; overdue and failing schedules first.",
)
async def list_schedules(
    credentials: CredentialsParameter = None,
    *,
    show_inactive: bool = False,
    suspended: Flag | None = None,
    owner: NonEmpty | None = None,
    overdue_after_seconds: Annotated[float, Field(ge=0, le=30 * 86_400)] = 600,
) -> list[ListedSchedule]:
    """List the schedules of a workspace, and show them as a table artifact.

    Args:
        credentials: A saved Paradime Credentials block, or the name of the block. Do not type in a key or a secret. If
            empty, the flow uses the environment variables PARADIME_*.
        show_inactive: Whether the flow lists the inactive schedules instead of the active schedules.
        suspended: If true, the flow lists only suspended schedules. If false, the flow lists only schedules that are
            not suspended. If empty, the flow lists both.
        owner: The flow lists only schedules whose owner contains this text. If empty, the flow lists the schedules of
            all owners.
        overdue_after_seconds: How late a schedule's next Bolt run may be before the schedule is shown as overdue, in
            seconds.

    Returns:
        The schedules. Overdue schedules come first, then failing schedules, then all other schedules. Each group is
        sorted by name.

    Raises:
        BoltError: Bolt refused the request, or Bolt's answer was not valid.

    Example:
        ```python
        from paradime_flows.list_schedules import list_schedules

        for schedule in list_schedules("production"):
            print(schedule.name, schedule.timer, schedule.last_state)
        ```
    """
    async with bolt_client(credentials) as client:
        found = [schedule async for schedule in client.iter_bolt_schedules(show_inactive=show_inactive)]
    now = datetime.now(timezone.utc)
    late = timedelta(seconds=overdue_after_seconds)
    listed = [ListedSchedule.of(schedule, now - late) for schedule in found]
    # The schedules are filtered here, because an older backend cannot filter them.
    wanted = [
        schedule
        for schedule in listed
        if suspended in {None, bool(schedule.suspended)}
        and (owner is None or owner.lower() in (schedule.owner or "").lower())
    ]
    wanted.sort(key=lambda schedule: (not schedule.overdue, not schedule.failing, schedule.name.lower()))
    bad = sum(schedule.overdue or schedule.failing for schedule in wanted)
    writer = ArtifactWriter(current_flow_run_id())
    rows = [schedule.row() for schedule in wanted]
    await writer.table("paradime-schedules", rows, f"{len(wanted)} schedules; {bad} overdue or failing.")
    return wanted


alist_schedules = async_form(list_schedules)
