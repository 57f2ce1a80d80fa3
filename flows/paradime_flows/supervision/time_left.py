"""How much of its time limit a Bolt run has left, by clocks that nobody sets.

The process that triggered uses its own monotonic clock. Another process uses the recorded time and Bolt's clock; only
if Bolt's time is unknown, it uses the clock of its machine, which somebody can set.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from paradime_blocks import BoltError, ParadimeCredentials
from paradime_flows.prefect_api import current_execution, the_supervisor, times

if TYPE_CHECKING:
    from paradime_flows.ledger import Ownership


def _mark(ownership: Ownership, run_id: int) -> tuple[str, str, int]:
    return current_execution(), ownership.api_endpoint, run_id


def note_start(ownership: Ownership, run_id: int, began: float) -> None:
    """Store when the time limit of a run began, by the monotonic clock of this process."""
    the_supervisor().of(ownership.flow_run_id).began[_mark(ownership, run_id)] = began


async def remaining_seconds(ownership: Ownership, credentials: ParadimeCredentials, limit: float) -> float:
    """Return the rest of a run's time limit, in seconds, from 0 to the limit.

    Args:
        ownership: The record of the run.
        credentials: The credentials of its workspace.
        limit: The time limit, in seconds from the trigger.
    """
    if ownership.run_id is None:
        return limit
    began = the_supervisor().of(ownership.flow_run_id).began.get(_mark(ownership, ownership.run_id))
    if began is not None:
        return max(0.0, limit - (time.monotonic() - began))
    intended = ownership.intent.bolt_time if ownership.intent is not None and ownership.owned else None
    if intended is not None:
        now = None
        # The wait that follows handles an outage.
        with suppress(BoltError), anyio.move_on_after(times().bolt_time_seconds):
            async with credentials.get_client() as client:
                await client.get_bolt_run(ownership.run_id, logs=False)
                now = client.bolt_time()
        if now is not None:
            return max(0.0, min(limit, intended + limit - now))
    return max(0.0, ownership.remaining_seconds(limit))
