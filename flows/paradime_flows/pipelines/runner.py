"""Runs the steps of a pipeline as subflow runs of one flow run, in the event loop of this flow run.

The outcome of each step is stored in a label of the pipeline's flow run, so that a retry of the flow run skips steps
that succeeded. If a step was running when the process died, the step's new subflow run resumes the Bolt run, as in any
flow whose parent is retried (`paradime_flows.runner.begin`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
from prefect.exceptions import Pause

from paradime_blocks import BoltAttempt, BoltRunError, BoltRunResult, BoltRunState
from paradime_blocks.models import BoltRunRecord
from paradime_blocks.signals import INTERRUPTS, to_the_end
from paradime_blocks.text import one_line
from paradime_flows.ledger import Superseded, call_name, put, read_records, top_lease
from paradime_flows.pipelines.earlier_attempts import EarlierAttempts
from paradime_flows.pipelines.own_start import find_own_start
from paradime_flows.pipelines.plan import StepState, carried_over, decide
from paradime_flows.pipelines.report import render_pipeline, title_of
from paradime_flows.prefect_api import (
    STEP_LABEL_PREFIX,
    ArtifactWriter,
    DispatchedFlow,
    artifact_key,
    is_rescheduled,
    prefect_client,
    run_logger,
    times,
)
from paradime_flows.supervision import (
    StoppedByPrefect,
    StopRequest,
    interrupt_policy,
    reason_to_stop_if_known,
    stop_request,
)

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from paradime_flows.choices import OnFailure
    from paradime_flows.pipeline import Step


@dataclass(eq=False)
class PipelineRun:
    """Runs the steps of a pipeline in one attempt of the pipeline's flow run. The steps have already been checked.

    `flow` runs each step, and `options` are the parameters that are the same for all steps.
    """

    name: str
    steps: Sequence[Step]
    options: Mapping[str, Any]
    before: EarlierAttempts
    flow: DispatchedFlow[..., Any]
    on_failure: OnFailure
    max_parallel: int
    stop: StopRequest = field(default_factory=StopRequest, init=False)

    def __post_init__(self) -> None:
        self.flow_run = self.before.flow_run
        self.outcomes = carried_over(self.steps, self.before.outcomes, attempt=self.before.attempt)
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._writer = ArtifactWriter(self.flow_run.id)
        self._page: UUID | None = None

    async def run(self) -> None:
        """Run the steps until every step has ended or was dropped.

        After a cancel or an interrupt, the steps are stopped. If another process executes the flow run now, or if it
        was suspended, the steps release their Bolt runs.
        """
        try:
            reused = ", ".join(name for name, outcome in self.outcomes.items() if outcome.reused)
            if reused:
                run_logger().info("Skipping steps that succeeded in an earlier attempt: %s.", reused)
            await self.before.prepare(self.outcomes, self.flow)
            while True:
                starting = await self._decide()
                # On SQLite, Prefect's engine would wait for seconds if it met our writes. So the steps start last.
                await self._write_page()
                for step in starting:
                    task = asyncio.create_task(self._step(step), name=f"step {step.key}")
                    # After a release, nobody reads how the other steps end, and asyncio would log their errors.
                    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                    self._tasks[task] = step.key
                if not self._tasks:
                    return
                await self._wait_for_step()
        except (*INTERRUPTS, StoppedByPrefect):
            # When Prefect's time limit is reached, Prefect cancels each `await` here once more.
            await to_the_end(self._interrupted())
            raise
        except (Superseded, Pause) as release:
            # A step has noticed it first. When the pipeline notices it, too, each `await` here is cancelled.
            await to_the_end(self._release_steps(release))
            raise

    async def _decide(self) -> list[Step]:
        """Store what happens to the steps that wait, and return those that start now."""
        decision = decide(
            self.steps,
            self.outcomes,
            on_failure=self.on_failure,
            max_parallel=self.max_parallel,
            under_way=self.before.resumable,
        )
        for name, reason in decision.drop.items():
            await self._note(name, StepState.NOT_RUN, reason)
        if decision.stop is not None and self.stop.why is None and self._tasks:
            names = ", ".join(sorted(self._tasks.values()))
            run_logger().warning("%s Cancelling the steps %s.", decision.stop, names)
            self.stop.why = StoppedByPrefect(decision.stop)
        for name in decision.start:
            before = self.before.outcomes.get(name) if name in self.before.resumable else None
            started_at = (before and before.started_at) or datetime.now(timezone.utc)
            await self._note(name, StepState.RUNNING, started_at=started_at)
        return [step for step in self.steps if step.key in decision.start]

    async def _wait_for_step(self) -> None:
        """Wait until a step has ended. If the steps were asked to stop, wait until all of them have ended."""
        stopping = self.stop.why is not None
        if stopping:
            await self._end_steps(times().step_stop_seconds)
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        names = [self._tasks.pop(task) for task in done]
        for task in done:
            ended = None if task.cancelled() else task.exception()
            if isinstance(ended, (Superseded, Pause, *INTERRUPTS)):
                raise ended
        canceled = any(self.outcomes[name].state is StepState.CANCELED for name in names)
        if canceled and not stopping and (stop := await reason_to_stop_if_known(self.flow_run.id)):
            # A step notices a cancel of the pipeline's flow run by itself, and may notice the cancel before the
            # pipeline does.
            raise stop

    async def _step(self, step: Step) -> None:
        """Run a step as a subflow run, and store the outcome of the step."""
        name = step.key
        stop_request.set(self.stop)
        call_name.set(f"{name} {self.outcomes[name].fingerprint}")
        # The subflow run has the step's name, so that the next attempt knows the step of the subflow run.
        flow = self.flow.with_options(flow_run_name=lambda: name)
        given = step.model_dump(exclude={"name", "after", "attach_seconds"}, exclude_none=True)
        try:
            if step.attach_seconds and name not in self.before.resumable:
                newest = self.before.newest_run_of(name)
                own = await find_own_start(
                    step, self.outcomes, self.before.credentials, self.stop, before=newest
                )
                if own is not None and own.state.is_terminal:
                    await self._note(name, **_outcome_of_own_start(own))
                    return
                if own is not None:
                    given["on_already_running"] = "attach"
            state: State[Any] = await flow(**{**self.options, **given}, return_state=True)
            await self._note(name, **await _outcome_of(state))
        except INTERRUPTS:
            # If the step has released its Bolt run, the next execution stores how the Bolt run ended.
            with anyio.CancelScope(shield=True), suppress(Superseded, Pause):
                await reason_to_stop_if_known(self.flow_run.id)
                await self._note(name, StepState.CANCELED, "The process was interrupted.")
            raise
        except Exception as error:  # noqa: BLE001 - an error here is a failure of this step only
            run_logger().exception("Could not run step %r.", name)
            await self._note(name, StepState.FAILED, one_line(str(error)))

    async def _note(self, name: str, state: StepState, message: str = "", **facts: Any) -> None:
        """Store a step's outcome in a label. If Prefect is unreachable, only log a warning."""
        facts.update(state=state, message=message, attempt=self.before.attempt)
        if state not in {StepState.RUNNING, StepState.NOT_RUN}:
            facts["ended_at"] = datetime.now(timezone.utc)
        outcome = self.outcomes[name] = self.outcomes[name].model_copy(update=facts)
        run_logger().info("Step %r: %s", name, f"{state}. {message}".removesuffix(". "))
        try:
            label = {f"{STEP_LABEL_PREFIX}{name}": outcome.model_dump_json(exclude_defaults=True)}
            async with prefect_client() as client:
                await put(client, self.flow_run.id, label, top_lease(self.flow_run.labels))
        except Exception as error:  # noqa: BLE001
            run_logger().warning("Could not write the outcome of step %r to Prefect: %s", name, error)

    async def _interrupted(self) -> None:
        """Stop the steps, unless the interrupt has already reached them, and write the outcomes to the page."""
        try:
            # The steps may have been released already. The state in Prefect may have changed since then.
            if isinstance(self.stop.why, (Superseded, Pause)):
                raise self.stop.why
            stop = await reason_to_stop_if_known(self.flow_run.id)
        except (Superseded, Pause) as release:
            await self._release_steps(release)
            raise
        policy = interrupt_policy(self.options["on_interrupt"], is_rescheduled=is_rescheduled())
        if stop is None and policy == "leave":
            # Each step leaves its Bolt run running. A retry of the flow run resumes the Bolt run.
            for task in self._tasks:
                if getattr(task, "cancelling", int)() == 0:
                    task.cancel()
        else:
            self.stop.why = stop or StoppedByPrefect("The pipeline was interrupted.")
        await self._end_steps(times().step_interrupt_seconds)
        await self._note_what_never_began()
        await self._write_page()

    async def _note_what_never_began(self) -> None:
        why = "The pipeline was stopped before this step started."
        for name, outcome in self.outcomes.items():
            # A step is noted as running before its asyncio task starts.
            never_began = outcome.state is StepState.RUNNING and name not in self._tasks.values()
            still_runs = name in self.before.resumable and self.stop.why is None
            if outcome.state is StepState.WAITING or (never_began and not still_runs):
                await self._note(name, StepState.NOT_RUN, why)

    async def _release_steps(self, release: Superseded | Pause) -> None:
        """Make each step release its Bolt run, even if the flow run's state in Prefect has changed again."""
        self.stop.why = release
        await self._end_steps(times().step_release_seconds)

    async def _end_steps(self, seconds: float) -> None:
        """Wait until the steps have ended. If they do not end within some seconds, cancel their asyncio tasks."""
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=seconds)
            for task in pending:
                task.cancel()

    async def _write_page(self) -> None:
        page = render_pipeline(self.name, self.steps, self.outcomes)
        try:
            if self._page is None:
                key = artifact_key("paradime-pipeline", self.name)
                description = f"{title_of(self.name)}: {len(self.steps)} steps"
                self._page = await self._writer.markdown(key, page, description)
            else:
                await self._writer.update(self._page, page)
        except Exception as error:  # noqa: BLE001
            run_logger().warning("Could not write the pipeline's page: %s", error)


def _outcome_of_own_start(run: BoltRunRecord) -> dict[str, Any]:
    facts = {"run_id": run.id, "bolt_state": run.state}
    if run.state == BoltRunState.SUCCESS:
        return {"state": StepState.SUCCEEDED, **facts}
    message = f"Bolt started this run by itself. The run ended as {run.state}."
    return {"state": StepState.FAILED, "message": message, **facts}


async def _outcome_of(state: State[Any]) -> dict[str, Any]:
    """Derive a step's outcome from the final state of the step's flow run."""
    flow_run_id = state.state_details.flow_run_id
    outcome = await state.aresult(raise_on_failure=False)
    message = state.message or ""
    if state.is_completed() and isinstance(outcome, BoltRunResult):
        run = {"run_id": outcome.run_id, "bolt_state": outcome.state, "attempts": outcome.attempts}
        succeeded = outcome.state == BoltRunState.SUCCESS
        ended, message = (StepState.SUCCEEDED, "") if succeeded else (StepState.FAILED, message)
    else:
        run = await _run_of(flow_run_id)
        # If a signal stopped a flow that runs in a thread, the flow returns Crashed.
        is_failed = not (state.is_cancelled() or state.is_crashed())
        ended = StepState.FAILED if is_failed else StepState.CANCELED
        if is_failed and isinstance(outcome, BoltRunError):
            message = outcome.cause
    facts = {"state": ended, "message": one_line(message, 500)}
    return {**run, **facts, "flow_run_id": None if flow_run_id is None else str(flow_run_id)}


async def _run_of(flow_run_id: UUID | None) -> dict[str, Any]:
    """Read a step's last Bolt run and attempts from the labels of its flow run; empty if there is no Bolt run."""
    if flow_run_id is None:
        return {}
    async with prefect_client() as client:
        found = read_records(await client.read_flow_run(flow_run_id))
    for record in found:
        if record.run_id is not None:
            last = BoltAttempt(run_id=record.run_id, state=record.state or BoltRunState("UNKNOWN"))
            attempts = [attempt for attempt in record.attempts if attempt.run_id != last.run_id]
            return {"run_id": last.run_id, "bolt_state": record.state, "attempts": [*attempts, last]}
    return {}
