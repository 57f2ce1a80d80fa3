"""The flow `run_pipeline`: runs Bolt schedules that depend on each other, and shows them on one page."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect.client.orchestration import get_client
from pydantic import BaseModel, Field
from typing_extensions import Unpack

from paradime_blocks import BoltPipelineFailed
from paradime_blocks.options import NonEmpty
from paradime_flows.choices import OnFailure
from paradime_flows.form_groups import flat
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.ledger import take_lease, write_callers
from paradime_flows.parameters import CredentialsParameter, LogsAndArchive, PipelineOptions, Safety
from paradime_flows.pipeline import MAX_PARALLEL, MOST_STEPS, Step, check_steps
from paradime_flows.pipelines.earlier_attempts import EarlierAttempts
from paradime_flows.pipelines.plan import StepOutcome, StepState
from paradime_flows.pipelines.runner import PipelineRun
from paradime_flows.prefect_api import async_form, bolt_flow, resolve_credentials
from paradime_flows.run_schedule import run_schedule
from paradime_flows.runner import cancelled, stop_if_replaced, stopped, this_flow_run_id
from paradime_flows.supervision import (
    StoppedByPrefect,
    cancel_in_prefect,
    clean_up_if_cancelled_before,
    clean_up_if_cancelled_meanwhile,
    keep_alive,
    unless_stopped,
)


class PipelineResult(BaseModel):
    """What a pipeline that succeeded returns.

    Attributes:
        name: The pipeline's name.
        steps: The outcome of each step, in the order of the definition.
    """

    name: str
    steps: list[StepOutcome]


@bolt_flow(
    name="run-pipeline",
    description="Runs Paradime Bolt schedules in the order of their dependencies.",
    boxes={"logs_and_archive": LogsAndArchive, "safety": Safety},
    retries=0,
    on_cancellation=[cancel_owned_runs],
    on_crashed=[cancel_owned_runs],
    on_failure=[cancel_owned_runs],
)
async def run_pipeline(
    steps: Annotated[list[Step], Field(min_length=1, max_length=MOST_STEPS)],
    credentials: CredentialsParameter = None,
    *,
    on_failure: OnFailure = "stop",
    max_parallel: Annotated[int, Field(ge=1, le=100)] = MAX_PARALLEL,
    name: NonEmpty = "pipeline",
    on_already_running: Literal["wait", "attach", "attach_if_same", "fail", "replace"] = "wait",
    **options: Unpack[PipelineOptions],
) -> PipelineResult:
    """Run schedules that depend on each other. Each step starts when the steps before it have succeeded.

    Each step is a subflow run of run-schedule. A retry of this flow run skips the steps that succeeded, and resumes
    a step that was running when the process died. A cancel of this flow run cancels all of its Bolt runs.

    Args:
        steps: The steps: each has a schedule, and the names of the steps that it comes after.
        credentials: A saved Paradime Credentials block or its name, never typed values. Empty: PARADIME_* variables.
        on_failure: What happens to the other steps when a step fails. stop: running steps are cancelled; finish:
            running steps may finish, and no new step starts; continue: only the steps that depend on the failed step
            are skipped.
        max_parallel: How many steps may run at once.
        name: The pipeline's name on its page. The pages of all flow runs with the same name form one history.
        on_already_running: What a step does when its schedule is already running, as for run-schedule.
        options: How to wait for each step, and what to archive of it.

    Returns:
        The outcome of each step; all have succeeded.

    Raises:
        BoltPipelineFailed: Not all steps succeeded.
        BoltRequestError: The steps do not fit together. No step was started.

    Example:
        ```python
        from paradime_flows.run_pipeline import run_pipeline

        run_pipeline(
            [
                {"schedule_name": "extract"},
                {"schedule_name": "transform", "after": ["extract"], "retries": 2},
                {"schedule_name": "publish", "after": ["transform"]},
            ],
            "production",
        )
        ```
    """
    options = flat(options)
    check_steps(steps)
    found = await resolve_credentials(credentials)
    this_flow_run_id()  # raises outside of a flow run, before a request is sent
    async with get_client() as client:
        await take_lease(client, this_flow_run_id())
        flow_run = await client.read_flow_run(this_flow_run_id())
        await keep_alive(client, flow_run, clean_up_if_cancelled_meanwhile)
        reason = await clean_up_if_cancelled_before(client, flow_run)
        if reason is None:
            await stop_if_replaced(client, flow_run)
        flow_run = await write_callers(client, flow_run)
        before = await EarlierAttempts.of(client, flow_run, found)
    if reason is not None:
        return cancelled(reason, PipelineResult)
    shared = {**options, "credentials": found, "on_already_running": on_already_running}
    pipeline = PipelineRun(
        flow_run,
        name,
        steps,
        shared,
        before,
        flow=run_schedule,
        on_failure=on_failure,
        max_parallel=max_parallel,
        on_interrupt=options["on_interrupt"],
    )
    try:
        await unless_stopped(pipeline.run, flow_run.id, parts=pipeline.stop)
    except StoppedByPrefect as stop:
        return await stopped(stop, flow_run.id, PipelineResult)
    if cancel := await cancel_in_prefect(flow_run.id):
        # When a flow run is being cancelled, Prefect accepts only Cancelled as its final state.
        return cancelled(f"{cancel.reason} {pipeline.headline()}", PipelineResult)
    outcomes = list(pipeline.outcomes.values())
    bad = [outcome for outcome in outcomes if outcome.state is not StepState.SUCCEEDED]
    if bad:
        failed = [f"{outcome.name}: {outcome.state}. {outcome.message}" for outcome in bad]
        raise BoltPipelineFailed(
            f"The pipeline {name!r} did not succeed: {pipeline.headline()}", steps=failed
        )
    return PipelineResult(name=name, steps=outcomes)


arun_pipeline = async_form(run_pipeline)
