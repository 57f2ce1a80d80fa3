"""One flow run at a time for each schedule: a Prefect global concurrency limit, made on demand.

Bolt itself refuses a second run of a schedule that runs. The slot makes our own flow runs queue before they
ask, keeps a schedule theirs between a failure and its retry, and holds where Bolt would allow two. A slot
that cannot be had because Prefect is in trouble must not cost a run: then there is none.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import AcquireConcurrencySlotTimeoutError, concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from slugify import slugify

from paradime_flows.prefect_api.timing import timing

if TYPE_CHECKING:
    from paradime_blocks.schedule import BoltSchedule
    from paradime_blocks.trigger.decision_log import Trail


class SlotTaken(Exception):
    """Another flow run held the slot for as long as it was waited for."""


def slot_name(schedule: BoltSchedule) -> str:
    """Return the name of a schedule's concurrency limit, the same in every process.

    Prefect forbids some characters in it, so a schedule's name that has any is told apart by a hash.

    Args:
        schedule: The schedule.
    """
    settings = schedule.credentials
    workspace = hashlib.sha256(
        f"{settings.api_endpoint} {settings.workspace_uid or ''}".encode()
    ).hexdigest()[:10]
    label = schedule.schedule_name
    plain = slugify(label, lowercase=False, regex_pattern=r"[^-a-zA-Z0-9_.]+")
    if plain != label:
        plain = f"{plain[:60]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return f"paradime-bolt:{workspace}:{plain}"


async def make_limit(name: str) -> None:
    """Make a limit of one, unless there is a limit of that name: a person may have changed it on purpose."""
    async with get_client() as client:
        try:
            await client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):
                await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))


@asynccontextmanager
async def schedule_slot(name: str, trail: Trail, *, wait_seconds: float) -> AsyncIterator[None]:
    """Hold the schedule's slot within, if Prefect can give it.

    The slot is held by an asyncio task of its own: its lease must not depend on the caller's cancel scopes.

    Args:
        name: The slot's name.
        trail: Where waiting, and doing without, is told.
        wait_seconds: How long to wait for it.

    Raises:
        SlotTaken: Another flow run held it all the time.
    """
    acquired: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    release = asyncio.Event()
    holder = asyncio.create_task(_hold(name, wait_seconds, acquired, release), name=f"slot of {name}")
    try:
        told_after = min(wait_seconds, timing().slot_told_after_seconds)
        done, _ = await asyncio.wait([acquired], timeout=told_after)
        if not done and wait_seconds > told_after:
            trail.note(
                "Waiting for the schedule's concurrency slot: another flow run may drive the schedule."
            )
            # Prefect's own limit begins late where several of one process wait for the same.
            done, _ = await asyncio.wait([acquired], timeout=wait_seconds - told_after)
        if not done:
            raise SlotTaken(name)
        try:
            acquired.result()
        except AcquireConcurrencySlotTimeoutError:
            raise SlotTaken(name) from None
        except Exception as error:  # noqa: BLE001 - see the module's docstring
            trail.note(f"Prefect could not give the schedule's concurrency slot; going on without ({error}).")
        yield
    finally:
        release.set()
        if not acquired.done():
            holder.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([holder], timeout=timing().slot_release_seconds)


async def _hold(
    name: str, wait_seconds: float, acquired: asyncio.Future[None], release: asyncio.Event
) -> None:
    try:
        await make_limit(name)
        async with concurrency(
            name, occupy=1, timeout_seconds=wait_seconds, strict=False, lease_duration=timing().lease_seconds
        ):
            if not acquired.done():
                acquired.set_result(None)
            await release.wait()
    except Exception as error:  # noqa: BLE001 - told to who waits; a slot that cannot be given back ends with its lease
        if not acquired.done():
            acquired.set_exception(error)
    finally:
        acquired.cancel()
