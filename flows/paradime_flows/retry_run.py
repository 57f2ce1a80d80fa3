"""The flow `retry_run`: retries any Bolt run, waits for the new Bolt run and archives the new Bolt run."""

from __future__ import annotations

from typing_extensions import Unpack

from paradime_blocks import BoltRunResult
from paradime_blocks.options import NonEmpty
from paradime_flows.form_groups import flat
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.parameters import (
    AdvancedRetry,
    CredentialsParameter,
    LogsAndArchive,
    RetriedRunOptions,
    RunId,
    Safety,
)
from paradime_flows.prefect_api import (
    async_form,
    bolt_flow,
    resolve_credentials,
    resolve_schedule,
    schedule_of_run,
    unless_named,
)
from paradime_flows.runner import drive, this_flow_run_id


@bolt_flow(
    name="retry-run",
    description="Retries a Paradime Bolt run from the failed command, or as a whole, and waits for the new run.",
    flow_run_name=unless_named(lambda given: f"retry-{given['run_id']}"),
    boxes={"logs_and_archive": LogsAndArchive, "safety": Safety, "advanced": AdvancedRetry},
    retries=0,
    on_cancellation=[cancel_owned_runs],
    on_crashed=[cancel_owned_runs],
    on_failure=[cancel_owned_runs],
)
async def retry_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    everything: bool = False,
    schedule_name: NonEmpty | None = None,
    reason: NonEmpty | None = None,
    **options: Unpack[RetriedRunOptions],
) -> BoltRunResult:
    """Retry a Bolt run as a whole or from the failed command. Wait for the new Bolt run and archive it.

    As in the flow run-schedule, at most one new Bolt run starts. If Prefect retries this flow run, the flow resumes
    the new Bolt run. A cancel of this flow run cancels the new Bolt run. If the backend cannot retry Bolt runs, the
    flow triggers the schedule with the failed command and the commands after it.

    Args:
        run_id: The id of the Bolt run to retry: only the number, such as 76002. The URL of the run's page in Paradime
            contains it.
        credentials: A saved Paradime Credentials block, or the name of the block. Do not type in a key or a secret. If
            empty, the flow uses the environment variables PARADIME_*.
        everything: True to run all commands again, False to run only the failed command and the commands after it.
        schedule_name: The name of the Bolt run's schedule. Bolt does not return the schedule of a Bolt run. If empty,
            the flow searches for the Bolt run among the newest runs of the workspace's schedules.
        reason: Who or what triggers the new Bolt run. Usually, nobody sees this text, because a retry in Bolt has no
            field for it. If the backend cannot retry Bolt runs, the flow triggers the schedule instead, and Paradime
            shows this text on the new run's page.
        options: How long the flow waits for the new Bolt run, how the flow retries the new Bolt run if it fails, and
            what the flow archives.

    Returns:
        The result of the new Bolt run.

    Raises:
        BoltRequestError: The flow did not find the schedule of the Bolt run, or Bolt refused to retry this Bolt run.
        BoltError: The same errors as for `run_schedule`.

    Example:
        ```python
        from paradime_flows.retry_run import retry_run

        result = retry_run(76035, "production")
        ```
    """
    options = flat(options)
    found = await resolve_credentials(credentials)
    this_flow_run_id()  # raises an error outside of a flow run, before a request is sent
    name = await schedule_of_run(run_id, found, schedule_name)
    schedule = await resolve_schedule(name, found, **options)
    request = schedule.request(reason=reason, retry_of=run_id, retry_everything=everything)
    return await drive(schedule, request, options)


aretry_run = async_form(retry_run)
