"""Finds orphans: flow runs that no longer track their Bolt runs. This module only reads from Prefect."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from math import inf

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import filters
from prefect.client.schemas.objects import FlowRun, StateType

from paradime_blocks import ParadimeCredentials
from paradime_flows.ledger import Record, execution_of, last_sign_of_life, read_records
from paradime_flows.prefect_api import FLOW_RUN_TAG, every_flow_run, has_its_own_process, times
from paradime_flows.supervision.decide import Event, event_of_orphan
from paradime_flows.supervision.watch import is_cancelled

# A flow run that awaits a retry is Scheduled: if its process is gone, nobody makes the retry, and nobody tracks the
# Bolt run. A suspended flow run is Paused, and has no process.
_SWEPT = [kind for kind in StateType if kind not in {StateType.COMPLETED, StateType.PAUSED}]


async def candidates(client: PrefectClient, credentials: ParadimeCredentials, days: float) -> list[FlowRun]:
    """Return all flow runs that may be orphans, and that are not older than this number of days.

    All pages are read before the sweep changes anything, because a change between two pages could hide a flow run.
    """
    since = datetime.now(timezone.utc) - timedelta(days=days)
    wanted = filters.FlowRunFilter(
        tags=filters.FlowRunFilterTags(all_=[FLOW_RUN_TAG]),
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=_SWEPT)),
        expected_start_time=filters.FlowRunFilterExpectedStartTime(after_=since),
    )
    found = every_flow_run(client, wanted)
    return [flow_run async for flow_run in found if records_to_end(flow_run, credentials) is not None]


def orphan_event(family: list[FlowRun], older_than_seconds: float) -> Event | None:
    """Return the event that has made a flow run an orphan; None if its process or a parent may track its Bolt run."""
    idle = idle_seconds(family[0])
    if idle < 0:
        return None
    # Nobody resumes the Bolt run of a cancelled flow run, so `older_than_seconds` does not apply to it.
    if is_cancelled(family):
        return Event.CANCELLED
    if idle < older_than_seconds or _is_resumed_by_parent(family):
        return None
    return event_of_orphan(family[0].state, is_young=idle < times().left_for_retry_seconds)


def records_to_end(flow_run: FlowRun, credentials: ParadimeCredentials) -> list[Record] | None:
    """Return the records whose Bolt runs the sweeper may end; None if there is nothing to do for the flow run.

    The list is empty if the flow run has no Bolt run, but would need a final state without its process. If one of
    several parallel subflows fails, Prefect does not learn of the end of the others.
    """
    tracked = [record for record in read_records(flow_run) if record.is_open and record.may_be_cancelled]
    if tracked:
        return [record for record in tracked if record.is_in(credentials)] or None
    # An execution that has not used this package yet sends no heartbeats: the last one proves nothing about it.
    state, lease = flow_run.state, execution_of(flow_run)
    if state is None or lease.epoch == 0:
        return None
    return [] if state.is_cancelling() or (state.is_running() and lease.holder == str(state.id)) else None


def idle_seconds(flow_run: FlowRun) -> float:
    """Return how long ago a flow run ended or sent its last heartbeat, in seconds; negative if it counts as alive."""
    state = flow_run.state
    if state is None or state.type not in _SWEPT:
        return -1
    # A suspended flow run that was resumed waits for a worker. The time limit of its Bolt run still counts.
    if state.name == "Resuming" and not any(record.time_is_up for record in read_records(flow_run)):
        return -1
    since_state = datetime.now(timezone.utc) - (state.state_details.scheduled_time or state.timestamp)
    silent = silent_seconds(flow_run)
    # A worker can write Crashed after somebody has retried the flow run. Other final states are not written so late.
    if (not state.is_final() or state.is_crashed()) and silent <= times().stale_seconds:
        return -1
    # An old heartbeat may be from before the flow run was scheduled again, or before a new execution began.
    return min(silent, since_state.total_seconds())


def silent_seconds(flow_run: FlowRun) -> float:
    """Return the age of the last heartbeat of a flow run's process, in seconds; infinite without a heartbeat."""
    at = last_sign_of_life(flow_run.labels)
    return inf if at is None else max(0.0, time.time() - at)


def _is_resumed_by_parent(family: list[FlowRun]) -> bool:
    """Whether an idle flow run has a parent that is alive or will start again. Then the parent resumes its Bolt run."""
    state = family[0].state
    # A Crashed flow run may be a pipeline's step whose process died. The pipeline's next attempt may resume this step.
    if state is None or (state.is_final() and not state.is_crashed()):
        return False
    # If a flow run has ended, a missing heartbeat proves nothing: the process may still be alive.
    sign = None if state.is_crashed() else last_sign_of_life(family[0].labels)
    lost_at = 0.0 if sign is None else sign + times().sign_rounding_seconds
    for child, parent in pairwise(family):
        if has_its_own_process(child) or parent.state is None:
            return False
        # The parent was Running when its process died, and has not started again since.
        has_died = parent.state.is_running() and parent.state.timestamp.timestamp() <= lost_at
        is_idle = has_died or idle_seconds(parent) >= times().left_for_retry_seconds
        if not parent.state.is_final() and not is_idle:
            return True
    return False
