"""Ends a Bolt run that nobody waits for any more: after a cancel, after a crash, or in a sweep."""

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
from paradime_flows.prefect_api import ArtifactWriter, flow_run_url, new_prefect_clients, run_logger, times
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
    """Search for the Bolt run of a record whose trigger was not answered, and store the run's id in the record.

    Args:
        ownership: The record of an intent.
        credentials: The credentials of the workspace.
        decision_log: Where the result is noted.
        seconds: How long to search; None to search until it is certain whether there is a Bolt run.

    Returns:
        FOUND with the Bolt run; ABSENT if the trigger has started no Bolt run; or UNSURE with the Bolt runs that the
        trigger may have started.
    """
    if ownership.run_id is not None:
        return Finding(Verdict.FOUND, [ownership.run_id])
    if ownership.intent is None:
        return Finding(Verdict.ABSENT)
    longest = longest_request_seconds(credentials.request_timeout_seconds)
    # The client may have repeated the trigger for a while before Bolt accepted the trigger.
    oldest = longest + RetryPolicy.total_seconds
    finding = Finding(Verdict.UNSURE)
    # During an outage, a search takes as long as the client's own retries, so its time is limited here.
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
        decision_log.note(f"Bolt run {finding.run_id} is the one that our trigger started; resuming it.")
    elif finding.is_early and not finding.candidates:
        decision_log.note(
            "The trigger has started no run so far, but still may; sweep_orphans will search for it."
        )
    elif finding.verdict is Verdict.ABSENT:
        decision_log.note("The trigger has started no run.")
    else:
        candidates = ", ".join(str(run_id) for run_id in finding.candidates) or "none seen"
        decision_log.note(
            f"Cannot determine which run our trigger started, if any (candidates: {candidates})."
        )
    return finding


async def clean_up(
    ownership: Ownership,
    credentials: ParadimeCredentials,
    reason: str,
    *,
    search_seconds: float | None = None,
) -> BoltRunState | None:
    """Cancel the Bolt run of a record, check that the run has ended, write its end to the record, and archive the run.

    This function can be called again, also in parallel: a cancel of a Bolt run that has ended changes nothing.

    Args:
        ownership: The record to clean up.
        credentials: The credentials of the workspace.
        reason: Why the record is cleaned up, as a sentence.
        search_seconds: How long to search for an unknown Bolt run; None to search until it is certain whether there is
            one.

    Returns:
        The state in which the Bolt run ended; None if there is no Bolt run that we may cancel.

    Raises:
        BoltError: The Bolt run may still be running. The record stays open, so the sweeper cleans it up later.
        Superseded: Another execution runs the flow run now, and cleans up the Bolt run.
    """
    if not ownership.is_in(credentials):
        msg = "The available credentials belong to another workspace, whose runs can have the same ids."
        guidance = "Nothing was sent. Store a flow's credentials in a ParadimeCredentials block, where hooks find them."
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
    """Check that no other execution has taken the lease of a record's flow run since the record was read.

    Raises:
        Superseded: Another execution has taken the lease.
    """
    # If Prefect is unreachable, we trust what was read last.
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
            # A retry of the flow run searches again and does not trigger: our trigger may have started one of the runs.
            await ledger.close(None, reported=False)
        else:
            await ledger.save()
        return None
    if finding.verdict is Verdict.ABSENT or ownership.run_id is None:
        await ledger.withdraw()
        return None
    if not ownership.owned:
        why = "as requested" if ownership.left else "since it is not ours"
        decision_log.note(f"Bolt run {ownership.run_id} keeps running, {why}.")
        # The end of the Bolt run is not reported, so that a retry resumes the run. If a person has cancelled the flow
        # run, the end counts as reported: a retry does not resume the run.
        reported = not ownership.left and await is_cancelled_if_known(ownership.flow_run_id)
        await ledger.close(None, reported=reported)
        return None
    if not known:
        # During the search, the flow run may have started again, and may have found the Bolt run, too.
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
        decision_log.note(f"Bolt run {run.run_id} had already ended as {state}.")
    # If the Bolt run had already ended, its end was not reported yet: a retry of the flow run reports it, or retries
    # the Bolt run.
    await ledger.close(state, reported=state == BoltRunState.CANCELED)
    return state


async def is_cancelled_if_known(flow_run_id: UUID) -> bool:
    """Whether a flow run, or one of its parents, was cancelled; False if Prefect is unreachable."""
    with suppress(Exception), anyio.move_on_after(times().prefect_answer_seconds):
        async with get_client() as client:
            return await is_cancelled(client, await client.read_flow_run(flow_run_id))
    return False


async def all_have_ended(finding: Finding, credentials: ParadimeCredentials) -> bool:
    """Whether all Bolt runs that our trigger may have started are known, and all of them have ended.

    Args:
        finding: The result of the search for our Bolt run.
        credentials: The credentials of the workspace.
    """
    if finding.is_early or not finding.candidates:
        return False
    runs = [BoltRun(run_id, credentials) for run_id in finding.candidates]
    return all([(await run.astate()).is_terminal for run in runs])


async def clean_up_interrupted(
    ownership: Ownership, credentials: ParadimeCredentials, stop: StoppedByPrefect | None = None
) -> None:
    """Clean up after an interrupt. If the flow run was cancelled, cancel the Bolt run; otherwise, the policy decides.

    Args:
        ownership: The record to clean up.
        credentials: The credentials of the workspace.
        stop: Why the flow run stops, if the reason is known already.

    Raises:
        Superseded: Another process runs the flow run now, and tracks the Bolt run.
        Pause: The flow run is suspended. When the flow run is resumed, it resumes the Bolt run.
    """
    with signals_held_off() as hold, new_prefect_clients():
        # The signal may come from a cancel of the flow run, or of a parent, that we have not noticed yet.
        found = await reason_to_stop_if_known(ownership.flow_run_id)
        seen = stop if stop is not None and not stop.by_signal else None
        cancel = seen or (found if found is not None and found.is_cancel else None)
        if cancel is not None and cancel.ends_process:
            # The flow run ends as Cancelled without a signal. The signal of Prefect's runner would make it Crashed.
            hold.keep()
        await _clean_up_interrupted(ownership, credentials, None if cancel is None else cancel.reason)


async def _clean_up_interrupted(
    ownership: Ownership, credentials: ParadimeCredentials, reason: str | None
) -> None:
    if not ownership.is_open:
        ownership.decision_log().note(reason or "The flow run was interrupted.")
        # If the trigger was not sent, the intent is removed from the record in Prefect. Otherwise, a later execution
        # could take another client's Bolt run for ours.
        with anyio.move_on_after(times().prefect_answer_seconds):
            await FlowRunLedger(ownership).save_again()
        with anyio.move_on_after(times().archive_seconds):
            await summarize(ownership, credentials, outcome=reason)
        return
    if reason is None and ownership.on_interrupt == "leave":
        ownership.decision_log().note("Interrupted; the Bolt run keeps running, and a retry will resume it.")
        # Prefect reports the same interrupt to a hook as a crash.
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
    """Describe what happened to the Bolt run of a stopped flow run, in a sentence; empty if the run was cancelled.

    Args:
        ownership: The record of the Bolt run, after the clean-up.
        by_signal: Whether a signal has stopped the process.
    """
    run_id, state = ownership.run_id, ownership.state
    if not ownership.is_open:
        has_ended = run_id is not None and state is not None and state.is_terminal
        message = f" Bolt run {run_id} had already ended as {state}."
        return message if has_ended and state != BoltRunState.CANCELED else ""
    if run_id is None:
        who = "sweep_orphans" if ownership.owned else "a retry of this flow run"
        return f" A Bolt run may have been started; {who} will search for it."
    if by_signal and ownership.on_interrupt == "leave":
        return f" Bolt run {run_id} keeps running ({run_url(run_id)}); a retry will resume it."
    return f" Bolt run {run_id} may still be running ({run_url(run_id)}); sweep_orphans will cancel it."


async def archive_ownership(
    ownership: Ownership, credentials: ParadimeCredentials, *, outcome: str | None
) -> Archive:
    """Archive the Bolt run of a record as artifacts of the flow run.

    Args:
        ownership: The record.
        credentials: The credentials of the workspace.
        outcome: How the Bolt run ended, as a sentence.
    """
    archive = _archive_of(ownership, credentials, outcome)
    await archive.run()
    return archive


async def summarize(ownership: Ownership, credentials: ParadimeCredentials, *, outcome: str | None) -> None:
    """Write only the summary of a record.

    Args:
        ownership: The record.
        credentials: The credentials of the workspace.
        outcome: How the Bolt run ended, as a sentence.
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
