"""The flow `archive_run`: what any Bolt run left behind, archived to Prefect, at any time later."""

from __future__ import annotations

from typing_extensions import Unpack

from paradime_blocks import BoltRunResult
from paradime_blocks.options import NonEmpty
from paradime_flows.parameters import ArchiveOptions, CredentialsParameter, RunId
from paradime_flows.prefect_api import (
    ArtifactWriter,
    async_form,
    bolt_flow,
    current_flow_run_id,
    find_schedule,
    resolve_credentials,
)
from paradime_flows.reporting.archive import Archive
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.reporting.run_summary import RunRecord


@bolt_flow(
    name="archive-run",
    description="Archives the summary, dbt results, logs and resources of any Bolt run.",
    flow_run_name="archive-run-{run_id}",
)
async def archive_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    schedule_name: NonEmpty | None = None,
    **options: Unpack[ArchiveOptions],
) -> BoltRunResult:
    """Archive a Bolt run: summary, dbt results, logs, links, and what else is asked for.

    The run may be any of the workspace, also one that Prefect did not start. Of a run that is still running,
    what there is so far is archived. How the run ended is no failure of this flow.

    Args:
        run_id: The id of the run, as in its address in Paradime.
        credentials: A Paradime Credentials block or the name of one. Empty: those of the environment.
        schedule_name: The run's schedule, so that the artifacts join those of its other runs; Bolt does not
            tell it of a run. Empty: it is looked for among the newest runs of the active schedules, and where
            it is not found, the artifacts are named for the run.
        options: What to archive, and where.

    Returns:
        What is known of the run, whatever its state.

    Raises:
        BoltError: The run cannot be seen, or the block for storage cannot be used.

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
        record.outcome = f"The run has not ended yet ({status.state}); this is what there is so far."
    archive = Archive(resolved, ArtifactWriter(flow_run_id=current_flow_run_id()), record, settings)
    await archive.run()
    return BoltRunResult.of(run_id, record.status, schedule_name=schedule_name, resources=archive.resources)


aarchive_run = async_form(archive_run)
