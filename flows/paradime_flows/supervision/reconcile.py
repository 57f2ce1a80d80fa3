"""The Bolt run that a record tracks: searches for it, cleans it up, archives it, and says how it is."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from math import inf

import anyio

from paradime_blocks import BoltError, BoltRequestError, BoltRun, ParadimeCredentials
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.models import BoltRunState, run_url
from paradime_blocks.signals import signals_held_off, to_the_end
from paradime_blocks.trigger import DecisionLog, Finding, find_triggered_run, longest_request_seconds
from paradime_flows.ledger import FlowRunLedger, Phase, Record, Relation, hold, runs_of_others
from paradime_flows.prefect_api import ArtifactWriter, flow_run_url, run_logger, times
from paradime_flows.reporting.archive import Archive
from paradime_flows.reporting.run_summary import RunRecord
from paradime_flows.supervision.decide import Action, Event, decide
from paradime_flows.supervision.watch import StoppedByPrefect, interrupt_of, unless_unreachable


async def clean_up_interrupted(
    record: Record, credentials: ParadimeCredentials, error: BaseException
) -> None:
    """Clean up a Bolt run after its flow run was stopped by an error: `StoppedByPrefect` or one of `INTERRUPTS`."""

    async def clean_up() -> None:
        stop = error if isinstance(error, StoppedByPrefect) else await interrupt_of(record.flow_run_id)
        if stop.event is Event.CANCELLED:
            # Prefect's runner sends a signal after a cancel, and the signal would make the flow run Crashed. The flow
            # run ends as Cancelled by itself, so the signal is not delivered.
            hold_off.drop()
        try:
            await reconcile_run(record, credentials, stop.event, stop.reason, times().search_seconds)
        except BoltError as failure:
            run_logger().error("%s", failure)

    with signals_held_off() as hold_off:
        # If Prefect's own time limit was reached, Prefect also cancels each await here.
        await to_the_end(clean_up())


async def reconcile_run(
    record: Record, credentials: ParadimeCredentials, event: Event, reason: str, search_seconds: float = inf
) -> None:
    """Do to a Bolt run what `decide` says for an event, write the result to the record, and archive the Bolt run.

    Several processes may call this function for the same record, because a cancel of an ended Bolt run changes nothing.
    `reason` is a sentence for people. After a BoltError, the Bolt run may still be running, and the record stays open,
    so that the sweeper cleans up later.
    """
    if not record.is_in(credentials):
        msg = "The available credentials belong to another workspace. A run of that workspace can have the same id."
        guidance = (
            "Nothing was sent. Store the credentials in a ParadimeCredentials block, which hooks can read."
        )
        raise BoltRequestError(msg, guidance=guidance, schedule_name=record.schedule, run_id=record.run_id)
    action = decide(record, event)
    if action is Action.LEAVE:
        reason = f"{reason} The Bolt run keeps running; a retry of the flow run will resume this run."
        # After an interrupt, Prefect calls the hook for a crash. The hook must leave the Bolt run running, too.
        record.on_crash = "leave"
    record.decision_log().note(reason)
    if action in {Action.LEAVE, Action.NOTHING}:
        # There is no time limit. Without this write, the hook would cancel a Bolt run that is left. If there is none,
        # Prefect may still have an older record with a trigger that was never sent, and a later execution could take
        # another client's Bolt run for ours.
        await FlowRunLedger(record).save()
        if action is Action.NOTHING:
            with anyio.move_on_after(times().archive_seconds):
                await archive_of(record, credentials, reason).summary()
        return
    # If Prefect is unreachable, the Bolt run is cleaned up without the lease.
    await unless_unreachable(partial(hold, record=record))
    try:
        await _reconcile(record, credentials, event, search_seconds)
    finally:
        with anyio.move_on_after(times().archive_seconds):
            await archive_of(record, credentials, reason).run()


async def _reconcile(
    record: Record, credentials: ParadimeCredentials, event: Event, search_seconds: float
) -> None:
    ledger, decision_log = FlowRunLedger(record), record.decision_log()
    action = decide(record, event)
    if action is Action.SEARCH:
        finding = await find_run(record, credentials, decision_log, search_seconds)
        # During the search, a new execution of the flow run may have begun. It may also have found the Bolt run.
        await unless_unreachable(partial(hold, record=record))
        action = decide(record, event, is_absent=finding.is_absent)
        if action is Action.KEEP and await _have_ended(finding, credentials):
            decision_log.note("All candidates have ended, so there is nothing to cancel.")
            await ledger.close(None, reported=False)
            return
    if action is Action.CANCEL:
        await _cancel(record, credentials)
    elif action is Action.WITHDRAW:
        await ledger.withdraw()
    elif action is Action.RELEASE:
        why = "as requested" if record.left else "since it may belong to another client"
        decision_log.note(f"Bolt run {record.run_id} keeps running, {why}.")
        # A retry of the flow run resumes the Bolt run. But if a person has cancelled the flow run, a retry starts anew.
        await ledger.close(None, reported=event is Event.CANCELLED and not record.left)
    elif action is not Action.NOTHING:
        await ledger.save()


async def _have_ended(finding: Finding, credentials: ParadimeCredentials) -> bool:
    states = [await BoltRun(run_id, credentials).astate() for run_id in finding.candidates]
    return bool(states) and all(state.is_terminal for state in states)


async def _cancel(record: Record, credentials: ParadimeCredentials) -> None:
    assert record.run_id is not None  # noqa: S101 - `decide` cancels only a known Bolt run
    ledger, decision_log = FlowRunLedger(record), record.decision_log()
    run = BoltRun(record.run_id, credentials, record.schedule, cancel_grace_seconds=times().cancel_seconds)
    try:
        state = await run.acancel()
    except BoltError as error:
        decision_log.note(f"Bolt run {run.run_id} could not be cancelled: {error.message}")
        await ledger.save()
        raise
    is_cancelled = state == BoltRunState.CANCELED
    end = "was cancelled" if is_cancelled else f"had already ended as {state}"
    decision_log.note(f"Bolt run {run.run_id} {end}.")
    # If the Bolt run had already ended, nobody has reported its end yet. Then a retry of the flow run reports the end,
    # or retries the Bolt run.
    await ledger.close(state, reported=is_cancelled)


async def find_run(
    record: Record, credentials: ParadimeCredentials, decision_log: DecisionLog, seconds: float = inf
) -> Finding:
    """Search for the Bolt run of a record whose trigger was not answered. Set its id in the record.

    If `seconds` is infinite, the search ends when it is certain whether there is a Bolt run.
    """
    if record.intent is None:
        return Finding(is_absent=True)
    # The client may have sent the trigger several times. Bolt may have accepted only the last one.
    oldest = longest_request_seconds(credentials.request_timeout_seconds) + RetryPolicy.total_seconds
    age = max(0.0, time.time() - record.intent.intended_at)
    certain_after = max(times().search_seconds, oldest - age)
    finding = Finding()
    # During an outage, the client retries its requests for a long time. So the time of the search is limited here, too.
    with anyio.move_on_after(seconds + times().prefect_answer_seconds):
        async with credentials.get_client() as client:
            finding = await find_triggered_run(
                client,
                record.request,
                record.intent,
                window_seconds=min(seconds, certain_after),
                max_outage_seconds=min(seconds, oldest),
                of_others=partial(runs_of_others, record),
            )
    if finding.run_id is None and seconds < certain_after:
        # While a run may still appear, neither its absence nor the candidates are known.
        finding = Finding()
    if finding.run_id is not None:
        record.run_id, record.phase = finding.run_id, Phase.RUNNING
        note = f"Bolt run {finding.run_id} is the one that our trigger started; resuming this run."
    elif finding.is_absent:
        note = "The trigger has started no run."
    else:
        candidates = ", ".join(str(run_id) for run_id in finding.candidates) or "none seen"
        note = f"It is unknown whether our trigger started a run, or which one (candidates: {candidates})."
    decision_log.note(note)
    return finding


async def remaining_seconds(record: Record, credentials: ParadimeCredentials, limit: float) -> float:
    """Return how many seconds a Bolt run has left until its time limit, from 0 to the limit.

    A machine's clock can be set. So the monotonic clock counts in the process that triggered, or else Bolt's clock.
    """
    if record.began_here is not None:
        return max(0.0, limit - (time.monotonic() - record.began_here))
    sent_at = None if record.intent is None else record.intent.bolt_time
    if record.run_id is not None and record.relation is Relation.OURS and sent_at is not None:
        # If Bolt is unreachable, the error is ignored here. The wait for the Bolt run will handle the outage.
        with suppress(BoltError), anyio.move_on_after(times().bolt_time_seconds):
            async with credentials.get_client() as client:
                await client.get_bolt_run(record.run_id, logs=False)
                now = client.bolt_time()
            if now is not None:
                return max(0.0, min(limit, sent_at + limit - now))
    return record.remaining_seconds(limit)


def archive_of(record: Record, credentials: ParadimeCredentials, outcome: str | None) -> Archive:
    """Return the archive of a Bolt run: its artifacts of the flow run. `outcome` is a sentence for the summary."""
    summary = RunRecord(record.schedule, record.run_id, record.state, outcome=outcome)
    summary.attempts, summary.notes = record.attempts, record.notes
    if record.may_be_cancelled:
        summary.branch, summary.flow_run_page = record.request.branch, flow_run_url(record.flow_run_id)
        if record.intent is not None:
            summary.triggered_at = datetime.fromtimestamp(record.intent.intended_at, timezone.utc)
    return Archive(credentials, ArtifactWriter(flow_run_id=record.flow_run_id), summary, record.archive)


def describe_run(record: Record, event: Event) -> str:
    """Describe the Bolt run of a flow run that an event has stopped, in a sentence. Empty if the run was cancelled."""
    run_id, state = record.run_id, record.state
    if not record.is_open:
        has_ended = state is not None and state.is_terminal and state != BoltRunState.CANCELED
        return f" Bolt run {run_id} had already ended as {state}." if run_id is not None and has_ended else ""
    if run_id is None:
        who = "sweep_orphans" if record.may_be_cancelled else "a retry of this flow run"
        return f" A Bolt run may have been started; {who} will search for this run."
    if decide(record, event) is Action.LEAVE:
        return f" Bolt run {run_id} keeps running ({run_url(run_id)}); a retry will resume it."
    return f" Bolt run {run_id} may still be running ({run_url(run_id)}); sweep_orphans will cancel it."
