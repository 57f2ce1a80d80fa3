"""Watches flow runs and cleans up Bolt runs that nobody waits for. Other packages import these names."""

from paradime_flows.supervision.cancellation import clean_up_family, clean_up_if_cancelled_before, keep_alive
from paradime_flows.supervision.decide import Action, Event, decide, event_of, interrupt_policy
from paradime_flows.supervision.orphans import candidates, idle_seconds
from paradime_flows.supervision.reconcile import (
    archive_of,
    clean_up_interrupted,
    describe_run,
    find_run,
    reconcile_run,
    remaining_seconds,
)
from paradime_flows.supervision.resume_suspended import PAUSE_KEY, resume_suspended
from paradime_flows.supervision.sweep import Sweep, SweepAction, SweptRun
from paradime_flows.supervision.watch import (
    StoppedByPrefect,
    StopRequest,
    check_not_stopped,
    is_cancelled,
    reason_in,
    reason_to_stop_if_known,
    stop_request,
    unless_stopped,
)
