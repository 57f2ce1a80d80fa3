"""The flow `run_schedule`: runs a Bolt schedule once, waits for the run and archives it."""

from __future__ import annotations

from prefect.runtime import flow_run as this_flow_run
from typing_extensions import Unpack

from paradime_blocks import BoltRunResult
from paradime_blocks.options import TriggerOptions, chosen
from paradime_flows.form_groups import flat
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.parameters import (
    Advanced,
    CredentialsParameter,
    LogsAndArchive,
    RunOptions,
    Safety,
    ScheduleParameter,
)
from paradime_flows.prefect_api import async_form, bolt_flow, resolve_schedule
from paradime_flows.runner import RunPolicies, drive, this_flow_run_id


def _name_of_the_run() -> str:
    schedule = this_flow_run.parameters.get("schedule_name")
    return (
        schedule if isinstance(schedule, str) else getattr(schedule, "schedule_name", None) or "bolt-schedule"
    )


@bolt_flow(
    name="run-schedule",
    description="Triggers a Paradime Bolt schedule, waits for the run, and archives its logs and resources.",
    flow_run_name=_name_of_the_run,
    boxes={"logs_and_archive": LogsAndArchive, "safety": Safety, "advanced": Advanced},
    # A Prefect retry executes the flow again, even after a cancel. The parameter `retries` sets the retries in Bolt.
    retries=0,
    on_cancellation=[cancel_owned_runs],
    on_crashed=[cancel_owned_runs],
    on_failure=[cancel_owned_runs],
)
async def run_schedule(
    schedule_name: ScheduleParameter,
    credentials: CredentialsParameter = None,
    **options: Unpack[RunOptions],
) -> BoltRunResult:
    """Run a Bolt schedule: trigger it, wait for the run, archive its logs and files.

    A retry of the flow run resumes the Bolt run, whatever stopped the flow run before. A cancel of the flow run
    cancels the Bolt run.

    Args:
        schedule_name: The schedule's name as Paradime shows it, or its slug, or a Bolt Schedule block.
        credentials: A saved Paradime Credentials block, or its name; never typed values. Empty: those of the
            schedule's block, or else of the environment (PARADIME_API_ENDPOINT, PARADIME_API_KEY, PARADIME_API_SECRET).
        options: What to run, how long to wait, what to archive.

    Returns:
        The result of the run.

    Raises:
        BoltRunFailed: The run ended FAILED or ERROR.
        BoltRunCanceled: Another person or program canceled the run.
        BoltRunSkipped: Bolt skipped the run.
        BoltRunTimedOut: The time limit was reached.
        BoltError: Another error; its class says which.

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
    options = flat(options)
    schedule = await resolve_schedule(schedule_name, credentials, **options)
    this_flow_run_id()  # raises outside of a flow run, before a request is sent
    policies = await RunPolicies.of(options)
    request = schedule.request(**chosen(TriggerOptions, options))
    return await drive(
        schedule,
        policies,
        request=request,
        live_logs=options["live_logs"],
        one_at_a_time=options["one_at_a_time"],
    )


arun_schedule = async_form(run_schedule)
