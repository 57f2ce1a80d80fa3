"""Holds a slot of a global concurrency limit of Prefect, with the client of the event loop.

Prefect's own `concurrency` opens three clients and starts two threads for each slot. Here, a slot costs only the
requests that take it, renew its lease and release it. But code that blocks the event loop for longer than a quarter of
the lease may lose the slot. And if the event loop ends during the request for the slot, the slot is free only when its
lease has expired. Prefect's events about the slot are not sent.
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

_RENEWED_AFTER: Final = 0.75
_RENEWED_AGAIN_AFTER: Final = 0.1


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
    """Take the slot, and hold it until `release` is set. `answered` gets the error if Prefect cannot give the slot."""
    try:
        async with prefect_client() as client:
            lease = await _take(client, name, release)
            if lease is None:
                return
            try:
                answered.set_result(None)
                await _renew(client, name, lease, release)
            finally:
                await client.release_concurrency_slots_with_lease(lease)
    except Exception as error:  # noqa: BLE001 - the caller continues without the slot; an unreleased slot expires
        if not answered.done():
            answered.set_result(error)


async def _take(client: PrefectClient, name: str, given_up: asyncio.Event) -> UUID | None:
    """Return the lease on the slot; None if the slot was taken until `given_up` was set."""
    is_made = False
    while True:
        try:
            answer = await client.increment_concurrency_slots_with_lease(
                [name], 1, "concurrency", times().lease_seconds
            )
        except httpx.HTTPStatusError as refused:
            if refused.response.status_code != httpx.codes.LOCKED:
                raise
            with anyio.move_on_after(float(refused.response.headers["Retry-After"])):
                await given_up.wait()
                return None
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


async def _renew(client: PrefectClient, name: str, lease: UUID, release: asyncio.Event) -> None:
    """Renew the lease again and again, so that it expires only after the process has died."""
    pause = _RENEWED_AFTER
    while True:
        with anyio.move_on_after(pause * times().lease_seconds):
            await release.wait()
            return
        try:
            await client.renew_concurrency_lease(lease, times().lease_seconds)
            pause = _RENEWED_AFTER
        except Exception as error:  # noqa: BLE001 - the run continues, also without the slot
            if pause == _RENEWED_AFTER:
                run_logger().warning("Prefect did not renew the lease on the slot of %s: %s", name, error)
            pause = _RENEWED_AGAIN_AFTER
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.GONE:
                # A lease that has expired cannot be renewed.
                await release.wait()
