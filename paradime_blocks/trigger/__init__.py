"""Triggers at most one Bolt run per request. Other packages import from here."""

from paradime_blocks.trigger.decision_log import DecisionLog
from paradime_blocks.trigger.request import TriggerIntent, TriggerRequest
from paradime_blocks.trigger.search import (
    Finding,
    Fit,
    Verdict,
    checked_out,
    find_triggered_run,
    first_of,
    longest_request_seconds,
    unknown_trigger,
)
from paradime_blocks.trigger.send import Trigger

__all__ = [
    "DecisionLog",
    "Finding",
    "Fit",
    "Trigger",
    "TriggerIntent",
    "TriggerRequest",
    "Verdict",
    "checked_out",
    "find_triggered_run",
    "first_of",
    "longest_request_seconds",
    "unknown_trigger",
]
