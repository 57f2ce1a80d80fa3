"""Triggers at most one Bolt run per request. Other packages import from here."""

from paradime_blocks.trigger.decision_log import DecisionLog
from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest, fingerprint_of
from paradime_blocks.trigger.search import (
    Finding,
    Fit,
    checked_out,
    find_triggered_run,
    first_of,
    longest_request_seconds,
)
from paradime_blocks.trigger.send import Trigger
