"""The flow `retry_run`: retries any Bolt run, waits for the new run and archives it."""

from __future__ import annotations

from paradime_blocks.models import BoltRunResult
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.ledger.entry import Policy
from paradime_flows.live.log_lines import LiveLogsMode
from paradime_flows.parameters import (
    CredentialsParameter,
    DelaySeconds,
    GraceSeconds,
    LogBytes,
    NonEmpty,
    NonRetryableErrors,
    OutageSeconds,
    PollIntervalSeconds,
    Retries,
    RunId,
    StorageParameter,
    StoragePatterns,
    TimeoutSeconds,
)
from paradime_flows.prefect_api.context import resolve_credentials, resolve_schedule
from paradime_flows.prefect_api.dispatch import async_form, bolt_flow
from paradime_flows.reporting.archive_settings import LOG_LIMIT_BYTES, ArchiveSettings
from paradime_flows.retry_policy import DEFAULT_NON_RETRYABLE_ERRORS
from paradime_flows.runner.policies import OnAlreadyRunning, RunPolicies
from paradime_flows.runner.run import drive, schedule_of_run, trigger_request


@bolt_flow(
    name="retry-run",
    description="Retries a Paradime Bolt run from its failure, or as a whole, and waits for the new run.",
    flow_run_name="retry-{run_id}",
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
    timeout_seconds: TimeoutSeconds | None = None,
    poll_interval_seconds: PollIntervalSeconds | None = None,
    retries: Retries = 0,
    retry_delay_seconds: DelaySeconds = 30.0,
    non_retryable_errors: NonRetryableErrors | None = None,
    on_already_running: OnAlreadyRunning = "wait",
    max_outage_seconds: OutageSeconds | None = None,
    cancel_grace_seconds: GraceSeconds | None = None,
    on_timeout: Policy = "cancel",
    on_interrupt: Policy = "cancel",
    on_crash: Policy = "cancel",
    one_at_a_time: bool = True,
    live_logs: LiveLogsMode = "all",
    log_limit_bytes: LogBytes = LOG_LIMIT_BYTES,
    storage: StorageParameter = None,
    storage_patterns: StoragePatterns | None = None,
    assets: bool = False,
) -> BoltRunResult:
    """Retry a Bolt run in a new run: from the command that failed, or everything; wait for it and archive it.

    It is as careful as run-schedule: at most one new run, which a retry of this flow run takes up, and which
    is cancelled with this flow run. On a backend that cannot retry runs, the schedule is triggered with the
    command that failed and those after it.

    Args:
        run_id: The id of the run to retry, as in its address in Paradime.
        credentials: A Paradime Credentials block or the name of one. Empty: the environment's.
        everything: Whether to run all its commands again rather than only what failed.
        schedule_name: The run's schedule, which Bolt does not tell of a run. Empty: it is looked for among
            the newest runs of the workspace's schedules.
        reason: Who or what triggers, for Paradime's page, on a backend that cannot retry runs.
        timeout_seconds: How long the new run may take, in seconds from its start. Empty: 24 hours.
        poll_interval_seconds: The longest time between two looks at the run, in seconds. Empty: 15.
        retries: How often the new run is retried in its turn when it fails.
        retry_delay_seconds: The wait before each of those retries, in seconds.
        non_retryable_errors: As for run-schedule.
        on_already_running: What to do when the schedule runs already, as for run-schedule.
        max_outage_seconds: How long Bolt may be out of reach before waiting is given up. Empty: 600.
        cancel_grace_seconds: How long a cancelled run may take until it has ended. Empty: 60.
        on_timeout: Whether the time limit cancels the run in Bolt or leaves it going.
        on_interrupt: Whether an interrupt of the process or Prefect's own time limit cancels the new run in Bolt.
        on_crash: Whether a crash of the process cancels the new run in Bolt.
        one_at_a_time: Whether to hold a concurrency slot of the schedule in Prefect.
        live_logs: How much of each command's output is logged here while it runs.
        log_limit_bytes: How much of a command's log an artifact holds, in bytes.
        storage: The file system block to keep resources and long logs in. Empty: nothing is kept.
        storage_patterns: Which resources to keep, as patterns of their path or name. Empty: dbt's results and manifest.
        assets: Whether to tell Prefect of dbt's models, seeds and snapshots as assets.

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
    found = await resolve_credentials(credentials)
    schedule = await resolve_schedule(
        await schedule_of_run(run_id, found, schedule_name),
        found,
        timeout_seconds=timeout_seconds,
        poll_interval_seconds=poll_interval_seconds,
        max_outage_seconds=max_outage_seconds,
        cancel_grace_seconds=cancel_grace_seconds,
    )
    policies = RunPolicies(
        retries=retries,
        retry_delay_seconds=retry_delay_seconds,
        non_retryable_errors=DEFAULT_NON_RETRYABLE_ERRORS
        if non_retryable_errors is None
        else tuple(non_retryable_errors),
        on_already_running=on_already_running,
        on_timeout=on_timeout,
        on_interrupt=on_interrupt,
        on_crash=on_crash,
        archive=await ArchiveSettings.resolve(
            log_limit_bytes=log_limit_bytes, storage=storage, storage_patterns=storage_patterns, assets=assets
        ),
    )
    request = trigger_request(schedule, reason=reason, retry_of=run_id, retry_everything=everything)
    return await drive(schedule, policies, request=request, live_logs=live_logs, one_at_a_time=one_at_a_time)


aretry_run = async_form(retry_run)
