"""Computes how much time a Bolt run has left until its time limit, by clocks that nobody can change.

The process that triggered the Bolt run uses its own monotonic clock. Another process uses the time in the record and
Bolt's clock. If Bolt's time is unknown, the other process uses the clock of its machine, which somebody can change.
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
    """Store when the time limit of a Bolt run began, by the monotonic clock of this process."""
    the_supervisor().of(ownership.flow_run_id).began[_mark(ownership, run_id)] = began


async def remaining_seconds(ownership: Ownership, credentials: ParadimeCredentials, limit: float) -> float:
    """Return how many seconds a Bolt run has left until its time limit, from 0 to the limit.

    Args:
        ownership: The record of the Bolt run.
        credentials: The credentials of the workspace.
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
        # If Bolt is unreachable, the wait after this handles the outage.
        with suppress(BoltError), anyio.move_on_after(times().bolt_time_seconds):
            async with credentials.get_client() as client:
                await client.get_bolt_run(ownership.run_id, logs=False)
                now = client.bolt_time()
        if now is not None:
            return max(0.0, min(limit, intended + limit - now))
    return max(0.0, ownership.remaining_seconds(limit))
