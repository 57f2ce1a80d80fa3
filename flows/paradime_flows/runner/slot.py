"""Lets only one flow run at a time run a schedule.

Each schedule has a global concurrency limit in Prefect, with one slot. A flow run holds the slot while it runs the
schedule. If the limit does not exist, this module creates the limit. If Prefect cannot give the slot, the flow run
continues without the slot.

Bolt itself refuses a second run of a schedule that is already running. The slot does more:

- Flow runs wait for each other before they send a trigger.
- No other flow run triggers the schedule between a failure and its retry.
- Flow runs take turns even if Bolt allows two runs of the schedule at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
from slugify import slugify

from paradime_blocks import BoltAlreadyRunning, BoltRunState, BoltSchedule
from paradime_blocks.polling import Deadline
from paradime_flows.prefect_api import SlotTaken, concurrency_slot, times
from paradime_flows.runner.conflict import ATTACHING
from paradime_flows.supervision import Action, Event, decide, unless_stopped

if TYPE_CHECKING:
    from paradime_blocks.trigger import DecisionLog
    from paradime_flows.runner.lifecycle import RunLifecycle


async def hold_slot(lifecycle: RunLifecycle, stack: AsyncExitStack) -> None:
    """Take the schedule's concurrency slot, and wait for it as long as `on_already_running` allows.

    Args:
        lifecycle: The lifecycle that needs the slot.
        stack: The slot is released when this stack closes.

    Raises:
        Skipped: Another flow run holds the slot, and the policy is `skip`. If Bolt runs nothing, the holder may have
            been killed. So this function first waits until the lease of a killed flow run would have expired. If a Bolt
            run of this flow run has failed and is about to be retried, this error is not raised: the retry is skipped,
            and the failure is reported.
        BoltAlreadyRunning: Another flow run holds the slot. The policy is `fail`, or the time limit of the wait has
            passed.
    """
    lifecycle.triggering.is_one_at_a_time = True
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
            await unless_stopped(partial(stack.enter_async_context, slot), lifecycle.record.flow_run_id)
            return
        if needs_none or await _continues_without_slot(lifecycle, dead):
            lifecycle.decision_log.note(
                "Another flow run, or a killed attempt of this one, holds the schedule's slot; continuing without it."
            )
            return


def _retries_failure(lifecycle: RunLifecycle) -> bool:
    """Whether the Bolt run of this flow run has failed, and is to be retried before anybody reports the failure."""
    record = lifecycle.record
    has_failed = record.is_unreported and record.state in BoltRunState.FAILURES
    return has_failed and lifecycle.policies.retries > 0


def _has_run_to_track(lifecycle: RunLifecycle) -> bool:
    """Whether this flow run has, or may have, a Bolt run to track, and so must not wait for the slot.

    The time limit of such a Bolt run has already begun. If the Bolt run has failed and will be retried, the answer is
    False: the retry needs the slot.
    """
    return decide(lifecycle.record, Event.BEGUN) is not Action.SEND and not _retries_failure(lifecycle)


async def _continues_without_slot(lifecycle: RunLifecycle, dead: Deadline) -> bool:
    """Do as the policy says while another flow run holds the slot. Return False to wait for the slot again.

    When `dead` has passed, the lease of a killed flow run has expired. So the flow run that holds the slot is alive. If
    Bolt does not run the schedule now, that flow run waits between a failure and a retry. Then there is no Bolt run to
    attach to or to replace.
    """
    policy, waiting = lifecycle.policies.on_already_running, lifecycle.triggering.waiting
    other, runs = await lifecycle.triggering.conflicting_run()
    if runs and policy in {*ATTACHING, "replace"}:
        # Bolt will refuse the trigger. `Triggering` then does as the policy says.
        return True
    # The policy `skip` needs a Bolt run to return.
    is_settled = policy == "fail" or (policy == "skip" and other is not None)
    at_once = policy == "wait" or (is_settled and (runs or dead.passed))
    if not at_once and not waiting.passed:
        return False
    if policy == "skip" and other is not None:
        if _retries_failure(lifecycle):
            lifecycle.stop_retrying("Another flow run in Prefect runs the schedule")
            return True
        why = (
            f"Another flow run in Prefect runs the schedule (latest Bolt run of the schedule: {other.run_id})"
        )
        raise await lifecycle.triggering.skipped(other, why)
    msg = "Another flow run in Prefect runs the schedule."
    raise BoltAlreadyRunning(msg, schedule_name=lifecycle.record.schedule)


def slot_name(schedule: BoltSchedule) -> str:
    """Return the name of a schedule's concurrency limit. The name is the same in every process.

    Prefect forbids some characters in the name of a limit. If the schedule's name contains such a character, the
    character is replaced, and a hash is added to the name.
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


@asynccontextmanager
async def schedule_slot(name: str, decision_log: DecisionLog, *, wait_seconds: float) -> AsyncIterator[None]:
    """Hold the schedule's slot during the `with` block. If Prefect cannot give the slot, continue without it.

    A separate asyncio task holds the slot, so that a cancel scope of the caller cannot end the lease on the slot.

    Args:
        name: The name of the concurrency limit.
        decision_log: Notes are written here if the wait is long, and if Prefect cannot give the slot.
        wait_seconds: How long to wait for the slot.

    Raises:
        SlotTaken: The wait has ended, and another flow run still holds the slot.
    """
    acquired: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    release = asyncio.Event()
    holder = asyncio.create_task(_hold(name, wait_seconds, acquired, release), name=f"slot of {name}")
    why = (
        "Waiting for the schedule's concurrency slot. Another flow run or a killed attempt of this one may hold the "
        "slot, or Prefect is slow."
    )
    telling = acquired.get_loop().call_later(times().slot_log_after_seconds, decision_log.note, why)
    try:
        # A request that Prefect does not answer must not prolong the wait.
        done, _ = await asyncio.wait([acquired], timeout=wait_seconds)
        telling.cancel()
        if not done:
            raise SlotTaken(name)
        try:
            acquired.result()
        except SlotTaken:
            raise
        except Exception as error:  # noqa: BLE001 - see the module's docstring
            decision_log.note(
                f"Prefect could not give the schedule's concurrency slot; continuing without the slot ({error})."
            )
        yield
    finally:
        telling.cancel()
        release.set()
        limit = times().slot_release_seconds if acquired.done() else times().prefect_answer_seconds
        with anyio.CancelScope(shield=True):
            # If Prefect gives the slot after this time, the holder releases the slot then.
            await asyncio.wait([holder], timeout=limit)


async def _hold(
    name: str, wait_seconds: float, acquired: asyncio.Future[None], release: asyncio.Event
) -> None:
    try:
        async with concurrency_slot(name, wait_seconds, release):
            if not acquired.done():
                acquired.set_result(None)
            await release.wait()
    except Exception as error:  # noqa: BLE001 - the waiting caller gets the error; an unreleased slot expires
        if not acquired.done() and not release.is_set():
            acquired.set_exception(error)
    finally:
        acquired.cancel()
