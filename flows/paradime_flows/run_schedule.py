"""The flow `run_schedule`: one Bolt schedule, run once, waited for, archived."""

from __future__ import annotations

from prefect.runtime import flow_run as this_flow_run

from paradime_blocks.models import BoltRunResult
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.ledger.entry import Policy
from paradime_flows.live.log_lines import LiveLogsMode
from paradime_flows.parameters import (
    CommandConfigs,
    Commands,
    CredentialsParameter,
    DelaySeconds,
    GraceSeconds,
    LogBytes,
    NonEmpty,
    NonRetryableErrors,
    OutageSeconds,
    PollIntervalSeconds,
    PullRequest,
    Retries,
    ScheduleParameter,
    StorageParameter,
    StoragePatterns,
    TimeoutSeconds,
)
from paradime_flows.prefect_api.context import resolve_schedule
from paradime_flows.prefect_api.dispatch import async_form, bolt_flow
from paradime_flows.reporting.archive_settings import LOG_LIMIT_BYTES, ArchiveSettings
from paradime_flows.retry_policy import DEFAULT_NON_RETRYABLE_ERRORS
from paradime_flows.runner.policies import OnAlreadyRunning, RunPolicies
from paradime_flows.runner.run import drive, trigger_request


def _name_of_the_run() -> str:
    schedule = this_flow_run.parameters.get("schedule_name") or this_flow_run.parameters.get("slug")
    return (
        schedule if isinstance(schedule, str) else getattr(schedule, "schedule_name", None) or "bolt-schedule"
    )


@bolt_flow(
    name="run-schedule",
    description="Triggers a Paradime Bolt schedule, waits for the run, and archives its logs and resources.",
    flow_run_name=_name_of_the_run,
    # A Prefect retry begins the body anew, even after a cancel; what is to be retried in Bolt says `retries`.
    retries=0,
    on_cancellation=[cancel_owned_runs],
    on_crashed=[cancel_owned_runs],
    on_failure=[cancel_owned_runs],
)
async def run_schedule(
    schedule_name: ScheduleParameter | None = None,
    credentials: CredentialsParameter = None,
    *,
    slug: NonEmpty | None = None,
    commands: Commands | None = None,
    command_configs: CommandConfigs | None = None,
    continue_on_error: bool | None = None,
    branch: NonEmpty | None = None,
    pr_number: PullRequest | None = None,
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
    """Run a Bolt schedule: trigger it, wait for the run, archive what it leaves behind.

    Whatever happens to the flow run, the Bolt run is found again: a retry of the flow run takes it up. Cancelling
    the flow run cancels it.

    Args:
        schedule_name: The schedule's name as Paradime shows it, or a Bolt Schedule block. Either this or the slug
            is needed.
        credentials: A Paradime Credentials block or the name of one. Empty: those of the schedule's block, or
            else of the environment (PARADIME_API_ENDPOINT, PARADIME_API_KEY, PARADIME_API_SECRET).
        slug: The schedule's slug, in place of its name; only newer Paradime workspaces know it.
        commands: Commands that take the place of the schedule's own, for this run only.
        command_configs: Commands in place of the schedule's own, each with whether the run goes on when it fails.
        continue_on_error: Whether the run goes on after a command that failed. Empty: as the schedule says.
        branch: A git branch or commit that takes the place of the schedule's own, for this run only.
        pr_number: The number of the pull request that the run belongs to.
        reason: Who or what triggers the run, for Paradime's page. Empty: the name of the flow run in Prefect.
        timeout_seconds: How long the run may take, in seconds from its trigger. Empty: the schedule block's
            limit, or 24 hours.
        poll_interval_seconds: The longest time between two looks at the run, in seconds. Young runs are looked at
            more often. Empty: the schedule block's, or 15.
        retries: How often a run that failed is retried from the command that failed.
        retry_delay_seconds: The wait before each retry, in seconds.
        non_retryable_errors: Regular expressions. A failure whose log or dbt error fits one is not retried.
            Empty: those of failures that stay until a person changes something, such as bad credentials and
            compilation errors. An empty list: every failure is retried.
        on_already_running: What to do when the schedule runs already. wait: until it ends, then trigger; attach:
            wait for that run instead; fail; skip; replace: cancel it, then trigger.
        max_outage_seconds: How long Bolt may be out of reach before waiting is given up, in seconds. The run is
            not cancelled then. Empty: the schedule block's, or 600.
        cancel_grace_seconds: How long a cancelled run may take until it has ended, in seconds. Empty: the
            schedule block's, or 60.
        on_timeout: Whether the time limit cancels the run in Bolt or leaves it going.
        on_interrupt: Whether an interrupt of the process (SIGTERM, Ctrl-C) or Prefect's own time limit cancels the
            run in Bolt or leaves it going. A cancel in Prefect always cancels.
        on_crash: Whether a crash of the process cancels the run in Bolt or leaves it going. Choose leave where
            somebody retries crashed flow runs: the retry then takes up the run.
        one_at_a_time: Whether to hold a concurrency slot of the schedule in Prefect, so that no two flow runs
            drive it at once: the next one waits for as long as on_already_running and timeout_seconds let it.
        live_logs: How much of each command's output is logged here while it runs. all; head_and_tail: its first
            and last 100 lines; off: none, and then the progress within a command is not shown either.
        log_limit_bytes: How much of a command's log an artifact holds, in bytes. Of a longer one: head and tail.
        storage: The file system block to keep resources and long logs in, such as local-file-system/archive.
            Empty: nothing is kept but in artifacts.
        storage_patterns: Which resources to keep, as patterns of their path or name. Empty: manifest, run results and
            sources.
        assets: Whether to tell Prefect of dbt's models, seeds and snapshots as assets.

    Returns:
        The result of the run.

    Raises:
        BoltRunFailed: The run ended FAILED or ERROR.
        BoltRunCanceled: Somebody else canceled the run.
        BoltRunSkipped: Bolt skipped the run.
        BoltRunTimedOut: The time limit was reached.
        BoltError: Any other trouble, as the class says.

    Example:
        ```python
        from paradime_blocks import ParadimeCredentials
        from paradime_blocks.testing import BoltSimulator
        from paradime_flows.run_schedule import run_schedule

        with BoltSimulator(speed=100) as simulator:
            simulator.add_schedule("daily", commands=["dbt run"])
            credentials = ParadimeCredentials(
                api_endpoint=simulator.api_endpoint,
                api_key=simulator.api_key,
                api_secret=simulator.api_secret,
            )
            result = run_schedule("daily", credentials)
            print(result.state, result.url)
        ```
    """
    schedule = await resolve_schedule(
        schedule_name,
        credentials,
        slug=slug,
        commands=commands,
        command_configs=command_configs,
        branch=branch,
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
    request = trigger_request(
        schedule,
        command_configs=command_configs,
        continue_on_error=continue_on_error,
        pr_number=pr_number,
        reason=reason,
    )
    return await drive(schedule, policies, request=request, live_logs=live_logs, one_at_a_time=one_at_a_time)


arun_schedule = async_form(run_schedule)
