"""The flow `archive_run`: archives any Bolt run to Prefect, at any time."""

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
    """Archive a Bolt run: its summary, dbt results, logs and links, and its files if a storage is set.

    You can archive any Bolt run of the workspace, also a run that Prefect did not start. If the run has not ended,
    the flow archives what exists so far. The flow succeeds even if the Bolt run failed.

    Args:
        run_id: The id of the run, as in its address in Paradime.
        credentials: A saved Paradime Credentials block or its name, never typed values. Empty: PARADIME_* variables.
        schedule_name: The run's schedule, so that the artifacts of all its runs have the same keys. Bolt does not say
            which schedule a run belongs to. Empty: the flow searches the newest runs of the active schedules. If
            the run is not among them, the flow names the artifacts after the run.
        options: What to archive, and where.

    Returns:
        The result of the Bolt run. The run may be in any state.

    Raises:
        BoltError: The run cannot be read, or the storage block cannot be used.

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
        record.outcome = f"The run has not ended yet ({status.state}). This page shows what exists so far."
    archive = Archive(resolved, ArtifactWriter(flow_run_id=current_flow_run_id()), record, settings)
    await archive.run()
    return archive.complete(
        BoltRunResult.of(run_id, record.status, schedule_name=schedule_name, resources=archive.resources)
    )


aarchive_run = async_form(archive_run)
