"""The flow `run_schedule`: one Bolt schedule, run once, waited for, archived."""

from __future__ import annotations

from prefect.runtime import flow_run as this_flow_run
from prefect.states import Cancelled, Completed

from paradime_blocks.errors import BoltRunFailed
from paradime_blocks.models import BoltRunResult, BoltRunState
from paradime_blocks.schedule import BoltSchedule
from paradime_flows.calling import async_form, bolt_flow
from paradime_flows.context import current_flow_run_id, resolve_schedule
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.lifecycle import OnAlreadyRunning, RunLifecycle, RunPolicies, Skipped
from paradime_flows.ownership import Policy
from paradime_flows.parameters import (
    Commands,
    CredentialsParameter,
    DelaySeconds,
    GraceSeconds,
    NonEmpty,
    OutageSeconds,
    PollIntervalSeconds,
    Retries,
    ScheduleParameter,
    TimeoutSeconds,
)
from paradime_flows.watch import StoppedByPrefect


def _name_of_the_run() -> str:
    schedule = this_flow_run.parameters.get("schedule_name")
    return schedule if isinstance(schedule, str) else getattr(schedule, "schedule_name", None) or "bolt-schedule"


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
async def run_schedule(  # noqa: PLR0913 - the parameters of the form in the Prefect UI
    schedule_name: ScheduleParameter,
    credentials: CredentialsParameter = None,
    *,
    commands: Commands | None = None,
    branch: NonEmpty | None = None,
    timeout_seconds: TimeoutSeconds | None = None,
    poll_interval_seconds: PollIntervalSeconds | None = None,
    retries: Retries = 0,
    retry_delay_seconds: DelaySeconds = 30.0,
    on_already_running: OnAlreadyRunning = "wait",
    max_outage_seconds: OutageSeconds | None = None,
    cancel_grace_seconds: GraceSeconds | None = None,
    on_timeout: Policy = "cancel",
    on_interrupt: Policy = "cancel",
    on_crash: Policy = "cancel",
) -> BoltRunResult:
    """Run a Bolt schedule: trigger it, wait for the run, archive what it leaves behind.

    Whatever happens to the flow run, the Bolt run is found again: a retry of the flow run takes it up. Cancelling
    the flow run cancels it.

    Args:
        schedule_name: The schedule's name as Paradime shows it, or a Bolt Schedule block.
        credentials: A Paradime Credentials block or the name of one. Empty: those of the schedule's block, or
            else of the environment (PARADIME_API_ENDPOINT, PARADIME_API_KEY, PARADIME_API_SECRET).
        commands: Commands that take the place of the schedule's own, for this run only.
        branch: A git branch or commit that takes the place of the schedule's own, for this run only.
        timeout_seconds: How long the run may take, in seconds from its trigger. Empty: the schedule block's
            limit, or 24 hours.
        poll_interval_seconds: The longest time between two looks at the run, in seconds. Young runs are looked at
            more often. Empty: the schedule block's, or 15.
        retries: How often a run that failed is retried from the command that failed.
        retry_delay_seconds: The wait before each retry, in seconds.
        on_already_running: What to do when the schedule runs already. wait: until it ends, then trigger; attach:
            wait for that run instead; fail; skip; replace: cancel it, then trigger.
        max_outage_seconds: How long Bolt may be out of reach before waiting is given up, in seconds. The run is
            not cancelled then. Empty: the schedule block's, or 600.
        cancel_grace_seconds: How long a cancelled run may take until it has ended, in seconds. Empty: the
            schedule block's, or 60.
        on_timeout: Whether the time limit cancels the run in Bolt or leaves it going.
        on_interrupt: The same for an interrupt of the process (SIGTERM, Ctrl-C) and Prefect's own time limits.
            A cancel in Prefect always cancels.
        on_crash: The same for a crash of the process. Choose leave where somebody retries crashed flow runs:
            the retry then takes up the run.

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
        commands=commands,
        branch=branch,
        timeout_seconds=timeout_seconds,
        poll_interval_seconds=poll_interval_seconds,
        max_outage_seconds=max_outage_seconds,
        cancel_grace_seconds=cancel_grace_seconds,
    )
    policies = RunPolicies(
        retries=retries,
        retry_delay_seconds=retry_delay_seconds,
        on_already_running=on_already_running,
        on_timeout=on_timeout,
        on_interrupt=on_interrupt,
        on_crash=on_crash,
    )
    flow_run_id = current_flow_run_id()
    assert flow_run_id is not None  # noqa: S101 - this is a flow
    try:
        lifecycle = await RunLifecycle.begin(schedule, flow_run_id, policies)
    except StoppedByPrefect as stop:
        return Cancelled(message=stop.reason)  # type: ignore[return-value]
    try:
        async with lifecycle.settling():
            run = await lifecycle.obtain()
            while True:
                await lifecycle.wait(run)
                try:
                    result = await lifecycle.result(run)
                except BoltRunFailed as failure:
                    retried = await lifecycle.retry(run, failure)
                    if retried is None:
                        raise
                    run = retried
                else:
                    break
    except Skipped as skipped:
        result = BoltRunResult(
            run_id=skipped.run.run_id,
            schedule_name=lifecycle.ownership.schedule,
            state=BoltRunState.SKIPPED,
            url=skipped.run.url,
        )
        return Completed(name="Skipped", message=str(skipped), data=result)  # type: ignore[return-value]
    except StoppedByPrefect as stop:
        return Cancelled(message=stop.reason)  # type: ignore[return-value]
    except Exception as error:
        await lifecycle.finish(error)
        raise
    await lifecycle.finish(None)
    return result


arun_schedule = async_form(run_schedule)
