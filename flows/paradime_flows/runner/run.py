"""Runs a schedule for a flow run and returns its result or final state, for `run_schedule` and `retry_run`."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, TypeVar, cast
from uuid import UUID

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Crashed, Failed

from paradime_blocks import BoltRun, BoltRunResult, BoltRunState, BoltSchedule
from paradime_blocks.errors import BoltError, BoltRequestError, BoltRunFailed
from paradime_blocks.text import one_line
from paradime_blocks.trigger import TriggerRequest
from paradime_flows.choices import WaitMode
from paradime_flows.live.view import LiveView
from paradime_flows.parameters import RetriedRunOptions
from paradime_flows.prefect_api import as_task_run, current_flow_run_id
from paradime_flows.runner.conflict import Skipped
from paradime_flows.runner.lifecycle import RunLifecycle, RunPolicies
from paradime_flows.runner.suspend import has_ended_soon, suspend
from paradime_flows.supervision import Event, StoppedByPrefect, archive_of, describe_run

R = TypeVar("R")


async def drive(
    schedule: BoltSchedule, request: TriggerRequest, options: RetriedRunOptions, wait: WaitMode = "hold"
) -> BoltRunResult:
    """Run a schedule for the current flow run, wait for the end of the Bolt run, and archive the Bolt run.

    Return the result, or a state for the flow run. `options` and `wait` are parameters of `run_schedule`.
    """
    policies = await RunPolicies.of(options)
    flow_run_id, name = this_flow_run_id(), schedule.schedule_name
    logs, planned = options["live_logs"], schedule.commands or ()
    view = LiveView(flow_run_id, name, logs, command_task_runs=options["command_task_runs"], planned=planned)
    try:
        lifecycle = await RunLifecycle.begin(schedule, flow_run_id, policies, request, watcher=view.watch)
    except StoppedByPrefect as stop:
        return stopped(stop, BoltRunResult)
    try:
        # The Bolt run is cleaned up before the slot is released. So it has ended when the next flow run gets the slot.
        async with view, AsyncExitStack() as held, lifecycle.cleaning_up():
            run = await obtain(lifecycle, held if options["one_at_a_time"] else None)
            view.stored = lifecycle.ledger.seen
            result = await _to_the_end(lifecycle, run, wait)
    except Skipped as skipped:
        await archive_of(lifecycle.record, schedule.credentials, str(skipped)).summary()
        run = skipped.run
        result = BoltRunResult(run_id=run.run_id, schedule_name=name, state=BoltRunState.SKIPPED, url=run.url)
        return as_result(Completed(name="Skipped", message=str(skipped), data=result), BoltRunResult)
    except StoppedByPrefect as stop:
        return stopped(stop, BoltRunResult, describe_run(lifecycle.record, stop.event))
    except Exception as error:  # noqa: BLE001 - the run is archived after every error
        return await _ended(lifecycle, error)
    return await _ended(lifecycle, result)


async def _ended(lifecycle: RunLifecycle, end: BoltRunResult | Exception) -> BoltRunResult:
    error = end if isinstance(end, Exception) else None
    async with as_task_run("archive"):
        archive, stop = await lifecycle.finish(error)
    if stop is not None and stop.event is Event.CANCELLED:
        # When a flow run is being cancelled, Prefect accepts only Cancelled as its final state.
        told = error.in_one_line() if isinstance(error, BoltError) else one_line(str(error or ""))
        return stopped(stop, BoltRunResult, f"{describe_run(lifecycle.record, stop.event)} {told}".rstrip())
    if isinstance(end, BoltError):
        # Prefect raises the error, without logging a traceback.
        return as_result(Failed(message=end.in_one_line(), data=end), BoltRunResult)
    if isinstance(end, Exception):
        raise end
    result = archive.complete(end)
    if result.differs is None:
        return result
    return as_result(Completed(name="Attached", message=result.differs, data=result), BoltRunResult)


async def obtain(lifecycle: RunLifecycle, slot: AsyncExitStack | None = None) -> BoltRun:
    """Resume, trigger or retry the Bolt run, shown as a task run. The stack `slot` gets the schedule's slot."""
    retried = lifecycle.request.retry_of
    name = f"trigger {lifecycle.schedule.schedule_name}" if retried is None else f"retry {retried}"
    async with as_task_run(name, stops=(StoppedByPrefect,)) as shown:
        try:
            if slot is not None:
                await lifecycle.triggering.hold_slot(slot)
            run = await lifecycle.obtain()
        except Skipped as skipped:
            lifecycle.decision_log.note(str(skipped))
            shown.outcome = Completed(name="Skipped", message=str(skipped))
            raise
        shown.outcome = Completed(message=f"Bolt run {run.run_id}: {run.url}")
        return run


async def _to_the_end(lifecycle: RunLifecycle, run: BoltRun, wait: WaitMode = "hold") -> BoltRunResult:
    while True:
        try:
            async with as_task_run(f"wait for {run.run_id}", stops=(StoppedByPrefect,)) as shown:
                if wait == "hold":
                    await lifecycle.wait(run)
                if wait == "hold" or await has_ended_soon(lifecycle, run):
                    return await lifecycle.result(run)
                # This task run has to end before the flow run is suspended.
                message = f"The flow run is suspended during Bolt run {run.run_id}."
                shown.outcome = Completed(name="Suspended", message=message)
            await suspend(lifecycle)
            # Prefect has not suspended the flow run.
            wait = "hold"
        except BoltRunFailed as failure:
            if not lifecycle.is_retried(run, failure):
                raise
            async with as_task_run(f"retry {run.run_id}", stops=(StoppedByPrefect,)) as shown:
                run = await lifecycle.retry(run, failure)
                shown.outcome = Completed(message=f"Bolt run {run.run_id}: {run.url}")


def this_flow_run_id() -> UUID:
    """Return the id of the current flow run. Raise an error if a flow's function was called outside of a flow run."""
    flow_run_id = current_flow_run_id()
    if flow_run_id is None:
        msg = "The flow's function was called outside of a flow run. Only a flow run can keep track of the Bolt run."
        guidance = "Nothing was sent. Call the flow itself, without .fn. Without Prefect, use BoltSchedule.trigger()."
        raise BoltRequestError(msg, guidance=guidance)
    return flow_run_id


def stopped(stop: StoppedByPrefect, kind: type[R], more: str = "") -> R:
    """Return the state of a stopped flow run: after a signal Crashed, as Prefect does for a flow in the main thread."""
    state = Crashed if stop.event is Event.INTERRUPTED else Cancelled
    return as_result(state(message=f"{stop.reason}{more}"), kind)


def as_result(state: State[Any], kind: type[R]) -> R:  # noqa: ARG001 - `kind` is only for the type checker
    """Return a state instead of a flow's result. Prefect makes it the flow run's final state."""
    return cast("R", state)
