"""Runs a schedule for a flow run and returns its result or final state, for `run_schedule` and `retry_run`."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar, cast

from prefect.states import Cancelled, Completed, Crashed

from paradime_blocks import (
    BoltRequestError,
    BoltRun,
    BoltRunFailed,
    BoltRunResult,
    BoltRunState,
    BoltSchedule,
)
from paradime_flows.live.view import LiveView
from paradime_flows.prefect_api import current_flow_run_id
from paradime_flows.runner.conflict import Skipped
from paradime_flows.runner.lifecycle import RunLifecycle
from paradime_flows.runner.policies import RunPolicies
from paradime_flows.runner.slot import hold_slot
from paradime_flows.supervision import StoppedByPrefect, describe_run, reason_to_stop_if_known

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import State

    from paradime_blocks.trigger import TriggerRequest
    from paradime_flows.choices import LiveLogsMode

R = TypeVar("R")


async def drive(
    schedule: BoltSchedule,
    policies: RunPolicies,
    *,
    request: TriggerRequest | None = None,
    live_logs: LiveLogsMode = "all",
    one_at_a_time: bool = True,
) -> BoltRunResult:
    """Run a schedule for the current flow run, wait for the end of the Bolt run, and archive the Bolt run.

    Args:
        schedule: The schedule to run.
        policies: What to do when something goes wrong.
        request: What to trigger. By default, the schedule is triggered without changes.
        live_logs: How much of each command's output is logged while the command runs.
        one_at_a_time: Whether to hold the schedule's concurrency slot until the end of the Bolt run.

    Returns:
        The result; or the state in which the flow run is to end. Prefect accepts both from a flow.

    Raises:
        BoltError: As in `run_schedule`.
    """
    view = LiveView(schedule, this_flow_run_id(), live_logs)
    try:
        lifecycle = await RunLifecycle.begin(
            schedule, this_flow_run_id(), policies, request=request, watcher=view.watch
        )
    except StoppedByPrefect as stop:
        return cancelled(stop.reason, BoltRunResult)
    try:
        # The Bolt run is cleaned up before the slot is released, so that it has ended when the next flow run starts.
        async with view, AsyncExitStack() as slot, lifecycle.cleaning_up():
            if one_at_a_time:
                await hold_slot(lifecycle, slot)
            result = await _to_the_end(lifecycle, await lifecycle.obtain())
    except Skipped as skipped:
        await lifecycle.summarize(str(skipped))
        state: State[BoltRunResult] = Completed(
            name="Skipped", message=str(skipped), data=_skipped(lifecycle, skipped)
        )
        return as_result(state, BoltRunResult)
    except StoppedByPrefect as stop:
        return await stopped(
            stop,
            this_flow_run_id(),
            BoltRunResult,
            describe_run(lifecycle.ownership, by_signal=stop.by_signal),
        )
    except Exception as error:
        await lifecycle.finish(error)
        if reason := await lifecycle.clean_up_if_cancelled():
            return cancelled(f"{reason} {error}", BoltRunResult)
        raise
    archive = await lifecycle.finish(None)
    if reason := await lifecycle.clean_up_if_cancelled():
        # Prefect accepts no other final state from a flow run that is being cancelled.
        return cancelled(reason, BoltRunResult)
    result = archive.complete(result)
    return result if result.differs is None else _attached(result, result.differs)


async def _to_the_end(lifecycle: RunLifecycle, run: BoltRun) -> BoltRunResult:
    while True:
        await lifecycle.wait(run)
        try:
            return await lifecycle.result(run)
        except BoltRunFailed as failure:
            retried = await lifecycle.retry(run, failure)
            if retried is None:
                raise
            run = retried


def this_flow_run_id() -> UUID:
    """Return the id of the current flow run.

    Raises:
        BoltRequestError: A flow's function was called outside of a flow run.
    """
    flow_run_id = current_flow_run_id()
    if flow_run_id is None:
        msg = "The flow's function was called outside of a flow run, which keeps track of the Bolt run."
        guidance = (
            "Nothing was sent. Call the flow itself, without .fn; or BoltSchedule.trigger() without Prefect."
        )
        raise BoltRequestError(msg, guidance=guidance)
    return flow_run_id


async def stopped(stop: StoppedByPrefect, flow_run_id: UUID, kind: type[R], more: str = "") -> R:
    """Return the state of a flow run that was stopped, instead of a result.

    A thread cannot receive a signal itself. If a signal stopped the process, the state is Crashed, as for a flow in the
    main thread. If a cancel caused the signal, the state is Cancelled.

    Args:
        stop: Why the flow run was stopped.
        flow_run_id: The flow run.
        kind: The type of the flow's result.
        more: More sentences for the message.

    Raises:
        Superseded: Another process runs the flow run now.
        Pause: The flow run is suspended.
    """
    reason = f"{stop.reason}{more}"
    if stop.by_signal:
        found = await reason_to_stop_if_known(flow_run_id)
        if found is None or not found.is_cancel:
            return as_result(Crashed(message=reason), kind)
    return cancelled(reason, kind)


def cancelled(reason: str, kind: type[R]) -> R:
    """Return a cancelled state instead of a flow's result: Prefect uses it as the flow run's final state."""
    return as_result(Cancelled(message=reason), kind)


def as_result(state: State[Any], kind: type[R]) -> R:  # noqa: ARG001 - gives the type that the flow returns otherwise
    """Return a state instead of a flow's result: Prefect uses it as the flow run's final state."""
    return cast("R", state)


def _attached(result: BoltRunResult, differs: str) -> BoltRunResult:
    return as_result(Completed(name="Attached", message=differs, data=result), BoltRunResult)


def _skipped(lifecycle: RunLifecycle, skipped: Skipped) -> BoltRunResult:
    found = BoltRunResult.of(
        skipped.run.run_id, None, schedule_name=lifecycle.ownership.schedule, state=BoltRunState.SKIPPED
    )
    # The conflicting Bolt run is not one of our attempts.
    return found.model_copy(update={"attempts": []})
