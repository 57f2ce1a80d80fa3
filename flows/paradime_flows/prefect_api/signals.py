"""Signals as a body of a flow run hears of them: from its first task on, between its waits, in all of its threads.

To import this is to listen (`paradime_blocks.signals`): nothing but a count comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from paradime_blocks.signals import (
    have_main_thread_listen,
    interrupts_so_far,
    listen_for_interrupts,
    send_again_if_swallowed,
    terminations_so_far,
)
from paradime_flows.prefect_api.context import current_body, current_flow_run_id
from paradime_flows.prefect_api.timing import timing

# Whoever reads our flows or tasks may call them from threads only.
have_main_thread_listen()


@dataclass(frozen=True)
class Heard:
    """How many signals there had been when a body of a flow run first listened; later ones are for it."""

    interrupts: int = field(default_factory=interrupts_so_far)
    terminations: int = field(default_factory=terminations_so_far)


_heard_before: dict[tuple[UUID | None, str], Heard] = {}


def hear_signals() -> Heard:
    """Hear of signals from the first time on that a body calls this: between two of its waits and tasks, too."""
    listen_for_interrupts()
    return _heard_before.setdefault((current_flow_run_id(), current_body()), Heard())


class Swallowed:
    """Looks for a SIGTERM that asyncio has swallowed, and has it sent again.

    Args:
        known: How many had come before the body began to listen.
    """

    def __init__(self, known: int) -> None:
        self._known = known
        self._seen = known

    def look(self) -> None:
        """Look; at the second look that finds one, it has had the time to end what the main thread is at."""
        had = terminations_so_far()
        if had == self._seen:
            send_again_if_swallowed(self._known)
        self._seen = had


@asynccontextmanager
async def swallowed_signals_sent_again() -> AsyncIterator[None]:
    """Hear of a SIGTERM that asyncio swallows within, as a wait does; nothing else is watched."""
    swallowed = Swallowed(hear_signals().terminations)

    async def listen() -> None:
        while True:
            swallowed.look()
            await asyncio.sleep(timing().signal_interval_seconds)

    listener = asyncio.create_task(listen())
    try:
        yield
    finally:
        listener.cancel()
