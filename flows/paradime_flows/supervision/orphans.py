"""Finds the flow runs that no longer track their Bolt runs. The sweeper uses this module.

This module only reads from Prefect.
"""

from __future__ import annotations

import time
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

from paradime_flows.ledger import execution_of, last_sign_of_life, read_records
from paradime_flows.prefect_api import (
    FLOW_RUN_TAG,
    every_flow_run,
    has_its_own_process,
    is_suspended,
    lineage,
    the_supervisor,
    times,
)
from paradime_flows.supervision.heartbeat import silent_seconds

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

_ENDED_BADLY = {StateType.CRASHED, StateType.CANCELLED, StateType.FAILED}
# The sweeper checks flow runs in these states. A flow run that awaits a retry is Scheduled: if its process is gone,
# nobody makes the retry, and nobody tracks the Bolt run.
SWEPT = [*_ENDED_BADLY, StateType.RUNNING, StateType.CANCELLING, StateType.PENDING, StateType.SCHEDULED]


async def candidates(client: PrefectClient, lookback: timedelta) -> list[FlowRun]:
    """Return all flow runs with our tag that the sweep must check, and that are not older than `lookback`.

    All pages are read before the sweep changes anything, because a change between two pages could hide a flow run.
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
        if may_have_vanished(flow_run) or any(each.is_open for each in read_records(flow_run))
    ]


def may_have_vanished(flow_run: FlowRun) -> bool:
    """Whether a flow run has no Bolt run to clean up, but may have lost its process before it wrote its final state.

    This happens, for example, if one of several parallel subflows fails or is cancelled: the process can end before the
    other subflows have written their states.

    If the current execution of the flow run has not used this package yet, the answer is False. Such an execution sends
    no heartbeats, so the last heartbeat in the labels is from an earlier execution.
    """
    state, execution = flow_run.state, execution_of(flow_run)
    answers = any(each.is_open and each.may_be_cancelled for each in read_records(flow_run))
    if state is None or execution is None or answers:
        return False
    return state.is_cancelling() or (state.is_running() and execution == str(state.id))


def _awaits_worker(flow_run: FlowRun) -> bool:
    """Whether a suspended flow run was resumed and waits for a worker. The time limit of its Bolt run still counts."""
    resumed = flow_run.state is not None and flow_run.state.name == "Resuming"
    is_over = any(record.time_is_up for record in read_records(flow_run))
    return resumed and has_its_own_process(flow_run) and not is_over


def idle_seconds(flow_run: FlowRun) -> float:
    """Return how long ago a flow run ended or sent its last heartbeat, in seconds.

    The result is negative if the flow run counts as alive.
    """
    state = flow_run.state
    if state is None or _awaits_worker(flow_run):
        return -1
    since_state = (datetime.now(timezone.utc) - state.timestamp).total_seconds()
    silent = silent_seconds(flow_run)
    if ended_badly(flow_run):
        # A worker can write Crashed after somebody has retried the flow run. Other states are not written so late.
        lives = state.is_crashed() and silent is not None and silent <= times().stale_seconds
        return -1 if lives else since_state
    if silent is None:
        # Without a heartbeat, only the age of the state counts.
        return since_state if since_state > times().stale_seconds else -1
    waits = state.type in {StateType.PENDING, StateType.SCHEDULED}
    # An old heartbeat may be from before the flow run was scheduled again, or before a new execution began.
    return -1 if silent <= times().stale_seconds and not waits else min(silent, since_state)


def ended_badly(flow_run: FlowRun) -> bool:
    """Whether a flow run has ended as Crashed, Cancelled or Failed."""
    return flow_run.state is not None and flow_run.state.type in _ENDED_BADLY


def may_live(flow_run: FlowRun) -> bool:
    """Whether a flow run with an old heartbeat may still be alive.

    The clocks of two machines can differ, so the heartbeat may only seem old. A flow run that has ended is not alive.
    """
    return not ended_badly(flow_run) and silent_seconds(flow_run) is not None


async def is_cancelled(client: PrefectClient, flow_run: FlowRun) -> bool:
    """Whether a flow run, or one of its parents, was cancelled.

    Nobody else checks this for a suspended flow run, because it has no process.
    """
    return any([_was_cancelled(one) async for one in lineage(client, flow_run)])


def _was_cancelled(flow_run: FlowRun) -> bool:
    state = flow_run.state
    return state is not None and (state.is_cancelled() or state.is_cancelling())


async def is_resumed_by_parent(client: PrefectClient, flow_run: FlowRun) -> bool:
    """Whether a parent of a flow run is alive or will start again. Then the parent resumes the flow run's Bolt run."""
    state = flow_run.state
    # A Crashed flow run may be a pipeline's step whose process died. The pipeline's next attempt may resume this step.
    ended = ended_badly(flow_run) and state is not None and not state.is_crashed()
    if ended or any(record.time_is_up for record in read_records(flow_run)):
        return False
    family = [one async for one in lineage(client, flow_run)]
    died = None if _was_called_by_task(flow_run) else _died(flow_run)
    for one in family:
        if _was_cancelled(one):
            return False
        if one.id != flow_run.id and _is_alive_or_due(one, died):
            return True
        if has_its_own_process(one):
            return False
    return False


def _was_called_by_task(flow_run: FlowRun) -> bool:
    """Whether a task has called a flow run.

    The task may run in a process of its own. If only that process is gone, the parent's process may still be alive.
    """
    calls = the_supervisor().of(flow_run.id).calls
    return bool(calls) and not calls[0].dynamic_key.isdigit()


def _died(flow_run: FlowRun) -> datetime | None:
    """Return when a flow run's process sent its last heartbeat, if the process is gone; None if it may be alive."""
    silent, sign = silent_seconds(flow_run), last_sign_of_life(flow_run.labels)
    # If a flow run has ended, a missing heartbeat proves nothing: the process may still be alive.
    is_gone = silent is not None and silent > times().stale_seconds and not ended_badly(flow_run)
    if sign is None or not is_gone:
        return None
    since_sign = time.time() - sign - times().sign_rounding_seconds
    return datetime.now(timezone.utc) - timedelta(seconds=since_sign)


def _is_alive_or_due(flow_run: FlowRun, died: datetime | None) -> bool:
    """Whether a parent flow run in the same process is alive or will start again.

    `died` is the time of the last heartbeat of this process, if the process is gone.
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
        # The parent was Running before the process died, and has not started again since.
        return False
    # The parent is scheduled, or has just begun. If it has been due for a long time, no worker will start it.
    due = state.state_details.scheduled_time or state.timestamp
    return (
        not state.is_final()
        and (datetime.now(timezone.utc) - due).total_seconds() < times().left_for_retry_seconds
    )
