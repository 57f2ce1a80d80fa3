"""Watches flow runs and cleans up Bolt runs that nobody waits for. Other packages import these names."""

from paradime_flows.supervision.cancellation import (
    clean_up_family,
    clean_up_if_cancelled_before,
    clean_up_if_cancelled_meanwhile,
    remember_credentials,
)
from paradime_flows.supervision.heartbeat import keep_alive, lives_in_other_process
from paradime_flows.supervision.orphans import candidates, is_cancelled, may_live
from paradime_flows.supervision.reconcile import (
    archive_ownership,
    clean_up,
    clean_up_interrupted,
    describe_run,
    find_run,
    summarize,
)
from paradime_flows.supervision.sweep import Sweep, SweepAction, SweptRun
from paradime_flows.supervision.time_left import note_start, remaining_seconds
from paradime_flows.supervision.watch import (
    Stop,
    StoppedByPrefect,
    StopRequest,
    cancel_in_prefect,
    check_not_stopped,
    reason_to_stop,
    reason_to_stop_if_known,
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
    "cancel_in_prefect",
    "candidates",
    "check_not_stopped",
    "clean_up",
    "clean_up_family",
    "clean_up_if_cancelled_before",
    "clean_up_if_cancelled_meanwhile",
    "clean_up_interrupted",
    "describe_run",
    "find_run",
    "is_cancelled",
    "keep_alive",
    "lives_in_other_process",
    "may_live",
    "note_start",
    "reason_to_stop",
    "reason_to_stop_if_known",
    "remaining_seconds",
    "remember_credentials",
    "stop_request",
    "summarize",
    "unless_stopped",
]
