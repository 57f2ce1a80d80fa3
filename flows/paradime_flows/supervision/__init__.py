"""Watching a flow run, and ending what nobody waits for: what the other packages use of it."""

from paradime_flows.supervision.cancellation import (
    remember_credentials,
    settle_family,
    settle_if_cancelled_before,
    settle_if_cancelled_meanwhile,
)
from paradime_flows.supervision.heartbeat import keep_alive, lives_beside
from paradime_flows.supervision.orphans import candidates, is_cancelled, may_live
from paradime_flows.supervision.reconcile import (
    archive_ownership,
    find_run,
    settle,
    settle_interrupted,
    summarize,
    told_of_run,
)
from paradime_flows.supervision.sweep import Sweep, SweepAction, SweptRun
from paradime_flows.supervision.time_left import begins_here, remaining_seconds
from paradime_flows.supervision.watch import (
    Stop,
    StoppedByPrefect,
    StopRequest,
    cancel_in_prefect,
    check_not_stopped,
    reason_to_stop,
    see_that_it_is_ours,
    stop_request,
    unless_stopped,
)

__all__ = [
    "Stop",
    "StopRequest",
    "StoppedByPrefect",
    "Sweep",
    "SweepAction",
    "SweptRun",
    "archive_ownership",
    "begins_here",
    "cancel_in_prefect",
    "candidates",
    "check_not_stopped",
    "find_run",
    "is_cancelled",
    "keep_alive",
    "lives_beside",
    "may_live",
    "reason_to_stop",
    "remaining_seconds",
    "remember_credentials",
    "see_that_it_is_ours",
    "settle",
    "settle_family",
    "settle_if_cancelled_before",
    "settle_if_cancelled_meanwhile",
    "settle_interrupted",
    "stop_request",
    "summarize",
    "told_of_run",
    "unless_stopped",
]
