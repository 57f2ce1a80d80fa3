"""The flow `trigger_only`: triggers a Bolt schedule and does not wait for the run."""

from __future__ import annotations

from prefect.states import Completed
from pydantic import BaseModel
from typing_extensions import Unpack

from paradime_blocks import BoltError
from paradime_blocks.models import run_url
from paradime_blocks.options import TimeoutSeconds, TriggerOptions
from paradime_flows.choices import OnAlreadyRunning
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.parameters import (
    CredentialsParameter,
    ScheduleParameter,
)
from paradime_flows.prefect_api import async_form, bolt_flow, resolve_schedule, run_logger
from paradime_flows.runner import (
    RunLifecycle,
    RunPolicies,
    Skipped,
    as_result,
    cancelled,
    stopped,
    this_flow_run_id,
)
from paradime_flows.supervision import StoppedByPrefect


class TriggeredRun(BaseModel):
    """A Bolt run that was triggered. No flow run waits for it.

    Attributes:
        run_id: The run's id.
        schedule_name: The name or slug of the run's schedule.
        url: The run's page in Paradime.
        started: Whether this flow run started the Bolt run. False if the run was already running.
    """

    run_id: int
    schedule_name: str
    url: str
    started: bool = True


@bolt_flow(
    name="trigger-only",
    description="Triggers a Paradime Bolt schedule and does not wait for the run.",
    retries=0,
    on_cancellation=[cancel_owned_runs],
    on_crashed=[cancel_owned_runs],
    on_failure=[cancel_owned_runs],
)
async def trigger_only(
    schedule_name: ScheduleParameter,
    credentials: CredentialsParameter = None,
    *,
    on_already_running: OnAlreadyRunning = "fail",
    timeout_seconds: TimeoutSeconds | None = None,
    **options: Unpack[TriggerOptions],
) -> TriggeredRun:
    """Trigger a Bolt schedule once, and do not wait for the run.

    After the Bolt run has started, a cancel of this flow run does not cancel it, and sweep-orphans does not cancel
    it. The trigger is as safe as in run-schedule. If the answer is lost, the flow searches for the Bolt run. A retry
    of this flow run returns the Bolt run that was started.

    Args:
        schedule_name: The schedule's name as Paradime shows it, or its slug, or a Bolt Schedule block.
        credentials: A saved Paradime Credentials block, or its name; never typed values. Empty: those of the
            schedule's block, or else of the environment.
        on_already_running: What to do when the schedule is already running. wait: wait until the other run ends, then
            trigger; attach: return the other run; fail; skip; replace: cancel the other run, then trigger.
        timeout_seconds: How long to wait until the other run has ended, in seconds. Empty: 24 hours.
        options: What to run.

    Returns:
        The run.

    Raises:
        BoltAlreadyRunning: The schedule is already running.
        BoltTriggerUnknown: The answer was lost, and a search could not find out whether a run started.
        BoltError: Another error. No run that the trigger started was found.

    Example:
        ```python
        from paradime_flows.trigger_only import trigger_only

        print(trigger_only("daily", "production").url)
        ```
    """
    schedule = await resolve_schedule(schedule_name, credentials, timeout_seconds=timeout_seconds)
    this_flow_run_id()  # raises outside of a flow run, before a request is sent
    request = schedule.request(**options)
    policies = RunPolicies(on_already_running=on_already_running, leave=True)
    try:
        lifecycle = await RunLifecycle.begin(schedule, this_flow_run_id(), policies, request=request)
    except StoppedByPrefect as stop:
        return cancelled(stop.reason, TriggeredRun)
    try:
        async with lifecycle.cleaning_up():
            run = await lifecycle.obtain()
    except Skipped as skipped:
        await lifecycle.summarize(str(skipped))
        there = _triggered(skipped.run.run_id, schedule.schedule_name, started=False)
        return as_result(Completed(name="Skipped", message=str(skipped), data=there), TriggeredRun)
    except StoppedByPrefect as stop:
        return await stopped(stop, this_flow_run_id(), TriggeredRun)
    except BoltError as error:
        await lifecycle.summarize(error.message)
        raise
    await lifecycle.summarize("The run was started. This flow does not wait for it.")
    run_logger().info("Bolt run %s is running; this flow does not wait for it: %s", run.run_id, run.url)
    return _triggered(
        run.run_id, lifecycle.ownership.schedule, started=lifecycle.ownership.intent is not None
    )


def _triggered(run_id: int, schedule: str, *, started: bool) -> TriggeredRun:
    return TriggeredRun(run_id=run_id, schedule_name=schedule, url=run_url(run_id), started=started)


atrigger_only = async_form(trigger_only)
