"""Counts the signals that the process receives during an execution of a flow run.

The count starts at the first task of this package. When this module is imported, it installs signal handlers
(`paradime_blocks.signals`). The handlers only count signals.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from paradime_blocks.signals import SignalCount, have_main_thread_listen, listen_for_interrupts
from paradime_flows.prefect_api.context import current_execution, current_flow_run_id
from paradime_flows.prefect_api.supervisor import the_supervisor
from paradime_flows.time_limits import times

_RUNS_AGAIN = {"reschedule", "relinquish"}

# Only the main thread can install signal handlers. A program may import this package in the main thread, and call the
# flows and tasks only in other threads.
have_main_thread_listen()


def is_rescheduled() -> bool:
    """Whether Prefect starts the flow run of this process again after a SIGTERM.

    On Kubernetes and on ECS, Prefect does this after an eviction, for example.
    """
    return os.environ.get("PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", "").lower() in _RUNS_AGAIN


def count_signals() -> SignalCount:
    """Return the count of the signals of this execution.

    The first call starts the count. The count also continues while no task is running.
    """
    counts = the_supervisor().of(current_flow_run_id()).signals
    execution = current_execution()
    if execution not in counts:
        new = SignalCount()
        if counts.setdefault(execution, new) is not new:
            # Another thread has stored a count for this execution in the meantime. That count is used.
            new.end()
    # The main thread may not have installed the signal handlers yet.
    listen_for_interrupts()
    return counts[execution]


class SwallowedSignals:
    """Finds a SIGTERM that asyncio has swallowed, and sends SIGTERM to this process again.

    Args:
        count: The count of the signals that the execution has received.
    """

    def __init__(self, count: SignalCount) -> None:
        self._count = count
        self._seen = 0

    def check(self) -> None:
        """Note a new signal, or send a signal again that an earlier check has noted.

        Between the two checks, the signal has time to end the work of the main thread. If the work has not ended by
        the second check, the signal counts as swallowed.
        """
        had = self._count.terminations
        if had == self._seen:
            self._count.send_again_if_swallowed()
        self._seen = had


@asynccontextmanager
async def resend_swallowed_signals() -> AsyncIterator[None]:
    """If asyncio swallows a SIGTERM during the `with` block, send SIGTERM to this process again."""
    swallowed = SwallowedSignals(count_signals())

    async def listen() -> None:
        while True:
            swallowed.check()
            await asyncio.sleep(times().signal_interval_seconds)

    listener = asyncio.create_task(listen())
    try:
        yield
    finally:
        listener.cancel()
