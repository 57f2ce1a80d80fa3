"""A poll of Bolt: reads the newest Bolt runs of a workspace, and compares them with the cursor of the last poll."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from paradime_blocks import BoltClient
from paradime_flows.watching.cursor import Cursor, Seen, advance
from paradime_flows.watching.newest import NewestRuns, newest_runs


@dataclass
class Poll:
    """The result of a poll of Bolt.

    Attributes:
        cursor: The cursor of the last poll.
        newest: The newest Bolt runs.
        now: The time by Bolt's clock.
        overdue_factor: A run is overdue if it takes this many times its usual duration.
        usual: For each run, how many seconds the runs of its schedule usually take. The key is the id of the run.
        seen: The events since the last poll, oldest run first.
        after: The new cursor. It is correct if Prefect stores the events of all runs.
    """

    cursor: Cursor
    newest: NewestRuns
    now: datetime
    overdue_factor: float
    usual: Mapping[int, float] = field(default_factory=dict)
    seen: list[Seen] = field(init=False)
    after: Cursor = field(init=False)

    def __post_init__(self) -> None:
        """Compare the runs with the cursor of the last poll."""
        self.seen, self.after = self._advance(())

    def without(self, unsent: Collection[int]) -> Cursor:
        """Return the new cursor for the case that the next poll is to show the events of some runs again."""
        return self._advance(unsent)[1]

    def _advance(self, unsent: Collection[int]) -> tuple[list[Seen], Cursor]:
        return advance(
            self.cursor,
            self.newest.runs,
            now=self.now,
            usual=self.usual,
            overdue_factor=self.overdue_factor,
            unsent=unsent,
        )


async def poll_newest(client: BoltClient, cursor: Cursor, overdue_factor: float) -> Poll:
    """Poll the newest Bolt runs of all schedules. A poll takes one request, and a few more if there are new events.

    Args:
        client: An open client.
        cursor: The cursor of the last poll.
        overdue_factor: A run is overdue if it takes this many times its usual duration.

    Raises:
        BoltError: Bolt refused the request, or sent no usable answer.
    """
    newest = await newest_runs(client, cursor.is_new, [*cursor.open])
    kept = {run_id: run for run_id, run in cursor.open.items() if run_id not in newest.lost}
    seconds = client.bolt_time()
    now = datetime.now(timezone.utc) if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
    poll = Poll(cursor.model_copy(update={"open": kept}), newest, now, overdue_factor)
    if poll.seen:
        await newest.name_runs(client)
        # The usual duration of a new run is stored in the cursor.
        poll = Poll(poll.cursor, newest, now, overdue_factor, newest.usual_seconds())
    return poll
