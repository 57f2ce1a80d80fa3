"""Counts the signals that an execution of a flow run receives, from its first task on, in all of its threads.

The import of this module installs signal handlers (`paradime_blocks.signals`). The handlers only count signals.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from paradime_blocks.signals import SignalCount, have_main_thread_listen, listen_for_interrupts
from paradime_flows.prefect_api.context import current_execution, current_flow_run_id
from paradime_flows.prefect_api.supervisor import the_supervisor
from paradime_flows.time_limits import times

# A program may import our flows and tasks in the main thread, and call them only in other threads.
have_main_thread_listen()


def count_signals() -> SignalCount:
    """Count the signals for this execution from the first call on, also between its waits and tasks."""
    counts = the_supervisor().of(current_flow_run_id()).signals
    execution = current_execution()
    if execution not in counts:
        new = SignalCount()
        if counts.setdefault(execution, new) is not new:
            # Another thread has stored its count first.
            new.end()
    # At the first call, the main thread may not have installed its handlers yet.
    listen_for_interrupts()
    return counts[execution]


class SwallowedSignals:
    """Finds a SIGTERM that asyncio has swallowed, and sends it again.

    Args:
        count: The signals of the execution.
    """

    def __init__(self, count: SignalCount) -> None:
        self._count = count
        self._seen = 0

    def check(self) -> None:
        """Send a swallowed signal again. The first check only notes the signal, and the second check sends it.

        Between the two checks, the signal has time to end the work of the main thread.
        """
        had = self._count.terminations
        if had == self._seen:
            self._count.send_again_if_swallowed()
        self._seen = had


@asynccontextmanager
async def resend_swallowed_signals() -> AsyncIterator[None]:
    """If asyncio swallows a SIGTERM during the `with` block, send it again, as a wait does."""
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
