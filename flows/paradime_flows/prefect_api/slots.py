"""Holds a slot of a global concurrency limit of Prefect, with the client of the event loop.

Prefect's own `concurrency` opens three clients and starts two threads for each slot, and renews the lease of the slot
as soon as it has the slot. Here, a slot costs only the requests that take it, renew its lease and release it. But code
that blocks the event loop for longer than a quarter of the lease may lose the slot. And if the event loop ends
during the request for the slot, the slot is free only when its lease has expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import httpx
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse
from prefect.events import emit_event
from prefect.exceptions import ObjectAlreadyExists

from paradime_blocks.polling import Deadline
from paradime_flows.prefect_api.client import prefect_client
from paradime_flows.prefect_api.context import run_logger
from paradime_flows.time_limits import times

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.events import Event

_RENEWED_AFTER: Final = 0.75
_RENEWED_AGAIN_AFTER: Final = 0.1


class SlotTaken(Exception):
    """The wait for the slot has ended, and another flow run still holds the slot."""


@asynccontextmanager
async def concurrency_slot(name: str, wait_seconds: float, given_up: asyncio.Event) -> AsyncIterator[None]:
    """Hold a slot of a limit during the `with` block. If the limit does not exist, it is created with one slot.

    Args:
        name: The name of the limit.
        wait_seconds: How long to wait for the slot.
        given_up: An event that is set when nobody waits for the slot any more. A request for the slot is not
            interrupted, because its answer would be lost, and the slot would be taken until its lease has expired.

    Raises:
        SlotTaken: The wait has ended, and another flow run still holds the slot.
        Exception: Prefect could not give the slot.
    """
    async with prefect_client() as client:
        taken = await _take(client, name, wait_seconds, given_up)
        acquired = _emit("acquired", taken)
        renewals = asyncio.create_task(_renew(client, name, taken), name=f"lease of {name}")
        try:
            yield
        finally:
            renewals.cancel()
            await client.release_concurrency_slots_with_lease(taken.lease_id)
            _emit("released", taken, acquired)


async def _take(
    client: PrefectClient, name: str, wait_seconds: float, given_up: asyncio.Event
) -> ConcurrencyLimitWithLeaseResponse:
    deadline, is_made = Deadline(wait_seconds), False
    while not given_up.is_set():
        try:
            answer = await client.increment_concurrency_slots_with_lease(
                [name], 1, "concurrency", times().lease_seconds
            )
        except httpx.HTTPStatusError as refused:
            if refused.response.status_code != httpx.codes.LOCKED:
                raise
            if deadline.passed:
                break
            pause = min(float(refused.response.headers["Retry-After"]), deadline.remaining or 0.0)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(given_up.wait(), pause)
            continue
        taken = ConcurrencyLimitWithLeaseResponse.model_validate(answer.json())
        if taken.limits:
            return taken
        if is_made:
            msg = "The concurrency limit is not active."
            raise RuntimeError(msg)
        # The limit nearly always exists. So the limit is not read before the first request for the slot.
        await make_limit(name)
        is_made = True
    raise SlotTaken(name)


async def make_limit(name: str) -> None:
    """Create a limit with one slot, unless a limit of that name exists.

    An existing limit is not changed, because a person may have changed its number of slots on purpose.
    """
    async with prefect_client() as client:
        with suppress(ObjectAlreadyExists):
            await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))


async def _renew(client: PrefectClient, name: str, taken: ConcurrencyLimitWithLeaseResponse) -> None:
    """Renew the lease again and again, so that it expires only after the process has died."""
    seconds = times().lease_seconds
    pause = _RENEWED_AFTER * seconds
    while True:
        await asyncio.sleep(pause)
        try:
            await client.renew_concurrency_lease(taken.lease_id, seconds)
            pause = _RENEWED_AFTER * seconds
        except Exception as error:  # noqa: BLE001 - the run continues, also without the slot
            is_lost = (
                isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.GONE
            )
            if is_lost or pause > _RENEWED_AGAIN_AFTER * seconds:
                run_logger().warning("Prefect did not renew the lease on the slot of %s: %s", name, error)
            if is_lost:
                return
            pause = _RENEWED_AGAIN_AFTER * seconds


def _emit(phase: str, taken: ConcurrencyLimitWithLeaseResponse, follows: Event | None = None) -> Event | None:
    """Send the event that Prefect's own `concurrency` sends."""
    (limit,) = taken.limits
    resource = {
        "prefect.resource.id": f"prefect.concurrency-limit.{limit.id}",
        "prefect.resource.name": limit.name,
        "slots-acquired": "1",
        "limit": str(limit.limit),
    }
    return emit_event(f"prefect.concurrency-limit.{phase}", resource=resource, follows=follows)
