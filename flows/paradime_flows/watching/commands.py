"""Does the work of webhooks: finds the Bolt runs to which given commands belong, and tells Prefect about them.

Of a webhook, only the ids of the commands are trusted. Everything else is read from Bolt.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from paradime_blocks import BoltClient, BoltError, BoltRequestError, ParadimeCredentials
from paradime_flows.events import Workspace
from paradime_flows.prefect_api import prefect_client, run_logger
from paradime_flows.supervision import resume_suspended
from paradime_flows.watching.cursor import Cursor, advance
from paradime_flows.watching.drivers import Drivers
from paradime_flows.watching.newest import states_of
from paradime_flows.watching.watched import ArchivePlan, WatchedRun, tell

# The ids of some commands of one Bolt run.
CommandIds = tuple[int, ...]
# Many runs of one schedule may end at the same time.
_RUNS_OF_A_SCHEDULE: Final = 100


@dataclass
class Reported:
    """The result of `report_commands`.

    Attributes:
        watched: The Bolt runs, without those whose flow run sends the events itself.
        unknown: The commands that Bolt does not know.
        again: The commands of Bolt runs whose events Prefect has not stored in time.
        unfinished: The commands of Bolt runs that have not ended.
        unarchived: The commands of Bolt runs that could not be archived. The value is the reason.
    """

    watched: list[WatchedRun] = field(default_factory=list)
    unknown: set[CommandIds] = field(default_factory=set)
    again: set[CommandIds] = field(default_factory=set)
    unfinished: set[CommandIds] = field(default_factory=set)
    unarchived: dict[CommandIds, BoltRequestError] = field(default_factory=dict)


async def report_commands(
    named: Collection[CommandIds], credentials: ParadimeCredentials, archiving: ArchivePlan
) -> Reported:
    """Tell Prefect about the Bolt runs to which commands belong.

    If a flow run is suspended until one of these Bolt runs ends, and that Bolt run has ended, the flow run is resumed
    first. Then the events of all Bolt runs are sent, and the Bolt runs that have ended are archived. A repeated call
    does no harm: a flow run is resumed once, an event always has the same id, and a Bolt run is archived once.

    Args:
        named: The commands. All commands of one entry belong to one Bolt run.
        credentials: The credentials of the workspace.
        archiving: Which Bolt runs are archived.

    Raises:
        BoltError: Bolt refused the request, or sent no usable answer.
        Exception: Prefect is unreachable.
    """
    async with credentials.get_client() as client:
        runs = await _runs_of(client, named)
        unknown = {*named} - {*runs}
        if not runs:
            return Reported(unknown=unknown)
        records, _ = await states_of(client, sorted(set(runs.values())))
        schedules = await client.runs_of_schedules(limit=_RUNS_OF_A_SCHEDULE)
    names = {run.id: name for name, found in schedules.items() for run in found}
    seen, _ = advance(Cursor(), records.values())
    workspace = Workspace.of(credentials)
    async with prefect_client() as prefect:
        # An event that is sent while Prefect is unreachable is lost without an error.
        if (error := await prefect.api_healthcheck()) is not None:
            raise error
        ended = {run.id for run in records.values() if run.state.is_terminal}
        if ended:
            # Flow runs are resumed first, so that no error with an event or an archive keeps a flow run suspended.
            await resume_suspended(prefect, credentials, ended)
        told = await tell(seen, names.get, credentials, Drivers(prefect, workspace))
        unarchived: dict[int, BoltRequestError] = {}
        try:
            await archiving.carry_out(prefect, workspace, told.watched)
        except BoltRequestError as missing:
            unarchived = dict.fromkeys(
                (one.run_id for one in told.watched if archiving.includes(one)), missing
            )
    return Reported(
        told.watched,
        unknown=unknown,
        again={ids for ids, run_id in runs.items() if run_id in told.unsent},
        unfinished={ids for ids, run_id in runs.items() if run_id in records and run_id not in ended},
        unarchived={ids: unarchived[run_id] for ids, run_id in runs.items() if run_id in unarchived},
    )


async def _runs_of(client: BoltClient, named: Collection[CommandIds]) -> dict[CommandIds, int]:
    """Return the Bolt run of each entry.

    Bolt is asked for the first command of an entry. If Bolt does not know this command, Bolt is asked for the other
    commands.
    """
    unknown: dict[int, BoltError] = {}
    found = await client.get_runs_of_commands(sorted({ids[0] for ids in named}), errors=unknown)
    others = sorted({id_ for ids in named if ids[0] in unknown for id_ in ids[1:]} - {*found, *unknown})
    found |= await client.get_runs_of_commands(others, errors=unknown)
    runs = {}
    for ids in named:
        run_id = next((found[id_] for id_ in ids if id_ in found), None)
        if run_id is None:
            run_logger().warning("Bolt does not know the command %d: %s", ids[0], unknown[ids[0]].message)
        else:
            runs[ids] = run_id
    return runs
