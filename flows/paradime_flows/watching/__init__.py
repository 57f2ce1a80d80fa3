"""The code behind `watch_runs` and the receiver of webhooks. Other packages import these names."""

from paradime_flows.watching.commands import CommandIds, Reported, report_commands
from paradime_flows.watching.cursor import Cursor, first_cursor
from paradime_flows.watching.drivers import Drivers
from paradime_flows.watching.newest import newest_runs
from paradime_flows.watching.poll import poll_newest
from paradime_flows.watching.store import read_cursor, write_cursor
from paradime_flows.watching.watched import ArchivePlan, WatchedRun, tell

__all__ = [
    "ArchivePlan",
    "CommandIds",
    "Cursor",
    "Drivers",
    "Reported",
    "WatchedRun",
    "first_cursor",
    "newest_runs",
    "poll_newest",
    "read_cursor",
    "report_commands",
    "tell",
    "write_cursor",
]
