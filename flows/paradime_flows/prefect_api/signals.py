"""Notes the signals of the process as soon as this module is imported, and counts them for each execution."""

from __future__ import annotations

import os
import time

from paradime_blocks.signals import listen_for_signals
from paradime_flows.prefect_api.context import current_execution, current_flow_run_id
from paradime_flows.prefect_api.supervisor import the_supervisor

listen_for_signals()


def is_rescheduled() -> bool:
    """Whether Prefect starts this process's flow run again after a SIGTERM, as it can on Kubernetes and on ECS."""
    behavior = os.environ.get("PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", "").lower()
    return behavior in {"reschedule", "relinquish"}


def count_signals() -> float:
    """Count the signals for this execution from the first call on; return the time of this call (monotonic clock).

    The first call is at the first task of this package. So a signal also counts if it comes between two tasks.
    """
    # When this module was imported, an event loop may have received the signals.
    listen_for_signals()
    since = the_supervisor().of(current_flow_run_id()).signals_since
    return since.setdefault(current_execution(), time.monotonic())
