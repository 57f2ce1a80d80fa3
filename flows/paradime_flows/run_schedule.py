"""The flow `run_schedule`: triggers a Bolt schedule once, waits for the Bolt run and archives the Bolt run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from paradime_flows.prefect_api import async_form, bolt_flow, resolve_schedule, unless_named


def _schedule_in(parameters: Mapping[str, Any]) -> str:
    schedule = parameters.get("schedule_name")
    return (
        schedule if isinstance(schedule, str) else getattr(schedule, "schedule_name", None) or "bolt-schedule"
    )


@bolt_flow(
    name="run-schedule",
    description="Triggers a Paradime Bolt schedule, waits for the run, and archives its logs and resources.",
    flow_run_name=unless_named(_schedule_in),
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
    """Trigger a Bolt schedule, wait for the Bolt run, and archive its logs and files.

    If Prefect retries the flow run, the retry resumes the Bolt run, no matter why the earlier attempt stopped. A
    cancel of the flow run cancels the Bolt run.

    Args:
        schedule_name: The schedule's name as Paradime shows it, or its slug, or a Bolt Schedule block.
        credentials: A saved Paradime Credentials block, or the name of the block. Do not type in a key or a secret. If
            empty, the flow uses the credentials of the Bolt Schedule block. If there is no such block, the flow uses
            the environment variables PARADIME_API_ENDPOINT, PARADIME_API_KEY and PARADIME_API_SECRET.
        options: What the Bolt run executes, how long the flow waits, and what the flow archives.

    Returns:
        The result of the Bolt run.

    Raises:
        BoltRunFailed: The Bolt run ended in the state FAILED or ERROR.
        BoltRunCanceled: Another person or program cancelled the Bolt run.
        BoltRunSkipped: The Bolt run ended in the state SKIPPED.
        BoltRunTimedOut: The Bolt run did not end within `timeout_seconds`.
        BoltError: Another error occurred. The subclass of `BoltError` says which error.

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
    # A program that only serves or deploys the flow does not need the code that runs the flow.
    from paradime_flows.runner import drive, this_flow_run_id  # noqa: PLC0415

    options = flat(options)
    schedule = await resolve_schedule(schedule_name, credentials, **options)
    this_flow_run_id()  # raises an error outside of a flow run, before a request is sent
    request = schedule.request(**chosen(TriggerOptions, options))
    return await drive(schedule, request, options, options["wait"])


arun_schedule = async_form(run_schedule)
