"""The flow `trigger_only`: triggers a Bolt schedule and does not wait for the Bolt run."""

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
    obtain,
    stopped,
    this_flow_run_id,
)
from paradime_flows.supervision import StoppedByPrefect, archive_of


class TriggeredRun(BaseModel):
    """A Bolt run that was triggered. No flow run waits for it.

    Attributes:
        run_id: The id of the Bolt run.
        schedule_name: The name or slug of the Bolt run's schedule.
        url: The page of the Bolt run in Paradime.
        started: Whether this flow run started the Bolt run. False if the Bolt run was already running.
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
    """Trigger a Bolt schedule once, and do not wait for the Bolt run.

    After the Bolt run has started, a cancel of this flow run does not cancel the Bolt run. The flow sweep-orphans does
    not cancel the Bolt run either. As in run-schedule, at most one Bolt run starts. If Bolt's answer to the trigger is
    lost, the flow searches for the Bolt run. If Prefect retries this flow run, the retry returns the Bolt run that was
    already started.

    Args:
        schedule_name: The schedule's name as Paradime shows it, or its slug, or a Bolt Schedule block.
        credentials: A saved Paradime Credentials block, or the name of the block. Do not type in a key or a secret. If
            empty, the flow uses the credentials of the Bolt Schedule block. If there is no such block, the flow uses
            the environment variables PARADIME_*.
        on_already_running: What the flow does when the schedule is already running. wait: wait until the other Bolt
            run ends, then trigger; attach: return the other Bolt run; attach_if_same: return the other Bolt run, but
            fail if it has other commands or another branch; fail: raise an error; skip: trigger nothing; replace:
            cancel the other Bolt run, then trigger.
        timeout_seconds: How long the flow waits until the other Bolt run has ended, in seconds. If empty, the flow
            waits for at most 24 hours.
        options: The options of the trigger, such as the commands and the branch.

    Returns:
        The Bolt run that the flow triggered, or that was already running.

    Raises:
        BoltAlreadyRunning: The schedule is already running, and the flow did not trigger it.
        BoltTriggerUnknown: Bolt's answer to the trigger was lost, and the flow could not find out whether a Bolt run
            started.
        BoltError: Another error occurred. The flow found no Bolt run that the trigger started.

    Example:
        ```python
        from paradime_flows.trigger_only import trigger_only

        print(trigger_only("daily", "production").url)
        ```
    """
    schedule = await resolve_schedule(schedule_name, credentials, timeout_seconds=timeout_seconds)
    this_flow_run_id()  # raises an error outside of a flow run, before a request is sent
    request = schedule.request(**options)
    policies = RunPolicies(on_already_running=on_already_running, leave=True)
    try:
        lifecycle = await RunLifecycle.begin(schedule, this_flow_run_id(), policies, request)
    except StoppedByPrefect as stop:
        return stopped(stop, TriggeredRun)
    try:
        async with lifecycle.cleaning_up():
            run = await obtain(lifecycle)
    except Skipped as skipped:
        await archive_of(lifecycle.record, schedule.credentials, str(skipped)).summary()
        there = _triggered(skipped.run.run_id, schedule.schedule_name, started=False)
        return as_result(Completed(name="Skipped", message=str(skipped), data=there), TriggeredRun)
    except StoppedByPrefect as stop:
        return stopped(stop, TriggeredRun)
    except BoltError as error:
        await archive_of(lifecycle.record, schedule.credentials, error.message).summary()
        raise
    outcome = "The Bolt run was started. This flow does not wait for the Bolt run."
    await archive_of(lifecycle.record, schedule.credentials, outcome).summary()
    run_logger().info(
        "Bolt run %s is running; this flow does not wait for the Bolt run: %s", run.run_id, run.url
    )
    return _triggered(run.run_id, lifecycle.record.schedule, started=lifecycle.record.intent is not None)


def _triggered(run_id: int, schedule: str, *, started: bool) -> TriggeredRun:
    return TriggeredRun(run_id=run_id, schedule_name=schedule, url=run_url(run_id), started=started)


atrigger_only = async_form(trigger_only)
