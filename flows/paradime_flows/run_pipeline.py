"""The flow `run_pipeline`: runs Bolt schedules that depend on each other, and shows all steps on one page."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect.states import Cancelled, Failed
from pydantic import BaseModel, Field
from typing_extensions import Unpack

from paradime_blocks import BoltPipelineFailed
from paradime_blocks.options import NonEmpty
from paradime_flows.choices import OnFailure
from paradime_flows.form_groups import flat
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.parameters import CredentialsParameter, LogsAndArchive, PipelineOptions, StepSafety
from paradime_flows.pipeline import MAX_PARALLEL, MOST_STEPS, Step, check_steps
from paradime_flows.pipelines.earlier_attempts import EarlierAttempts
from paradime_flows.pipelines.plan import StepOutcome, StepState
from paradime_flows.pipelines.report import DEFAULT_NAME, headline, why_not
from paradime_flows.pipelines.runner import PipelineRun
from paradime_flows.prefect_api import async_form, bolt_flow, prefect_client, resolve_credentials
from paradime_flows.run_schedule import run_schedule
from paradime_flows.runner import as_result, begin_execution, stopped, this_flow_run_id
from paradime_flows.supervision import Event, StoppedByPrefect, reason_to_stop_if_known, unless_stopped


class PipelineResult(BaseModel):
    """The result of a pipeline that succeeded.

    Attributes:
        name: The pipeline's name.
        steps: The outcome of each step, in the order of the parameter `steps`.
    """

    name: str
    steps: list[StepOutcome]


@bolt_flow(
    name="run-pipeline",
    description="Runs Paradime Bolt schedules in the order of their dependencies.",
    boxes={"logs_and_archive": LogsAndArchive, "safety": StepSafety},
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
    name: NonEmpty = DEFAULT_NAME,
    on_already_running: Literal["wait", "attach", "attach_if_same", "fail", "replace"] = "wait",
    **options: Unpack[PipelineOptions],
) -> PipelineResult:
    """Run schedules that depend on each other. A step starts when all steps that it depends on have succeeded.

    Each step is a subflow run of the flow run-schedule. If Prefect retries this flow run, the retry skips the steps
    that succeeded, and resumes a step that was running when the process died. A cancel of this flow run cancels all
    Bolt runs of the pipeline.

    Args:
        steps: The steps. Each step has a schedule, and the names of the steps that must succeed before this step
            starts.
        credentials: A saved Paradime Credentials block, or the name of the block. Do not type in a key or a secret. If
            empty, the flow uses the environment variables PARADIME_*.
        on_failure: What happens to the other steps when a step fails. stop: running steps are cancelled, and no new
            step starts; finish: running steps may finish, and no new step starts; continue: only the steps that depend
            on the failed step are skipped.
        max_parallel: How many steps may run at the same time.
        name: The pipeline's name. All flow runs with the same pipeline name use the same artifact key, so their pages
            form one history in Prefect.
        on_already_running: What a step does when its schedule is already running. wait: wait until the other Bolt run
            ends, then trigger; attach: wait for the other Bolt run instead; attach_if_same: attach, but fail if the
            other Bolt run has other commands or another branch; fail: the step fails; replace: cancel the other Bolt
            run, then trigger.
        options: How each step waits for its Bolt run, and what each step archives.

    Returns:
        The outcome of each step. All steps have succeeded.

    Raises:
        BoltPipelineFailed: At least one step did not succeed.
        BoltRequestError: The steps are not valid, for example because they form a cycle. No step was started.

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
    this_flow_run_id()  # raises an error outside of a flow run, before a request is sent
    try:
        async with prefect_client() as client:
            flow_run, earlier = await begin_execution(client, this_flow_run_id())
    except StoppedByPrefect as stop:
        return stopped(stop, PipelineResult)
    before = EarlierAttempts(flow_run, found, earlier)
    shared = {**options, "credentials": found, "on_already_running": on_already_running}
    pipeline = PipelineRun(
        name,
        steps,
        shared,
        before,
        flow=run_schedule,
        on_failure=on_failure,
        max_parallel=max_parallel,
    )
    try:
        await unless_stopped(pipeline.run, flow_run.id, parts=pipeline.stop)
    except StoppedByPrefect as stop:
        return stopped(stop, PipelineResult)
    outcomes = list(pipeline.outcomes.values())
    cancel = await reason_to_stop_if_known(flow_run.id)
    if cancel is not None and cancel.event is Event.CANCELLED:
        # When a flow run is being cancelled, Prefect accepts only Cancelled as its final state.
        return as_result(Cancelled(message=f"{cancel.reason} {headline(outcomes)}"), PipelineResult)
    if any(outcome.state is not StepState.SUCCEEDED for outcome in outcomes):
        why, each = why_not(name, outcomes)
        error = BoltPipelineFailed(why, steps=each)
        return as_result(Failed(message=error.in_one_line(), data=error), PipelineResult)
    return PipelineResult(name=name, steps=outcomes)


arun_pipeline = async_form(run_pipeline)
