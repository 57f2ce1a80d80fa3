"""The flow `watch_runs`: sends the events of the Bolt runs that Prefect did not start, and archives these runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from paradime_blocks import BoltClient
from paradime_blocks.options import NonEmpty
from paradime_flows.events import Workspace
from paradime_flows.parameters import CredentialsParameter
from paradime_flows.prefect_api import async_form, bolt_flow, prefect_client, resolve_credentials, run_logger
from paradime_flows.supervision import resume_suspended
from paradime_flows.watching import (
    ArchivePlan,
    Cursor,
    Drivers,
    WatchedRun,
    first_cursor,
    newest_runs,
    poll_newest,
    read_cursor,
    tell,
    write_cursor,
)


@bolt_flow(
    name="watch-runs",
    description="Sends events for the Bolt runs that Bolt or a person started, and can archive these runs.",
)
async def watch_runs(
    credentials: CredentialsParameter = None,
    *,
    archive: bool = False,
    assets: bool = False,
    overdue_factor: Annotated[float, Field(ge=1.1, le=100)] = 2.0,
    archive_deployment: NonEmpty = "archive-run/bolt",
) -> list[WatchedRun]:
    """Send events for the Bolt runs that have begun or ended since the last poll of Bolt.

    It does not matter who started a Bolt run. Run this flow on a schedule, such as once a minute. Each flow run looks
    at Bolt once: it asks for the newest runs of all schedules. The flow also resumes the flow runs that are suspended
    until a Bolt run has ended (`wait="suspend"`).

    The flow stores in a variable of Prefect which Bolt runs it has seen. So no Bolt run is left out, and none is
    reported twice, even if flow runs are lost. The first flow run only stores which Bolt runs there are, and sends no
    event.

    Args:
        credentials: A saved Paradime Credentials block, or the name of the block. The flow watches the workspace that
            these credentials belong to. If empty, the flow uses the environment variables PARADIME_*.
        archive: Whether the flow archives each Bolt run that has ended and that no flow run has waited for. A separate
            flow run does this for each Bolt run.
        assets: Whether the archive reports the built models, seeds and snapshots to Prefect as assets.
        overdue_factor: A Bolt run is overdue if it takes this many times the usual duration of its schedule's runs.
        archive_deployment: The deployment of the flow archive-run that archives the Bolt runs.

    Returns:
        One entry for each Bolt run that has begun or ended since the last poll, or is overdue now.

    Raises:
        BoltError: Bolt refused the request, or sent no usable answer. The next flow run begins where this one began.

    Example:
        ```python
        from paradime_flows.watch_runs import watch_runs

        for seen in watch_runs():
            print(seen.schedule_name, seen.run_id, seen.events)
        ```
    """
    found = await resolve_credentials(credentials)
    archiving = ArchivePlan.of(
        credentials, found, archive=archive, assets=assets, deployment=archive_deployment
    )
    workspace = Workspace.of(found)
    cursor = await read_cursor(workspace)
    async with found.get_client() as client:
        if cursor is None:
            await write_cursor(workspace, await _first(client))
            return []
        poll = await poll_newest(client, cursor, overdue_factor)
    async with prefect_client() as prefect:
        # Flow runs are resumed first, so that no error with an event or an archive keeps a flow run suspended.
        await resume_suspended(prefect, found, {run.id for run in poll.newest.runs if run.state.is_terminal})
        told = await tell(poll.seen, poll.newest.schedule_of, found, Drivers(prefect, workspace))
        await archiving.carry_out(prefect, workspace, told.watched)
    # The next poll shows the events of these runs again.
    later = told.unsent | told.waiting
    after = poll.without(later) if later else poll.after
    if after != cursor:
        # The cursor is written last. If this flow run is lost before that, the next flow run finds the same events. It
        # sends only the events that Prefect does not have, and starts no archive twice.
        await write_cursor(workspace, after)
    for one in told.watched:
        run_logger().info("Bolt run %d of %s: %s.", one.run_id, one.schedule_name, one.state)
    return told.watched


awatch_runs = async_form(watch_runs)


async def _first(client: BoltClient) -> Cursor:
    newest = await newest_runs(client, None, [])
    await newest.name_runs(client)
    run_logger().info(
        "This is the first poll of Bolt: %d Bolt runs are stored as known, and no event is sent.",
        len(newest.runs),
    )
    return first_cursor(newest.runs, newest.usual_seconds())
