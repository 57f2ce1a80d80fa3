"""One flow run at a time for each schedule: a Prefect global concurrency limit, made on demand.

Bolt itself refuses a second run of a schedule that runs. The slot makes our own flow runs queue before they
ask, keeps a schedule theirs between a failure and its retry, and holds where Bolt would allow two. A slot
that cannot be had because Prefect is in trouble must not cost a run: then there is none.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import AcquireConcurrencySlotTimeoutError, concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from slugify import slugify

from paradime_blocks import BoltAlreadyRunning, BoltRun, BoltRunState, BoltSchedule
from paradime_blocks.polling import Deadline
from paradime_flows.prefect_api import times
from paradime_flows.runner.conflict import ATTACHING, Skipped
from paradime_flows.supervision import unless_stopped

if TYPE_CHECKING:
    from paradime_blocks.trigger import DecisionLog
    from paradime_flows.runner.lifecycle import RunLifecycle


class SlotTaken(Exception):
    """Another flow run held the slot for as long as it was waited for."""


async def hold_slot(lifecycle: RunLifecycle, stack: AsyncExitStack) -> None:
    """Take the schedule's concurrency slot, as far as `on_already_running` allows waiting for it.

    Args:
        lifecycle: For whom.
        stack: Gives it back at its end.

    Raises:
        Skipped: Another flow run holds it, and the policy is to skip; where Bolt runs nothing, for longer than one that
            was killed could. A failure that nobody has been told of is not skipped, but no longer retried.
        BoltAlreadyRunning: The same where the policy is to fail, or for as long as it waits.
    """
    flow_run_id = lifecycle.ownership.flow_run_id
    if lifecycle.ownership.refused is not None:
        # What holds the slot, or stands in the way, can be a run of our own.
        search = partial(lifecycle.triggering.has_run_behind_refusal, lifecycle.ownership.request)
        await unless_stopped(search, flow_run_id)
    needs_none = _has_run_to_track(lifecycle)
    waits = lifecycle.policies.on_already_running == "wait" and not needs_none
    dead = Deadline(times().slot_dead_seconds)
    while True:
        left = max(lifecycle.triggering.waiting.remaining or 0.0, 0.0)
        slot = schedule_slot(
            slot_name(lifecycle.schedule),
            lifecycle.decision_log,
            wait_seconds=left if waits else times().slot_try_seconds,
        )
        with suppress(SlotTaken):
            await unless_stopped(partial(stack.enter_async_context, slot), flow_run_id)
            return
        if needs_none:
            lifecycle.decision_log.note(
                "Another flow run in Prefect drives the schedule; our run is looked after."
            )
            return
        if await _continue_without_slot(lifecycle, dead):
            return


def _fails(lifecycle: RunLifecycle) -> bool:
    """Whether there is a failure that nobody has been told of."""
    return lifecycle.ownership.is_unreported and lifecycle.ownership.state in BoltRunState.FAILURES


def _has_run_to_track(lifecycle: RunLifecycle) -> bool:
    """Whether there is a run that must be looked after at once: its time limit runs.

    One that has ended, and is not to be retried, needs no slot either.
    """
    ownership = lifecycle.ownership
    if ownership.state == BoltRunState.SUCCESS:
        return True
    has_run = ownership.has_unknown_run or (ownership.is_unreported and ownership.run_id is not None)
    return has_run and not (_fails(lifecycle) and lifecycle.policies.retries > 0)


async def _continue_without_slot(lifecycle: RunLifecycle, dead: Deadline) -> bool:
    """Do as the policy says where another flow run holds the slot.

    Args:
        lifecycle: For whom.
        dead: Whoever holds it for longer than this lives.

    Returns:
        Whether to go on without the slot; if not, it is to be waited for again.
    """
    policy, waiting = lifecycle.policies.on_already_running, lifecycle.triggering.waiting
    other, runs = await lifecycle.triggering.conflicting_run()
    if not runs and policy != "wait" and not dead.passed and not waiting.passed:
        # It is between two runs, a failure and its retry; or it was killed, and its lease has not ended yet.
        return False
    if policy == "skip" and other is not None:
        await _skip(lifecycle, other)
        return True
    if policy in {*ATTACHING, "replace"} and runs:
        # Bolt refuses a second run, and then the policy says what to do.
        lifecycle.decision_log.note(
            "Another flow run in Prefect drives the schedule; asking Bolt all the same."
        )
        return True
    if policy in {"wait", "fail"} or waiting.passed:
        msg = "Another flow run in Prefect drives the schedule."
        raise BoltAlreadyRunning(msg, schedule_name=lifecycle.ownership.schedule)
    # It is between two runs: neither one to attach to nor one to replace.
    return False


async def _skip(lifecycle: RunLifecycle, other: BoltRun) -> None:
    if _fails(lifecycle) and lifecycle.policies.retries > 0:
        lifecycle.stop_retrying("Another flow run in Prefect drives the schedule")
        return
    why = f"Another flow run in Prefect drives the schedule (its latest Bolt run: {other.run_id})"
    skipped = Skipped(other, await other.astate(), why)
    lifecycle.decision_log.note(str(skipped))
    raise skipped


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
async def schedule_slot(name: str, decision_log: DecisionLog, *, wait_seconds: float) -> AsyncIterator[None]:
    """Hold the schedule's slot within, if Prefect can give it.

    The slot is held by an asyncio task of its own: its lease must not depend on the caller's cancel scopes.

    Args:
        name: The slot's name.
        decision_log: Where waiting, and doing without, is told.
        wait_seconds: How long to wait for it.

    Raises:
        SlotTaken: Another flow run held it all the time.
    """
    acquired: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    release = asyncio.Event()
    holder = asyncio.create_task(_hold(name, wait_seconds, acquired, release), name=f"slot of {name}")
    try:
        told_after = min(wait_seconds, times().slot_told_after_seconds)
        done, _ = await asyncio.wait([acquired], timeout=told_after)
        if not done and wait_seconds > told_after:
            decision_log.note(
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
            decision_log.note(
                f"Prefect could not give the schedule's concurrency slot; going on without ({error})."
            )
        yield
    finally:
        release.set()
        if not acquired.done():
            holder.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([holder], timeout=times().slot_release_seconds)


async def _hold(
    name: str, wait_seconds: float, acquired: asyncio.Future[None], release: asyncio.Event
) -> None:
    try:
        await make_limit(name)
        async with concurrency(
            name, occupy=1, timeout_seconds=wait_seconds, strict=False, lease_duration=times().lease_seconds
        ):
            if not acquired.done():
                acquired.set_result(None)
            await release.wait()
    except Exception as error:  # noqa: BLE001 - told to who waits; a slot that cannot be given back ends with its lease
        if not acquired.done():
            acquired.set_exception(error)
    finally:
        acquired.cancel()
