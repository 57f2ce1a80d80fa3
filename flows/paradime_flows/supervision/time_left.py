"""Computes how much time a Bolt run has left until its time limit.

If somebody sets the clock of a machine, the result must not change. So while the record that triggered the Bolt run
is in memory, the monotonic clock counts. Later, the record says when the trigger was sent by Bolt's clock, and Bolt is
asked for the present time. Only if Bolt's time is unknown, the clock of the machine counts.
"""

from __future__ import annotations

import time
from contextlib import suppress

import anyio

from paradime_blocks import BoltError, ParadimeCredentials
from paradime_flows.ledger import Record, Relation
from paradime_flows.prefect_api import times


async def remaining_seconds(record: Record, credentials: ParadimeCredentials, limit: float) -> float:
    """Return how many seconds a Bolt run has left until its time limit, from 0 to the limit."""
    if record.run_id is None:
        return limit
    if record.began_here is not None:
        return max(0.0, limit - (time.monotonic() - record.began_here))
    intent = record.intent if record.relation is Relation.OURS else None
    if intent is not None and intent.bolt_time is not None:
        now = None
        # If Bolt is unreachable, the error is ignored here. The wait for the Bolt run will handle the outage.
        with suppress(BoltError), anyio.move_on_after(times().bolt_time_seconds):
            async with credentials.get_client() as client:
                await client.get_bolt_run(record.run_id, logs=False)
                now = client.bolt_time()
        if now is not None:
            return max(0.0, min(limit, intent.bolt_time + limit - now))
    return max(0.0, record.remaining_seconds(limit))
