"""Ending a Bolt run that nobody waits for any longer: after a cancel, a crash, or by the sweeper."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import anyio
from prefect.client.orchestration import get_client

from paradime_blocks import BoltError, BoltRequestError, BoltRun, ParadimeCredentials
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.models import BoltRunState, run_url
from paradime_blocks.signals import signals_held_off
from paradime_blocks.trigger import DecisionLog, Finding, Verdict, find_triggered_run, longest_request_seconds
from paradime_flows.ledger import FlowRunLedger, Ownership, read_if_leased
from paradime_flows.prefect_api import ArtifactWriter, clients_of_our_own, flow_run_url, run_logger, times
from paradime_flows.reporting.archive import Archive
from paradime_flows.reporting.run_summary import RunRecord
from paradime_flows.supervision.orphans import is_cancelled
from paradime_flows.supervision.watch import StoppedByPrefect, reason_to_stop_if_known

if TYPE_CHECKING:
    from uuid import UUID


async def find_run(
    ownership: Ownership,
    credentials: ParadimeCredentials,
    decision_log: DecisionLog,
    *,
    seconds: float | None = None,
) -> Finding:
    """Find the run of an ownership whose trigger was never answered; the ownership is told its id.

    Args:
        ownership: An ownership that has a run to tell.
        credentials: The credentials of its workspace.
        decision_log: Where it is told.
        seconds: How long to look; None for as long as it takes until absence is certain.

    Returns:
        The run that was found, that there is none, or the runs that it may be.
    """
    if ownership.run_id is not None:
        return Finding(Verdict.FOUND, [ownership.run_id])
    if ownership.intent is None:
        return Finding(Verdict.ABSENT)
    longest = longest_request_seconds(credentials.request_timeout_seconds)
    # Bolt may have put the trigger off for a while before it took it.
    oldest = longest + RetryPolicy.total_seconds
    finding = Finding(Verdict.UNSURE)
    # A look in an outage takes the client's own patience.
    with anyio.move_on_after(float("inf") if seconds is None else seconds + times().prefect_answer_seconds):
        async with credentials.get_client() as client:
            finding = await find_triggered_run(
                client,
                ownership.request,
                ownership.intent,
                window_seconds=times().search_seconds,
                max_outage_seconds=oldest if seconds is None else seconds,
                least_age_seconds=oldest,
                at_most_seconds=seconds,
            )
    if finding.verdict is Verdict.FOUND:
        ownership.run_id = finding.run_id
        ownership.began_at = ownership.intent.intended_at
        decision_log.note(f"Bolt run {finding.run_id} is the one that our trigger started; it is taken up.")
    elif finding.is_early and not finding.candidates:
        decision_log.note(
            "The trigger has started no run so far; it may yet, and is left for the sweeper to look into."
        )
    elif finding.verdict is Verdict.ABSENT:
        decision_log.note("The trigger that was about to be sent has started no run.")
    else:
        told = ", ".join(str(run_id) for run_id in finding.candidates) or "none seen"
        decision_log.note(f"It cannot be told which run our trigger started, if any (candidates: {told}).")
    return finding


async def clean_up(
    ownership: Ownership,
    credentials: ParadimeCredentials,
    reason: str,
    *,
    search_seconds: float | None = None,
) -> BoltRunState | None:
    """Cancel the Bolt run of an ownership, see that it has ended, write that down, and archive it.

    Safe to repeat, and for several at once: cancelling a run that has ended changes nothing.

    Args:
        ownership: What is to be settled.
        credentials: The credentials of its workspace.
        reason: Why, as a sentence.
        search_seconds: How long a run that is not known yet is looked for; None for as long as it takes.

    Returns:
        The state in which the run ended; None if there is none, or none of ours.

    Raises:
        BoltError: The run may still be going. The ownership stays open, for the sweeper.
        Superseded: Another body has taken up the flow run; the run is its to settle.
    """
    if not ownership.is_in(credentials):
        msg = "The credentials at hand are those of another workspace; its runs bear the same ids."
        guidance = "Nothing was sent. Keep a flow's credentials in a ParadimeCredentials block, where hooks find them."
        raise BoltRequestError(
            msg, guidance=guidance, schedule_name=ownership.schedule, run_id=ownership.run_id
        )
    decision_log = DecisionLog(ownership.notes, log=run_logger().warning)
    decision_log.note(reason)
    await check_ownership_lease(ownership)
    try:
        return await _clean_up(ownership, credentials, decision_log, search_seconds)
    finally:
        with anyio.move_on_after(times().archive_seconds):
            await archive_ownership(ownership, credentials, outcome=reason)


async def check_ownership_lease(ownership: Ownership) -> None:
    """See that no other body has taken up the flow run of an ownership since that was read.

    Raises:
        Superseded: One has.
    """
    # Without Prefect, what was read last must do.
    with suppress(Exception), anyio.move_on_after(times().prefect_answer_seconds):
        async with get_client() as client:
            await read_if_leased(client, ownership)


async def _clean_up(
    ownership: Ownership,
    credentials: ParadimeCredentials,
    decision_log: DecisionLog,
    search_seconds: float | None,
) -> BoltRunState | None:
    ledger = FlowRunLedger(ownership)
    known = ownership.run_id is not None
    finding = await find_run(ownership, credentials, decision_log, seconds=search_seconds)
    if finding.verdict is Verdict.UNSURE:
        if await all_have_ended(finding, credentials):
            decision_log.note("All of them have ended: there is nothing left to cancel.")
            # A retry must look again, and not trigger anew: one of them may have been its run.
            await ledger.close(None, reported=False)
        else:
            await ledger.save()
        return None
    if finding.verdict is Verdict.ABSENT or ownership.run_id is None:
        await ledger.withdraw()
        return None
    if not ownership.owned:
        why = "as it was to be" if ownership.left else "since it is not ours"
        decision_log.note(f"Bolt run {ownership.run_id} is left going, {why}.")
        # A retry takes it up, since nobody has been told of it; but not what a person has cancelled the wait for.
        told = not ownership.left and await is_cancelled_if_known(ownership.flow_run_id)
        await ledger.close(None, reported=told)
        return None
    if not known:
        # Looking takes its time, in which somebody may have begun the flow run again, and found the run as well.
        await check_ownership_lease(ownership)
    run = BoltRun(
        run_id=ownership.run_id,
        credentials=credentials,
        schedule_name=ownership.schedule,
        cancel_grace_seconds=times().cancel_seconds,
    )
    try:
        state = await run.acancel()
    except BoltError as error:
        decision_log.note(f"Bolt run {run.run_id} could not be cancelled: {error.message}")
        await ledger.save()
        raise
    if state == BoltRunState.CANCELED:
        decision_log.note(f"Bolt run {run.run_id} was cancelled.")
    else:
        decision_log.note(f"Bolt run {run.run_id} had ended by itself as {state}.")
    # What ended by itself has not been told to anybody: a retry of the flow run reports it, or retries it.
    await ledger.close(state, reported=state == BoltRunState.CANCELED)
    return state


async def is_cancelled_if_known(flow_run_id: UUID) -> bool:
    """Whether Prefect says, now, that a flow run has been cancelled, or one above it; not if it cannot be asked."""
    with suppress(Exception), anyio.move_on_after(times().prefect_answer_seconds):
        async with get_client() as client:
            return await is_cancelled(client, await client.read_flow_run(flow_run_id))
    return False


async def all_have_ended(finding: Finding, credentials: ParadimeCredentials) -> bool:
    """Whether the runs that may be ours are known, and none of them goes on.

    Args:
        finding: What looking for our run came to.
        credentials: The credentials of its workspace.
    """
    if finding.is_early or not finding.candidates:
        return False
    runs = [BoltRun(run_id, credentials) for run_id in finding.candidates]
    return all([(await run.astate()).is_terminal for run in runs])


async def clean_up_interrupted(
    ownership: Ownership, credentials: ParadimeCredentials, stop: StoppedByPrefect | None = None
) -> None:
    """Settle after an interrupt: a person's cancel always cancels the Bolt run, another one by policy.

    Args:
        ownership: What there is to answer for.
        credentials: The credentials of its workspace.
        stop: What was seen of the flow run's own cancel, or of the process's end, if it was seen already.

    Raises:
        Superseded: Another process has taken up the flow run, and with it what there is to answer for.
        Pause: The flow run is suspended, and will be taken up when it is resumed.
    """
    with signals_held_off() as hold, clients_of_our_own():
        # A signal can be what comes of a cancel that nobody has seen yet, be it of a flow run above.
        found = await reason_to_stop_if_known(ownership.flow_run_id)
        seen = stop if stop is not None and not stop.by_signal else None
        cancel = seen or (found if found is not None and found.is_cancel else None)
        if cancel is not None and cancel.ends_process:
            # The flow run ends by itself, and as Cancelled; of the runner's signal for it, Prefect would make Crashed.
            hold.keep()
        await _clean_up_interrupted(ownership, credentials, None if cancel is None else cancel.reason)


async def _clean_up_interrupted(
    ownership: Ownership, credentials: ParadimeCredentials, reason: str | None
) -> None:
    if not ownership.is_open:
        ownership.decision_log().note(reason or "The flow run was interrupted.")
        # Where an intent stands that was not to be sent, a run that somebody else starts would be taken for its own.
        with anyio.move_on_after(times().prefect_answer_seconds):
            await FlowRunLedger(ownership).save_again()
        with anyio.move_on_after(times().archive_seconds):
            await summarize(ownership, credentials, outcome=reason)
        return
    if reason is None and ownership.on_interrupt == "leave":
        ownership.decision_log().note("Interrupted; the Bolt run is left going, to be taken up again.")
        # A hook will see this same interrupt as a crash.
        ownership.on_crash = "leave"
        await FlowRunLedger(ownership).save()
        return
    try:
        await clean_up(
            ownership,
            credentials,
            reason or "The flow run was interrupted.",
            search_seconds=times().search_seconds,
        )
    except BoltError as error:
        run_logger().error("%s", error)


def describe_run(ownership: Ownership, *, by_signal: bool = False) -> str:
    """Say what became of the run of a flow run that was stopped, as sentences to be added; empty if it was cancelled.

    Args:
        ownership: What the flow run answers for, settled.
        by_signal: Whether it was its process that was told to end.
    """
    run_id, state = ownership.run_id, ownership.state
    if not ownership.is_open:
        by_itself = run_id is not None and state is not None and state.is_terminal
        told = f" Bolt run {run_id} had ended by itself as {state}."
        return told if by_itself and state != BoltRunState.CANCELED else ""
    if run_id is None:
        who = "the sweeper" if ownership.owned else "a retry of this flow run"
        return f" A Bolt run may have been started; {who} looks for it."
    if by_signal and ownership.on_interrupt == "leave":
        return f" Bolt run {run_id} is left going ({run_url(run_id)}), to be taken up again."
    return f" Bolt run {run_id} may still be going ({run_url(run_id)}); the sweeper cancels it."


async def archive_ownership(
    ownership: Ownership, credentials: ParadimeCredentials, *, outcome: str | None
) -> Archive:
    """Archive the run of an ownership to the flow run that answers for it.

    Args:
        ownership: The ownership.
        credentials: The credentials of its workspace.
        outcome: What came of it, as a sentence.
    """
    archive = _archive_of(ownership, credentials, outcome)
    await archive.run()
    return archive


async def summarize(ownership: Ownership, credentials: ParadimeCredentials, *, outcome: str | None) -> None:
    """Write the summary alone of what an ownership came to.

    Args:
        ownership: The ownership.
        credentials: The credentials of its workspace.
        outcome: What came of it, as a sentence.
    """
    await _archive_of(ownership, credentials, outcome).summary()


def _archive_of(ownership: Ownership, credentials: ParadimeCredentials, outcome: str | None) -> Archive:
    return Archive(
        credentials,
        ArtifactWriter(flow_run_id=ownership.flow_run_id),
        RunRecord(
            schedule_name=ownership.schedule,
            run_id=ownership.run_id,
            state=ownership.state,
            branch=ownership.request.branch if ownership.owned else None,
            flow_run_page=flow_run_url(ownership.flow_run_id) if ownership.owned else None,
            triggered_at=_triggered_at(ownership),
            outcome=outcome,
            attempts=ownership.attempts,
            notes=ownership.notes,
        ),
        ownership.archive,
    )


def _triggered_at(ownership: Ownership) -> datetime | None:
    if ownership.intent is None or not ownership.owned:
        return None
    return datetime.fromtimestamp(ownership.intent.intended_at, timezone.utc)
