"""Heartbeats of a flow run's process, so that the sweeper can distinguish a long wait from a lost machine.

The observer of the process refreshes the label of the process's lease on the flow run, whatever the flow's own code
does. Prefect's own heartbeats are events: they can be switched off, and are not read together with the flow run.
"""

from __future__ import annotations

import time

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from paradime_flows.ledger import give_sign_of_life, lost_lease
from paradime_flows.prefect_api import Observed, the_observer, the_supervisor, times
from paradime_flows.supervision.cancellation import clean_up_if_cancelled_meanwhile


def keep_alive(flow_run: FlowRun) -> None:
    """Write heartbeats of this process until a flow run is over or another process runs it. The lease was the first.

    Each time that the observer's thread reads the flow run, it also cleans up if the flow run was cancelled.
    """
    known = the_supervisor().of(flow_run.id)
    # Another task of the flow run may have started the heartbeats.
    if known.is_alive:
        return
    known.is_alive = True
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
            await clean_up_if_cancelled_meanwhile(client, family[0])
        if is_over:
            the_observer().remove(observed)
            known.is_alive = False

    observed.on_read = on_read
    the_observer().add(observed)
