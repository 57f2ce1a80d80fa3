"""The flow `retry_run`: retries any Bolt run, waits for the new run and archives it."""

from __future__ import annotations

from typing_extensions import Unpack

from paradime_blocks import BoltRunResult
from paradime_blocks.options import NonEmpty
from paradime_flows.forms import flat
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
)
from paradime_flows.runner import RunPolicies, drive


@bolt_flow(
    name="retry-run",
    description="Retries a Paradime Bolt run from its failure, or as a whole, and waits for the new run.",
    flow_run_name="retry-{run_id}",
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
    """Retry a Bolt run in a new run: from the command that failed, or everything; wait for it and archive it.

    It is as careful as run-schedule: at most one new run, which a retry of this flow run resumes, and which
    is cancelled with this flow run. On a backend that cannot retry runs, the schedule is triggered with the
    command that failed and those after it.

    Args:
        run_id: The id of the run to retry, as in its address in Paradime.
        credentials: A Paradime Credentials block or the name of one. Empty: the environment's.
        everything: Whether to run all its commands again rather than only what failed.
        schedule_name: The run's schedule, which Bolt does not tell of a run. Empty: it is looked for among
            the newest runs of the workspace's schedules.
        reason: Who or what triggers, for Paradime's page, on a backend that cannot retry runs.
        options: How long to wait for the new run, how to retry it in its turn, what to archive.

    Returns:
        The result of the new run.

    Raises:
        BoltRequestError: The run's schedule cannot be told, or Bolt does not retry this run.
        BoltError: As `run_schedule`.

    Example:
        ```python
        from paradime_flows.retry_run import retry_run

        result = retry_run(76035, "production")
        ```
    """
    options = flat(options)
    found = await resolve_credentials(credentials)
    name = await schedule_of_run(run_id, found, schedule_name)
    schedule = await resolve_schedule(name, found, **options)
    policies = await RunPolicies.of(options)
    request = schedule.request(reason=reason, retry_of=run_id, retry_everything=everything)
    return await drive(
        schedule,
        policies,
        request=request,
        live_logs=options["live_logs"],
        one_at_a_time=options["one_at_a_time"],
    )


aretry_run = async_form(retry_run)
