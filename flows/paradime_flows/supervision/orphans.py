"""Decides for the sweeper which flow runs no longer track their Bolt run. This module changes nothing in Prefect."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType

from paradime_flows.ledger import Ownership, execution_of, read_ownerships, written_caller
from paradime_flows.prefect_api import (
    FLOW_RUN_TAG,
    every_flow_run,
    has_its_own_process,
    is_suspended,
    lineage,
    times,
)
from paradime_flows.supervision.heartbeat import (
    lives_here,
    seconds_since_last_sign,
    silent_seconds,
)

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

_ENDED_BADLY = {StateType.CRASHED, StateType.CANCELLED, StateType.FAILED}
# A flow run that awaits a retry needs its process. If the process is gone, nobody tracks the Bolt run.
SWEPT = [*_ENDED_BADLY, StateType.RUNNING, StateType.CANCELLING, StateType.PENDING, StateType.SCHEDULED]


async def candidates(client: PrefectClient, lookback: timedelta) -> list[FlowRun]:
    """Return all tagged flow runs that the sweep must look at.

    All pages are read before the sweep changes anything.
    """
    since = datetime.now(timezone.utc) - lookback
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[FLOW_RUN_TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=SWEPT)),
        expected_start_time=FlowRunFilterExpectedStartTime(after_=since),
    )
    return [
        flow_run
        async for flow_run in every_flow_run(client, wanted)
        if may_have_vanished(flow_run) or any(each.is_open for each in read_ownerships(flow_run))
    ]


def may_have_vanished(flow_run: FlowRun) -> bool:
    """Whether a flow run has no open Bolt run of its own, but Prefect waits for its end: its process may be gone.

    If one of several parallel subflows fails or is cancelled, the process can end before the other subflows have
    written their states. If the current execution of a flow run has not called this package, the flow run does not
    count: this execution has no heartbeats, and the heartbeats of the execution before it have ended.
    """
    state, execution = flow_run.state, execution_of(flow_run)
    answers = any(each.is_open and each.owned for each in read_ownerships(flow_run))
    if state is None or execution is None or answers:
        return False
    return state.is_cancelling() or (state.is_running() and execution == str(state.id))


def idle_seconds(flow_run: FlowRun) -> float:
    """Return how long a flow run has been over or without a heartbeat, in seconds; negative if it is alive."""
    state = flow_run.state
    if state is None:
        return -1
    since_state = (datetime.now(timezone.utc) - state.timestamp).total_seconds()
    silent = silent_seconds(flow_run)
    if state.type in _ENDED_BADLY:
        # A worker can write Crashed when somebody has already retried the flow run. No other state is written so late.
        lives = silent is not None and silent <= times().stale_seconds and state.type is StateType.CRASHED
        return -1 if lives else since_state
    if lives_here(flow_run):
        return -1
    if silent is None:
        # The flow run has no heartbeat yet, so only the age of its state counts.
        return since_state if since_state > times().stale_seconds else -1
    if state.type in {StateType.PENDING, StateType.SCHEDULED}:
        # The flow run may just have been scheduled again.
        return min(silent, since_state)
    # An execution that has just begun may not have written its first heartbeat.
    return min(silent, since_state) if silent > times().stale_seconds else -1


def ended_badly(flow_run: FlowRun) -> bool:
    """Whether a flow run has ended as Crashed, Cancelled or Failed."""
    return flow_run.state is not None and flow_run.state.type in _ENDED_BADLY


def may_live(flow_run: FlowRun) -> bool:
    """Whether a lost flow run may still be alive: we know only the age of its heartbeat, by two machines' clocks."""
    return not ended_badly(flow_run) and silent_seconds(flow_run) not in {None, float("inf")}


async def is_cancelled(client: PrefectClient, flow_run: FlowRun) -> bool:
    """Whether a flow run, or one of its parents, was cancelled.

    A suspended flow run has no process that could notice the cancel.
    """
    return any([_was_cancelled(one) async for one in lineage(client, flow_run)])


def _was_cancelled(flow_run: FlowRun) -> bool:
    state = flow_run.state
    return state is not None and (state.is_cancelled() or state.is_cancelling())


async def is_resumed_by_parent(client: PrefectClient, flow_run: FlowRun) -> bool:
    """Whether a parent of a flow run is alive or will start again: then the parent resumes the subflow's Bolt run."""
    state = flow_run.state
    # If the process of a pipeline's step died, the step is Crashed. The pipeline's next attempt may start it later.
    ended = ended_badly(flow_run) and state is not None and not state.is_crashed()
    if ended or any(ownership.time_is_up for ownership in read_ownerships(flow_run)):
        return False
    died = _died(flow_run)
    async for one in lineage(client, flow_run):
        if _was_cancelled(one):
            return False
        if one.id != flow_run.id and _is_alive_or_due(one, died):
            return True
        if has_its_own_process(one):
            return False
    return False


def _died(flow_run: FlowRun) -> datetime | None:
    """Return the time of the last heartbeat of a flow run's process; None if the process is not known to be gone."""
    silent, since_sign = silent_seconds(flow_run), seconds_since_last_sign(flow_run)
    # A flow run that has ended writes no heartbeats, but its process may still be alive.
    is_gone = silent is not None and silent > times().stale_seconds and not ended_badly(flow_run)
    if since_sign is None or not (is_gone or silent == float("inf")):
        return None
    if written_caller(flow_run) is not None:
        # A task has called the flow run. A task can have its own process, so the parent's process may be alive.
        return None
    return datetime.now(timezone.utc) - timedelta(seconds=since_sign - times().sign_rounding_seconds)


def _is_alive_or_due(flow_run: FlowRun, died: datetime | None) -> bool:
    """Whether a parent flow run is alive or will start again.

    Args:
        flow_run: The parent, in the same process as its subflow.
        died: The time of the last heartbeat of the process, if the process is gone.
    """
    state = flow_run.state
    if state is None:
        return False
    silent = silent_seconds(flow_run)
    if is_suspended(flow_run) or (
        state.is_running() and silent is not None and silent <= times().stale_seconds
    ):
        return True
    if died is not None and state.is_running() and state.timestamp <= died:
        # The parent has not started again since then.
        return False
    # The parent is scheduled, or has just begun. A parent that is scheduled for long does not count: it has no worker.
    due = state.state_details.scheduled_time or state.timestamp
    return (
        not state.is_final()
        and (datetime.now(timezone.utc) - due).total_seconds() < times().left_for_retry_seconds
    )


def is_left_for_retry(ownership: Ownership, flow_run: FlowRun) -> bool:
    """Whether a Bolt run must be left running, so that a retry of the flow run can resume the Bolt run."""
    state = flow_run.state
    if state is None or _was_cancelled(flow_run) or ownership.time_is_up:
        return False
    if state.name == "TimedOut":
        return ownership.on_interrupt == "leave"
    return not state.is_failed() and ownership.on_crash == "leave"
