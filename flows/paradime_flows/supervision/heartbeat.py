"""Heartbeats of a flow run's process, so that the sweeper can distinguish a long wait from a lost machine.

The observer of the process refreshes the label of the process's lease on the flow run, whatever the flow's own code
does. Prefect's own heartbeats are events: they can be switched off, and are not read together with the flow run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from paradime_flows.ledger import Record, give_sign_of_life, last_sign_of_life, lost_lease
from paradime_flows.prefect_api import (
    Observed,
    outermost_of,
    prefect_client,
    the_observer,
    the_supervisor,
    times,
)


async def keep_alive(
    client: PrefectClient, flow_run: FlowRun, check: Callable[[PrefectClient, FlowRun], Awaitable[None]]
) -> None:
    """Write heartbeats of this process until a flow run is over or another process runs it.

    The lease was the first heartbeat. The observer's thread calls `check` each time that the flow run is read, and when
    the flow run is over.
    """
    known = the_supervisor().of(flow_run.id)
    outermost = await outermost_of(client, flow_run)
    # Another task of the flow run may have started the heartbeats in the meantime.
    if known.alive_for is not None:
        return
    known.alive_for = outermost
    interval = min(times().watch_interval_seconds, times().beat_seconds)
    observed = Observed(flow_run.id, interval, min(times().rarely_seconds, times().beat_seconds))
    next_beat = time.monotonic() + times().beat_seconds

    async def on_read(client: PrefectClient, family: list[FlowRun]) -> None:
        nonlocal next_beat
        state = family[0].state if family else None
        is_over = not family or lost_lease(family[0]) or (state is not None and state.is_final())
        # A flow run is read at intervals, so the heartbeat is written a little too early, not too late.
        if not is_over and time.monotonic() + interval >= next_beat:
            await give_sign_of_life(client, family[0].id)
            next_beat = time.monotonic() + times().beat_seconds
        if family:
            await check(client, family[0])
        if is_over:
            the_observer().remove(observed)
            known.alive_for = None

    observed.on_read = on_read
    the_observer().add(observed)


@asynccontextmanager
async def alive_for_another(record: Record) -> AsyncIterator[None]:
    """Write heartbeats for a flow run whose process is gone, while this process tracks its Bolt run."""

    async def beat_on() -> None:
        while True:
            with suppress(Exception):
                async with prefect_client() as client:
                    await give_sign_of_life(client, record.flow_run_id, record.lease)
            await asyncio.sleep(times().beat_seconds)

    beats = asyncio.create_task(beat_on())
    try:
        yield
    finally:
        beats.cancel()


def silent_seconds(flow_run: FlowRun) -> float | None:
    """Return the age of the last heartbeat of a flow run's process, in seconds; None without a heartbeat."""
    at = last_sign_of_life(flow_run.labels)
    return None if at is None else max(0.0, time.time() - at)
