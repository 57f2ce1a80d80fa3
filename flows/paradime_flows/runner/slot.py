"""Lets only one flow run at a time run a schedule.

Each schedule has a global concurrency limit in Prefect, with one slot. A flow run holds the slot while it runs the
schedule. If the limit does not exist, it is created. If Prefect cannot give the slot, the flow run continues without
the slot.

Bolt itself refuses a second run of a schedule that is already running. The slot does more:

- Flow runs wait for each other before they send a trigger.
- No other flow run triggers the schedule between a failure and its retry.
- Flow runs take turns even if Bolt allows two runs of the schedule at once.
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
from paradime_flows.runner.conflict import answer_to
from paradime_flows.supervision import Action, Event, decide, unless_stopped

if TYPE_CHECKING:
    from paradime_flows.runner.lifecycle import RunLifecycle


async def hold_slot(lifecycle: RunLifecycle, stack: AsyncExitStack) -> None:
    """Take the schedule's concurrency slot, and wait for it as long as `on_already_running` allows.

    The slot is released when `stack` closes.

    Raises:
        Skipped: Another flow run holds the slot, and the policy is `skip`. If a Bolt run of this flow run has failed
            and is about to be retried, the retry is skipped instead, and the failure is reported.
        BoltAlreadyRunning: Another flow run holds the slot. The policy is `fail`, or the time limit of the wait has
            passed, or there is no Bolt run that the policy `skip` could return.
    """
    triggering = lifecycle.triggering
    triggering.is_one_at_a_time = True
    # The time limit of a Bolt run that this flow run already has, or may have, has begun. Only a retry needs the slot.
    has_run = decide(lifecycle.record, Event.BEGUN) is not Action.SEND
    needs_none = has_run and not _retries_failure(lifecycle)
    waits = lifecycle.policies.on_already_running == "wait" and not needs_none
    # The holder of the slot may have been killed. It loses the slot within this time.
    dead = Deadline(min(times().slot_dead_seconds, triggering.waiting.remaining or 0.0))
    while True:
        left = triggering.waiting.remaining or 0.0
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


async def _continues_without_slot(lifecycle: RunLifecycle, dead: Deadline) -> bool:
    """Do as the policy says while another flow run holds the slot. Return False to wait for the slot again.

    If Bolt does not run the schedule although the holder of the slot is alive, the holder waits between a failure and a
    retry. Then there is no Bolt run to attach to or to replace.
    """
    triggering = lifecycle.triggering
    conflict = await triggering.conflicting_run()
    policy, may_wait = lifecycle.policies.on_already_running, not triggering.waiting.passed
    answer = answer_to(conflict, policy, may_wait=may_wait)
    may_be_dead = not conflict.is_active and not dead.passed
    if answer == "wait" or may_be_dead:
        return False
    if answer == "fail" or conflict.run is None:
        msg = "Another flow run in Prefect runs the schedule."
        raise BoltAlreadyRunning(msg, schedule_name=lifecycle.record.schedule)
    if answer == "skip" and not _retries_failure(lifecycle):
        latest = conflict.run.run_id
        why = f"Another flow run in Prefect runs the schedule (latest Bolt run of the schedule: {latest})"
        raise triggering.skipped(conflict.run, why)
    if answer == "skip":
        lifecycle.stop_retrying("Another flow run in Prefect runs the schedule")
    # Otherwise Bolt will refuse the trigger, and `Triggering` does as the policy says.
    return True


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
