"""Ending a Bolt run that nobody waits for any longer: after a cancel, a crash, or by the sweeper."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import anyio

from paradime_blocks.errors import BoltError
from paradime_blocks.models import BoltRunState
from paradime_blocks.run import BoltRun
from paradime_blocks.trail import Trail
from paradime_blocks.trigger import Verdict, find_triggered_run
from paradime_flows.archive import Archive
from paradime_flows.artifacts import ArtifactWriter, flow_run_url
from paradime_flows.context import run_logger
from paradime_flows.ownership import FlowRunLedger, Ownership
from paradime_flows.summary import RunRecord
from paradime_flows.watch import cancel_in_prefect, see_that_it_is_ours

if TYPE_CHECKING:
    from paradime_blocks.credentials import ParadimeCredentials

# Prefect gives a cancelled flow run 30 s to clean up: the cancel goes first and must fit, then the archive.
CANCEL_SECONDS = 12.0
ARCHIVE_SECONDS = 8.0
_LOOK_SECONDS = 6.0


async def find_run(
    ownership: Ownership, credentials: ParadimeCredentials, trail: Trail, *, seconds: float
) -> Verdict:
    """Find the run of an ownership whose trigger was never answered; the ownership is told its id.

    Args:
        ownership: An open ownership.
        credentials: The credentials of its workspace.
        trail: Where it is told.
        seconds: How long to look until absence is believed.

    Returns:
        Whether there is a run, none, or no telling.
    """
    if ownership.run_id is not None:
        return Verdict.FOUND
    if ownership.intent is None:
        return Verdict.ABSENT
    async with credentials.get_client() as client:
        finding = await find_triggered_run(
            client,
            ownership.request,
            ownership.intent,
            window_seconds=seconds,
            max_outage_seconds=seconds,
            late=True,
        )
    if finding.verdict is Verdict.FOUND:
        ownership.run_id = finding.run_id
        trail.note(f"Bolt run {finding.run_id} is the one that our trigger started; it is taken up.")
    elif finding.verdict is Verdict.ABSENT:
        trail.note("The trigger that was about to be sent has started no run.")
    else:
        told = ", ".join(str(run_id) for run_id in finding.candidates) or "none seen"
        trail.note(f"It cannot be told which run our trigger started, if any (candidates: {told}).")
    return finding.verdict


async def settle(ownership: Ownership, credentials: ParadimeCredentials, reason: str) -> BoltRunState | None:
    """Cancel the Bolt run of an ownership, see that it has ended, write that down, and archive it.

    Safe to repeat, and for several at once: cancelling a run that has ended changes nothing.

    Args:
        ownership: What is to be settled.
        credentials: The credentials of its workspace.
        reason: Why, as a sentence.

    Returns:
        The state in which the run ended; None if there is none, or none of ours.

    Raises:
        BoltError: The run may still be going. The ownership stays open, for the sweeper.
    """
    trail = Trail(ownership.notes, tell=run_logger().warning)
    trail.note(reason)
    ledger = FlowRunLedger(ownership, 0.0)
    verdict = await find_run(ownership, credentials, trail, seconds=_LOOK_SECONDS)
    if verdict is Verdict.UNSURE:
        await ledger.save()
        return None
    if verdict is Verdict.ABSENT or ownership.run_id is None:
        await ledger.withdraw()
        return None
    if not ownership.owned:
        trail.note(f"Bolt run {ownership.run_id} is left going, since it is not ours.")
        await ledger.close(None, reported=True)
        return None
    run = BoltRun(
        run_id=ownership.run_id,
        credentials=credentials,
        schedule_name=ownership.schedule,
        cancel_grace_seconds=CANCEL_SECONDS,
    )
    try:
        state = await run.acancel()
    except BoltError as error:
        trail.note(f"Bolt run {run.run_id} could not be cancelled: {error.what}")
        await ledger.save()
        raise
    if state == BoltRunState.CANCELED:
        trail.note(f"Bolt run {run.run_id} was cancelled.")
    else:
        trail.note(f"Bolt run {run.run_id} had ended by itself as {state}.")
    await ledger.close(state, reported=True)
    with anyio.move_on_after(ARCHIVE_SECONDS):
        await archive_ownership(ownership, credentials, outcome=reason)
    return state


async def settle_interrupted(
    ownership: Ownership, credentials: ParadimeCredentials, by_prefect: str | None = None
) -> None:
    """Settle after an interrupt: a person's cancel always cancels the Bolt run, another one by policy.

    Args:
        ownership: What there is to answer for.
        credentials: The credentials of its workspace.
        by_prefect: What was seen of the flow run's own cancel, if it was seen already.

    Raises:
        Superseded: Another process has taken up the flow run, and with it what there is to answer for.
    """
    await see_that_it_is_ours(ownership.flow_run_id)
    if not ownership.is_open:
        return
    reason = by_prefect or await cancel_in_prefect(ownership.flow_run_id)
    if reason is None and ownership.on_interrupt == "leave":
        ownership.trail().note("Interrupted; the Bolt run is left going, to be taken up again.")
        # A hook will see this same interrupt as a crash.
        ownership.on_crash = "leave"
        await FlowRunLedger(ownership, 0.0).save()
        return
    try:
        await settle(ownership, credentials, reason or "The flow run was interrupted.")
    except BoltError as error:
        run_logger().error("%s", error)


async def archive_ownership(
    ownership: Ownership, credentials: ParadimeCredentials, *, outcome: str | None
) -> Archive:
    """Archive the run of an ownership to the flow run that answers for it.

    Args:
        ownership: The ownership.
        credentials: The credentials of its workspace.
        outcome: What came of it, as a sentence.
    """
    archive = Archive(
        credentials,
        ArtifactWriter(flow_run_id=ownership.flow_run_id),
        RunRecord(
            schedule_name=ownership.schedule,
            run_id=ownership.run_id,
            state=ownership.state,
            branch=ownership.request.branch,
            flow_run_page=flow_run_url(ownership.flow_run_id) if ownership.owned else None,
            triggered_at=_triggered_at(ownership),
            outcome=outcome,
            attempts=ownership.attempts,
            notes=ownership.notes,
        ),
        ownership.archive,
    )
    await archive.run()
    return archive


def _triggered_at(ownership: Ownership) -> datetime | None:
    if ownership.intent is None or not ownership.owned:
        return None
    return datetime.fromtimestamp(ownership.intent.intended_at, timezone.utc)
