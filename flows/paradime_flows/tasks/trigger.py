"""Tasks that start a Bolt run. The flow run that calls such a task owns the Bolt run."""

from __future__ import annotations

from prefect.exceptions import CancelledRun
from prefect.runtime import task_run as this_task_run
from typing_extensions import Unpack

from paradime_blocks import BoltRequestError, BoltSchedule
from paradime_blocks.options import NonEmpty, TriggerOptions
from paradime_blocks.trigger import TriggerRequest
from paradime_flows.choices import OnInterrupt, Policy
from paradime_flows.parameters import CredentialsParameter, RunId, ScheduleParameter
from paradime_flows.prefect_api import (
    async_form,
    bolt_task,
    current_flow_run_id,
    current_task_run_id,
    resolve_credentials,
    resolve_schedule,
    schedule_of_run,
)
from paradime_flows.runner import RunLifecycle, RunPolicies
from paradime_flows.supervision import StoppedByPrefect, describe_run


def _name_of_the_trigger() -> str:
    schedule = this_task_run.parameters.get("schedule_name")
    return f"trigger {getattr(schedule, 'schedule_name', None) or schedule}"


@bolt_task(name="trigger-bolt-run", task_run_name=_name_of_the_trigger)
async def trigger_bolt_run(
    schedule_name: ScheduleParameter,
    credentials: CredentialsParameter = None,
    *,
    on_interrupt: OnInterrupt = "auto",
    on_crash: Policy = "cancel",
    **options: Unpack[TriggerOptions],
) -> int:
    """Trigger a schedule. At most one Bolt run starts, and the flow run then owns this Bolt run.

    Args:
        schedule_name: The schedule's name or slug, or a `BoltSchedule` block.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.
        on_interrupt: Whether the Bolt run is cancelled or left running when the process is interrupted. auto:
            leave if Prefect runs the flow run again after a SIGTERM, or else cancel. A cancel of
            the flow run in Prefect always cancels the Bolt run.
        on_crash: Whether the Bolt run is cancelled or left running when the process crashes. Only a flow with the hook
            `cancel_owned_runs` can cancel the Bolt run then.
        options: The options of the trigger, such as the commands and the branch.

    Returns:
        The id of the Bolt run. Bolt may refuse the trigger because another Bolt run started while Bolt handled the
        trigger. This task may have started that Bolt run, because a gateway may send a request twice. So the task
        returns the id of that Bolt run, but never cancels that Bolt run.

    Raises:
        BoltAlreadyRunning: The schedule is already running.
        BoltTriggerUnknown: Bolt's answer to the trigger was lost, and the task could not find out whether a Bolt run
            started.
        prefect.exceptions.CancelledRun: The flow run was cancelled in Prefect.
        BoltError: Another error occurred. The task found no Bolt run that the trigger started.
    """
    schedule = await resolve_schedule(schedule_name, credentials)
    request = schedule.request(**options)
    return await _start(schedule, request, on_interrupt, on_crash)


async def _start(
    schedule: BoltSchedule, request: TriggerRequest, on_interrupt: OnInterrupt, on_crash: Policy
) -> int:
    """Start a Bolt run. The current flow run owns the Bolt run; outside of a flow run, nothing owns the Bolt run."""
    flow_run_id = current_flow_run_id()
    if flow_run_id is None:
        return (await schedule.atrigger(request=request)).run_id
    policies = RunPolicies(on_already_running="fail", on_interrupt=on_interrupt, on_crash=on_crash)
    key = str(current_task_run_id())
    try:
        lifecycle = await RunLifecycle.begin(schedule, flow_run_id, policies, request, key=key)
    except StoppedByPrefect as stop:
        raise CancelledRun(stop.reason) from None
    try:
        async with lifecycle.cleaning_up():
            return (await lifecycle.obtain()).run_id
    except StoppedByPrefect as stop:
        run_text = describe_run(lifecycle.record, stop.event)
        raise CancelledRun(f"{stop.reason}{run_text}") from None


@bolt_task(name="retry-bolt-run", task_run_name="retry {run_id}")
async def retry_bolt_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    everything: bool = False,
    schedule_name: NonEmpty | None = None,
    on_interrupt: OnInterrupt = "auto",
    on_crash: Policy = "cancel",
) -> int:
    """Retry a Bolt run. At most one new Bolt run starts. The flow run that calls this task owns the new Bolt run.

    The task uses `retryBoltRun` or `retryAllBoltRun`. If the backend lacks these operations, the task triggers the
    schedule with the failed command and the commands after it.

    Args:
        run_id: The id of the Bolt run to retry.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.
        everything: True to run all commands again, False to run only the failed command and the commands after it.
        schedule_name: The name of the Bolt run's schedule; None if the task should search for the schedule.
        on_interrupt: Whether the new Bolt run is cancelled or left running when the process is interrupted.
            auto: leave if Prefect runs the flow run again after a SIGTERM, or else cancel.
        on_crash: Whether the new Bolt run is cancelled or left running when the process crashes. Only a flow with the
            hook `cancel_owned_runs` can cancel the Bolt run then.

    Returns:
        The id of the new Bolt run.

    Raises:
        BoltRequestError: Bolt refused to retry this Bolt run, or the task did not find the Bolt run's schedule.
        BoltError: The same errors as for `trigger_bolt_run`.
    """
    found = await resolve_credentials(credentials)
    schedule = await resolve_schedule(await schedule_of_run(run_id, found, schedule_name), found)
    request = schedule.request(retry_of=run_id, retry_everything=everything)
    return await _start(schedule, request, on_interrupt, on_crash)


@bolt_task(name="retry-bolt-schedule", task_run_name="retry {schedule_name}")
async def retry_bolt_schedule(
    schedule_name: NonEmpty,
    credentials: CredentialsParameter = None,
    *,
    on_interrupt: OnInterrupt = "auto",
    on_crash: Policy = "cancel",
) -> int:
    """Retry a schedule's latest failed Bolt run from the failed command, as `retryBoltRunFromFailure` does.

    The task first searches for the failed Bolt run, and then retries this Bolt run by its id. So the task can find the
    new Bolt run even if Bolt's answer is lost.

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
            variables.
        on_interrupt: Whether the new Bolt run is cancelled or left running when the process is interrupted.
            auto: leave if Prefect runs the flow run again after a SIGTERM, or else cancel.
        on_crash: Whether the new Bolt run is cancelled or left running when the process crashes. Only a flow with the
            hook `cancel_owned_runs` can cancel the Bolt run then.

    Returns:
        The id of the new Bolt run.

    Raises:
        BoltRequestError: The schedule has no failed Bolt run.
        BoltError: The same errors as for `trigger_bolt_run`.
    """
    found = await resolve_credentials(credentials)
    async with found.get_client() as client:
        failed = await client.latest_failed_run(schedule_name)
    if failed is None:
        msg = "The schedule has no failed Bolt run to retry."
        raise BoltRequestError(msg, guidance="Trigger the schedule instead.", schedule_name=schedule_name)
    schedule = await resolve_schedule(schedule_name, found)
    return await _start(schedule, schedule.request(retry_of=failed), on_interrupt, on_crash)


atrigger_bolt_run = async_form(trigger_bolt_run)
aretry_bolt_run = async_form(retry_bolt_run)
aretry_bolt_schedule = async_form(retry_bolt_schedule)
