"""Holds a slot of a global concurrency limit of Prefect, with the client of the event loop.

Prefect's own `concurrency` opens three clients and starts two threads for each slot. Here, a slot costs only the
requests that take it, renew its lease and release it. But code that blocks the event loop for longer than a quarter of
the lease may lose the slot. Prefect's events about the slot are not sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from uuid import UUID

import anyio
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.responses import ConcurrencyLimitWithLeaseResponse
from prefect.exceptions import ObjectAlreadyExists

from paradime_blocks.trigger import DecisionLog
from paradime_flows.prefect_api.client import prefect_client
from paradime_flows.prefect_api.context import run_logger
from paradime_flows.time_limits import times

# The part of a lease after which it is renewed.
_RENEWED_AFTER: Final = 0.75


class SlotTaken(Exception):
    """The wait for the slot has ended, and another flow run still holds the slot."""


@asynccontextmanager
async def schedule_slot(name: str, decision_log: DecisionLog, *, wait_seconds: float) -> AsyncIterator[None]:
    """Hold the slot of a limit during the `with` block. If Prefect cannot give the slot, continue without it.

    A separate asyncio task holds the slot. So a cancel scope of the caller can neither end the lease on the slot, nor
    interrupt a request for the slot, whose answer would be lost. Raises `SlotTaken`.
    """
    answered: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    release = asyncio.Event()
    holder = asyncio.create_task(_hold(name, answered, release), name=f"slot of {name}")
    why = (
        "Waiting for the schedule's concurrency slot. Another flow run or a killed attempt of this one may hold the "
        "slot, or Prefect is slow."
    )
    telling = answered.get_loop().call_later(times().slot_log_after_seconds, decision_log.note, why)
    try:
        await asyncio.wait([answered], timeout=wait_seconds)
        telling.cancel()
        if not answered.done():
            raise SlotTaken(name)
        if (error := answered.result()) is not None:
            decision_log.note(
                f"Prefect could not give the schedule's concurrency slot; continuing without the slot ({error})."
            )
        yield
    finally:
        telling.cancel()
        release.set()
        with anyio.CancelScope(shield=True):
            # If Prefect gives the slot after this time, the holder releases the slot then.
            await asyncio.wait([holder], timeout=times().slot_release_seconds)


async def _hold(name: str, answered: asyncio.Future[Exception | None], release: asyncio.Event) -> None:
    """Take the slot, and renew its lease until `release` is set, so that the lease expires after a kill of the process.

    `answered` gets None, or the error because of which Prefect cannot give the slot.
    """
    try:
        async with prefect_client() as client:
            lease = await _take(client, name, release)
            if lease is None:
                return
            try:
                answered.set_result(None)
                while True:
                    with anyio.move_on_after(_RENEWED_AFTER * times().lease_seconds):
                        await release.wait()
                        break
                    await client.renew_concurrency_lease(lease, times().lease_seconds)
            finally:
                await client.release_concurrency_slots_with_lease(lease)
    except Exception as error:  # noqa: BLE001 - the caller continues without the slot; an unreleased slot expires
        if answered.done():
            run_logger().warning("Could not keep or release the slot of %s: %s", name, error)
        else:
            answered.set_result(error)


async def _take(client: PrefectClient, name: str, given_up: asyncio.Event) -> UUID | None:
    """Return the lease on the slot; None if the slot was taken until `given_up` was set."""
    is_made = False
    while not given_up.is_set():
        try:
            answer = await client.increment_concurrency_slots_with_lease(
                [name], 1, "concurrency", times().lease_seconds
            )
        except httpx.HTTPStatusError as refused:
            if refused.response.status_code != httpx.codes.LOCKED:
                raise
            with anyio.move_on_after(float(refused.response.headers["Retry-After"])):
                await given_up.wait()
            continue
        taken = ConcurrencyLimitWithLeaseResponse.model_validate(answer.json())
        if taken.limits:
            return taken.lease_id
        if is_made:
            raise RuntimeError("The concurrency limit is not active.")
        # The limit nearly always exists, so it is not read first. A limit that exists is not changed: a person may have
        # changed its number of slots on purpose.
        with suppress(ObjectAlreadyExists):
            await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
        is_made = True
    return None
