"""The flow `report_run`: tells Prefect about the Bolt run that a webhook names."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from paradime_blocks import BoltRequestError, BoltUnavailable
from paradime_blocks.options import NonEmpty
from paradime_flows.parameters import CommandId, CredentialsParameter
from paradime_flows.prefect_api import async_form, bolt_flow, resolve_credentials, run_logger, times
from paradime_flows.watching import ArchivePlan, Reported, WatchedRun, report_commands


@bolt_flow(
    name="report-run",
    description="Sends the events of the Bolt run that a webhook names, and can archive the run.",
)
async def report_run(
    command_ids: Annotated[list[CommandId], Field(min_length=1, max_length=50)],
    credentials: CredentialsParameter = None,
    *,
    archive: bool = False,
    assets: bool = False,
    archive_deployment: NonEmpty = "archive-run/bolt",
) -> list[WatchedRun]:
    """Send the events of the Bolt run that some commands belong to: that it has started, and how it has ended.

    If a flow run is suspended until the Bolt run ends, the flow run is resumed.

    A webhook of Bolt names commands, and the flow asks Bolt for all else. In Prefect Cloud, a webhook and an automation
    start this flow. With a server of your own, the receiver of `paradime_flows.webhooks` does the same work without a
    flow run. If Bolt is unreachable, the flow waits for the end of the outage.

    Args:
        command_ids: The ids of some commands of one Bolt run.
        credentials: A saved Paradime Credentials block, or the name of the block. If empty, the flow uses the
            environment variables PARADIME_*.
        archive: Whether the flow archives the Bolt run if it has ended and if no flow run has waited for it. The
            archive is a flow run of its own.
        assets: Whether the archive reports the built models, seeds and snapshots to Prefect as assets.
        archive_deployment: The deployment of the flow archive-run that archives the Bolt run.

    Returns:
        The Bolt run, in a list. The list is empty if the flow run that waits for the Bolt run will send the events.

    Raises:
        BoltError: Bolt does not know the commands, refused the request, or sent no usable answer. Or the
            deployment that archives is missing: then the events were sent.

    Example:
        ```python
        from paradime_flows.report_run import report_run
        from paradime_flows.run_schedule import run_schedule

        result = run_schedule("daily")
        (run,) = report_run([result.commands[0].id])
        print(run.schedule_name, run.state)
        ```
    """
    found = await resolve_credentials(credentials)
    archiving = ArchivePlan.of(
        credentials, found, archive=archive, assets=assets, deployment=archive_deployment
    )
    reported = Reported()
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(BoltUnavailable),
        wait=wait_fixed(times().webhook_retry_seconds),
        stop=stop_after_delay(times().webhook_outage_seconds),
        reraise=True,
    ):
        with attempt:
            reported = await report_commands([tuple(command_ids)], found, archiving)
    if reported.unknown:
        msg = f"Bolt knows none of the commands {', '.join(str(id_) for id_ in command_ids)}."
        raise BoltRequestError(msg, guidance="Check that the webhook belongs to the credentials' workspace.")
    for one in reported.watched:
        run_logger().info("Bolt run %d of %s: %s.", one.run_id, one.schedule_name, one.state)
    for error in reported.unarchived.values():
        raise error
    return reported.watched


areport_run = async_form(report_run)
