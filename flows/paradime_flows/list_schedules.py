"""The flow `list_schedules`: lists the workspace's schedules in a table, overdue and failing ones first."""

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
        cron: The timer, as a cron expression.
        timer: The timer in words.
        owner: The schedule's owner.
        last_state: The state of the last Bolt run.
        last_run_at: The time at which the last Bolt run started, in UTC.
        next_run_at: The time at which the next Bolt run is due, in UTC.
        suspended: Whether the timer is suspended; None if the backend does not return this.
        overdue: Whether the next Bolt run should already have started.
        failing: Whether the last Bolt run failed.
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
        """Make a row's data from a schedule.

        Args:
            schedule: The schedule, as Bolt lists it.
            due: A schedule is overdue if its next run was due before this time.
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
        """Return the table's row: its cells by column name."""
        return {
            "": "⏰ overdue" if self.overdue else "❌ failing" if self.failing else "",
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
    description="Lists the Paradime Bolt schedules of a workspace; overdue and failing ones first.",
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
        credentials: A saved Paradime Credentials block or its name, never typed values. Empty: PARADIME_* variables.
        show_inactive: Whether to list the inactive schedules instead of the active ones.
        suspended: True: only suspended schedules; False: only schedules that are not suspended. Empty: all.
        owner: Only schedules whose owner contains this text.
        overdue_after_seconds: How late a run may be before its schedule counts as overdue, in seconds.

    Returns:
        The schedules: overdue ones, then failing ones, then the rest by name.

    Raises:
        BoltError: Bolt refused the request, or its answer was not usable.

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
