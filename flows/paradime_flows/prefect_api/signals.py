"""Signals as a body of a flow run hears of them: from its first task on, between its waits, in all of its threads.

To import this is to listen (`paradime_blocks.signals`): nothing but a count comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from paradime_blocks.signals import SignalCount, have_main_thread_listen, listen_for_interrupts
from paradime_flows.prefect_api.context import current_execution, current_flow_run_id
from paradime_flows.prefect_api.supervisor import the_supervisor
from paradime_flows.prefect_api.timing import times

# Whoever reads our flows or tasks may call them from threads only.
have_main_thread_listen()


def hear_signals() -> SignalCount:
    """Hear of signals from the first time on that a body calls this: between two of its waits and tasks, too."""
    counts = the_supervisor().of(current_flow_run_id()).signals
    execution = current_execution()
    if execution not in counts:
        new = SignalCount()
        if counts.setdefault(execution, new) is not new:
            # Another thread was quicker.
            new.end()
    # The main thread may not have listened yet as the first one called this.
    listen_for_interrupts()
    return counts[execution]


class Swallowed:
    """Looks for a SIGTERM that asyncio has swallowed, and has it sent again.

    Args:
        count: The signals that the body has heard of.
    """

    def __init__(self, count: SignalCount) -> None:
        self._count = count
        self._seen = 0

    def look(self) -> None:
        """Look; at the second look that finds one, it has had the time to end what the main thread is at."""
        had = self._count.terminations
        if had == self._seen:
            self._count.send_again_if_swallowed()
        self._seen = had


@asynccontextmanager
async def swallowed_signals_sent_again() -> AsyncIterator[None]:
    """Hear of a SIGTERM that asyncio swallows within, as a wait does; nothing else is watched."""
    swallowed = Swallowed(hear_signals())

    async def listen() -> None:
        while True:
            swallowed.look()
            await asyncio.sleep(times().signal_interval_seconds)

    listener = asyncio.create_task(listen())
    try:
        yield
    finally:
        listener.cancel()
