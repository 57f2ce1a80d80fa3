"""How much of its time a Bolt run has left, by clocks that do not jump.

This process knows by its own monotonic clock when it triggered. Another one has only what is written down: then
Bolt's clock tells, and a machine's own, which somebody can set, only where Bolt's is not known.
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
    """Note when the time of a run began to count, by the monotonic clock of this process."""
    the_supervisor().of(ownership.flow_run_id).began[_mark(ownership, run_id)] = began


async def remaining_seconds(ownership: Ownership, credentials: ParadimeCredentials, limit: float) -> float:
    """Return what is left of a run's time limit, in seconds: never more than the limit, nor less than nothing.

    Args:
        ownership: What answers for the run.
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
        # Whoever waits next has the patience for an outage.
        with suppress(BoltError), anyio.move_on_after(times().bolt_time_seconds):
            async with credentials.get_client() as client:
                await client.get_bolt_run(ownership.run_id, logs=False)
                now = client.bolt_time()
        if now is not None:
            return max(0.0, min(limit, intended + limit - now))
    return max(0.0, ownership.remaining_seconds(limit))
