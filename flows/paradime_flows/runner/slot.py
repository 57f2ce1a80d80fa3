"""Lets only one flow run at a time run a schedule: it holds the slot of a global concurrency limit in Prefect.

Bolt itself refuses a second run of a schedule that is already running. The slot does more: no other flow run triggers
the schedule between a failure and its retry, and flow runs take turns even if Bolt allows two runs at once.
"""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from slugify import slugify

from paradime_blocks import BoltAlreadyRunning, BoltRunState, BoltSchedule
from paradime_blocks.polling import Deadline
from paradime_flows.prefect_api import SlotTaken, schedule_slot, times
from paradime_flows.supervision import Action, Event, decide, unless_stopped

if TYPE_CHECKING:
    from paradime_flows.runner.lifecycle import RunLifecycle


async def hold_slot(lifecycle: RunLifecycle, stack: AsyncExitStack) -> None:
    """Take the schedule's concurrency slot, and wait for it as long as `on_already_running` allows.

    The slot is released when `stack` closes.

    Raises:
        Skipped: Another flow run holds the slot, and the policy is `skip`.
        BoltAlreadyRunning: Another flow run holds the slot. The policy is `fail`, or the time limit of the wait has
            passed, or there is no Bolt run that the policy `skip` could return.
    """
    triggering, record, policies = lifecycle.triggering, lifecycle.record, lifecycle.policies
    triggering.looks_first = policies.on_already_running != "wait"
    # Whether a Bolt run of this flow run has failed, and is to be retried before anybody reports the failure.
    is_retry = record.is_unreported and record.state in BoltRunState.FAILURES and policies.retries > 0
    # The time limit of a Bolt run that this flow run already has, or may have, has begun. Only a retry needs the slot.
    needs_none = decide(record, Event.BEGUN) is not Action.SEND and not is_retry
    waits = policies.on_already_running == "wait" and not needs_none
    # The holder of the slot may have been killed. It loses the slot within this time.
    dead = Deadline(min(times().slot_dead_seconds, triggering.waiting.remaining or 0.0))
    while True:
        seconds = (triggering.waiting.remaining or 0.0) if waits else times().slot_try_seconds
        slot = schedule_slot(slot_name(lifecycle.schedule), lifecycle.decision_log, wait_seconds=seconds)
        with suppress(SlotTaken):
            await unless_stopped(partial(stack.enter_async_context, slot), record.flow_run_id)
            return
        if needs_none or await _continues_without_slot(lifecycle, dead, is_retry=is_retry):
            lifecycle.decision_log.note(
                "Another flow run, or a killed attempt of this one, holds the schedule's slot; continuing without it."
            )
            return


async def _continues_without_slot(lifecycle: RunLifecycle, dead: Deadline, *, is_retry: bool) -> bool:
    """Do as the policy says while another flow run holds the slot. Return False to wait for the slot again.

    If Bolt does not run the schedule although the holder of the slot is alive, the holder waits between a failure and a
    retry. Then there is no Bolt run to attach to or to replace.
    """
    triggering = lifecycle.triggering
    conflict = await triggering.conflicting_run()
    answer = triggering.answer_to(conflict)
    may_be_dead = not conflict.is_active and not dead.passed
    if answer == "wait" or may_be_dead:
        return False
    if answer == "fail" or conflict.run is None:
        msg = "Another flow run in Prefect runs the schedule."
        raise BoltAlreadyRunning(msg, schedule_name=lifecycle.record.schedule)
    if answer == "skip":
        why = "Another flow run in Prefect runs the schedule"
        if not is_retry:
            latest = conflict.run
            raise triggering.skipped(latest, f"{why} (latest Bolt run of the schedule: {latest.run_id})")
        # The failure is reported instead.
        lifecycle.stop_retrying(why)
    # Otherwise Bolt will refuse the trigger, and `Triggering` does as the policy says.
    return True


def slot_name(schedule: BoltSchedule) -> str:
    """Return the name of a schedule's concurrency limit. The name is the same in every process.

    Prefect forbids some characters in the name of a limit. If the schedule's name contains such a character, the
    character is replaced, and a hash is added to the name.
    """
    place = f"{schedule.credentials.api_endpoint} {schedule.credentials.workspace_uid or ''}"
    workspace = hashlib.sha256(place.encode()).hexdigest()[:10]
    label = schedule.schedule_name
    plain = slugify(label, lowercase=False, regex_pattern=r"[^-a-zA-Z0-9_.]+")
    if plain != label:
        plain = f"{plain[:60]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return f"paradime-bolt:{workspace}:{plain}"
