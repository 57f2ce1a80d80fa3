"""The flow `archive_run`: archives any Bolt run to Prefect, at any time."""

from __future__ import annotations

from typing_extensions import Unpack

from paradime_blocks import BoltRunResult
from paradime_blocks.options import NonEmpty
from paradime_flows.live.command_task_runs import CommandTaskRuns
from paradime_flows.parameters import ArchiveRunOptions, CredentialsParameter, RunId
from paradime_flows.prefect_api import (
    ArtifactWriter,
    as_task_run,
    async_form,
    bolt_flow,
    current_flow_run_id,
    filled,
    find_schedule,
    resolve_credentials,
    unless_named,
)
from paradime_flows.reporting.archive import Archive
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.reporting.run_summary import RunRecord


@bolt_flow(
    name="archive-run",
    description="Archives the summary, dbt results, logs and resources of any Bolt run.",
    flow_run_name=unless_named(lambda given: f"archive-run-{given['run_id']}"),
)
async def archive_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    schedule_name: NonEmpty | None = None,
    **options: Unpack[ArchiveRunOptions],
) -> BoltRunResult:
    """Archive a Bolt run in Prefect: its summary, its dbt results, its logs and links to its files.

    You can archive any Bolt run of the workspace, even a Bolt run that Prefect did not start. If the Bolt run has not
    ended, the flow archives the logs and files that exist so far. The flow succeeds even if the Bolt run failed. If
    `storage` is set, the flow also stores copies of files and of long logs.

    Args:
        run_id: The id of the Bolt run: only the number, such as 76002. The URL of the run's page in Paradime contains
            it.
        credentials: A saved Paradime Credentials block, or the name of the block. Do not type in a key or a secret. If
            empty, the flow uses the environment variables PARADIME_*.
        schedule_name: The name of the Bolt run's schedule. The artifact keys contain this name, so that all Bolt runs
            of a schedule have the same keys. Bolt does not return the schedule of a Bolt run. If empty, the flow
            searches for the Bolt run among the newest runs of the active schedules. If the flow does not find the Bolt
            run there, the artifact keys contain the id of the Bolt run.
        options: What the flow archives, and where the flow stores files.

    Returns:
        The result of the Bolt run. The Bolt run may be in any state.

    Raises:
        BoltError: The flow cannot read the Bolt run, or cannot use the storage block.

    Example:
        ```python
        from paradime_blocks import ParadimeCredentials
        from paradime_blocks.testing import BoltSimulator
        from paradime_flows.archive_run import archive_run

        with BoltSimulator(speed=100) as simulator:
            simulator.add_schedule("daily", commands=["dbt run"])
            run_id = simulator.start_run("daily")
            credentials = ParadimeCredentials(
                api_endpoint=simulator.api_endpoint,
                api_key=simulator.api_key,
                api_secret=simulator.api_secret,
            )
            print(archive_run(run_id, credentials).state)
        ```
    """
    resolved = await resolve_credentials(credentials)
    settings = await ArchiveSettings.resolve(options)
    async with resolved.get_client() as client:
        status = await client.get_bolt_run(run_id, logs=False)
        schedule_name = await find_schedule(client, run_id, schedule_name)
    record = RunRecord(schedule_name=schedule_name, run_id=run_id, state=status.state, status=status)
    if not status.state.is_terminal:
        record.outcome = (
            f"The Bolt run has not ended yet ({status.state}). This page shows the parts that exist so far."
        )
    if filled(ArchiveRunOptions, options)["command_task_runs"]:
        commands = CommandTaskRuns(resolved)
        await commands.update(status)
        await commands.close()
    archive = Archive(resolved, ArtifactWriter(flow_run_id=current_flow_run_id()), record, settings)
    async with as_task_run("archive"):
        await archive.run()
    return archive.complete(
        BoltRunResult.of(run_id, record.status, schedule_name=schedule_name, resources=archive.resources)
    )


aarchive_run = async_form(archive_run)
