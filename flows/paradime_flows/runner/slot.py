"""Lets one flow run at a time run a schedule: a Prefect global concurrency limit, which is created if it is missing.

Bolt itself refuses a second run of a schedule that is already running. The slot does more. Our flow runs wait for each
other before they trigger. No other flow run starts between a failure and its retry. The slot works even if Bolt would
allow two runs at once. If Prefect cannot give the slot, the Bolt run starts without the slot.
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
    """Another flow run held the slot for the whole wait."""


async def hold_slot(lifecycle: RunLifecycle, stack: AsyncExitStack) -> None:
    """Take the schedule's concurrency slot, and wait for it as long as `on_already_running` allows.

    Args:
        lifecycle: The lifecycle that needs the slot.
        stack: The slot is released when this stack closes.

    Raises:
        Skipped: Another flow run holds the slot, and the policy is `skip`. If Bolt runs nothing, we first wait until
            the slot of a killed flow run would have expired. If a Bolt run of ours has failed and the failure was not
            reported, this is not raised: the failure is reported, without another retry.
        BoltAlreadyRunning: Another flow run holds the slot, and the policy is `fail`, or the time limit of the wait is
            reached.
    """
    flow_run_id = lifecycle.ownership.flow_run_id
    if lifecycle.ownership.refused is not None:
        # Our own refused trigger may have started a Bolt run, and that run may be the reason for the refusal.
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
                "Another flow run in Prefect runs the schedule; tracking our run without the slot."
            )
            return
        if await _continue_without_slot(lifecycle, dead):
            return


def _fails(lifecycle: RunLifecycle) -> bool:
    """Whether a Bolt run has failed, and the failure was not reported."""
    return lifecycle.ownership.is_unreported and lifecycle.ownership.state in BoltRunState.FAILURES


def _has_run_to_track(lifecycle: RunLifecycle) -> bool:
    """Whether to continue without the slot, because the time limit of a Bolt run is already running.

    The same holds for a Bolt run that has ended and will not be retried.
    """
    ownership = lifecycle.ownership
    if ownership.state == BoltRunState.SUCCESS:
        return True
    has_run = ownership.has_unknown_run or (ownership.is_unreported and ownership.run_id is not None)
    return has_run and not (_fails(lifecycle) and lifecycle.policies.retries > 0)


async def _continue_without_slot(lifecycle: RunLifecycle, dead: Deadline) -> bool:
    """Do as the policy says while another flow run holds the slot.

    Args:
        lifecycle: The lifecycle that needs the slot.
        dead: When this deadline has passed, the flow run that holds the slot is known to be alive.

    Returns:
        True to continue without the slot; False to wait for the slot again.
    """
    policy, waiting = lifecycle.policies.on_already_running, lifecycle.triggering.waiting
    other, runs = await lifecycle.triggering.conflicting_run()
    if not runs and policy != "wait" and not dead.passed and not waiting.passed:
        # The flow run that holds the slot waits between a failure and a retry. Or it was killed, and its lease on the
        # slot has not expired yet.
        return False
    if policy == "skip" and other is not None:
        await _skip(lifecycle, other)
        return True
    if policy in {*ATTACHING, "replace"} and runs:
        # Bolt refuses a second run of the schedule. After the refusal, the policy says what to do.
        lifecycle.decision_log.note(
            "Another flow run in Prefect runs the schedule; triggering without the slot."
        )
        return True
    if policy in {"wait", "fail"} or waiting.passed:
        msg = "Another flow run in Prefect runs the schedule."
        raise BoltAlreadyRunning(msg, schedule_name=lifecycle.ownership.schedule)
    # The flow run that holds the slot waits between two Bolt runs: no Bolt run can be attached to or replaced now.
    return False


async def _skip(lifecycle: RunLifecycle, other: BoltRun) -> None:
    if _fails(lifecycle) and lifecycle.policies.retries > 0:
        lifecycle.stop_retrying("Another flow run in Prefect runs the schedule")
        return
    why = f"Another flow run in Prefect runs the schedule (its latest Bolt run: {other.run_id})"
    skipped = Skipped(other, await other.astate(), why)
    lifecycle.decision_log.note(str(skipped))
    raise skipped


def slot_name(schedule: BoltSchedule) -> str:
    """Return the name of a schedule's concurrency limit, the same in every process.

    Prefect forbids some characters in the name of a limit. If the schedule's name contains such a character, the
    character is replaced, and a hash is added to the name.

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
    """Create a limit of one slot. If a limit of that name exists, leave it: a person may have changed it on purpose."""
    async with get_client() as client:
        try:
            await client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):
                await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))


@asynccontextmanager
async def schedule_slot(name: str, decision_log: DecisionLog, *, wait_seconds: float) -> AsyncIterator[None]:
    """Hold the schedule's slot during the `with` block, if Prefect can give it.

    A separate asyncio task holds the slot, so that a cancel scope of the caller cannot end the lease on the slot.

    Args:
        name: The slot's name.
        decision_log: Where a wait, or a start without the slot, is noted.
        wait_seconds: How long to wait for the slot.

    Raises:
        SlotTaken: Another flow run held the slot for the whole wait.
    """
    acquired: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    release = asyncio.Event()
    holder = asyncio.create_task(_hold(name, wait_seconds, acquired, release), name=f"slot of {name}")
    try:
        told_after = min(wait_seconds, times().slot_log_after_seconds)
        done, _ = await asyncio.wait([acquired], timeout=told_after)
        if not done and wait_seconds > told_after:
            decision_log.note("Waiting for the schedule's concurrency slot: another flow run may hold it.")
            # If several flow runs of one process wait for the same slot, Prefect starts its own time limit late.
            done, _ = await asyncio.wait([acquired], timeout=wait_seconds - told_after)
        if not done:
            raise SlotTaken(name)
        try:
            acquired.result()
        except AcquireConcurrencySlotTimeoutError:
            raise SlotTaken(name) from None
        except Exception as error:  # noqa: BLE001 - see the module's docstring
            decision_log.note(
                f"Prefect could not give the schedule's concurrency slot; continuing without it ({error})."
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
    except Exception as error:  # noqa: BLE001 - the waiting caller gets the error; a slot that is not released expires
        if not acquired.done():
            acquired.set_exception(error)
    finally:
        acquired.cancel()
