"""The Bolt run that a record tracks: searches for it, archives it, and says how it is and how much time it has left."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial

import anyio

from paradime_blocks import BoltError, ParadimeCredentials
from paradime_blocks.client.retry import RetryPolicy
from paradime_blocks.models import BoltRunState, run_url
from paradime_blocks.trigger import DecisionLog, Finding, Verdict, find_triggered_run, longest_request_seconds
from paradime_flows.ledger import Phase, Record, Relation, runs_of_others
from paradime_flows.prefect_api import ArtifactWriter, flow_run_url, times
from paradime_flows.reporting.archive import Archive
from paradime_flows.reporting.run_summary import RunRecord
from paradime_flows.supervision.decide import Action, Event, decide


async def find_run(
    record: Record,
    credentials: ParadimeCredentials,
    decision_log: DecisionLog,
    *,
    seconds: float | None = None,
) -> Finding:
    """Search for the Bolt run of a record whose trigger was not answered. Set its id in the record.

    The search takes at most `seconds`. None means: until it is certain whether there is a Bolt run.
    """
    if record.intent is None:
        return Finding(Verdict.ABSENT)
    # The client may have sent the trigger several times. Bolt may have accepted only the last one.
    oldest = longest_request_seconds(credentials.request_timeout_seconds) + RetryPolicy.total_seconds
    age = max(0.0, time.time() - record.intent.intended_at)
    certain_after = max(times().search_seconds, oldest - age)
    limit = float("inf") if seconds is None else seconds
    finding = Finding(Verdict.UNSURE)
    # During an outage, the client retries its requests for a long time. So the time of the search is limited here, too.
    with anyio.move_on_after(limit + times().prefect_answer_seconds):
        async with credentials.get_client() as client:
            finding = await find_triggered_run(
                client,
                record.request,
                record.intent,
                window_seconds=min(limit, certain_after),
                max_outage_seconds=min(limit, oldest),
                of_others=partial(runs_of_others, record),
            )
    if finding.verdict is Verdict.FOUND:
        record.run_id, record.phase = finding.run_id, Phase.RUNNING
        record.began_at = record.intent.intended_at
        note = f"Bolt run {finding.run_id} is the one that our trigger started; resuming this run."
    elif finding.verdict is Verdict.ABSENT and limit < certain_after:
        note = "The trigger has started no run so far, but may still start one; sweep_orphans will search for this run."
    elif finding.verdict is Verdict.ABSENT:
        note = "The trigger has started no run."
    else:
        candidates = ", ".join(str(run_id) for run_id in finding.candidates) or "none seen"
        note = f"It is unknown whether our trigger started a run, or which one (candidates: {candidates})."
    decision_log.note(note)
    # While a run may still appear, neither its absence nor the candidates are known.
    is_final = finding.verdict is Verdict.FOUND or certain_after <= limit
    return finding if is_final else Finding(Verdict.UNSURE)


async def remaining_seconds(record: Record, credentials: ParadimeCredentials, limit: float) -> float:
    """Return how many seconds a Bolt run has left until its time limit, from 0 to the limit.

    If somebody sets the clock of a machine, the result must not change. So while the record that triggered the Bolt run
    is in memory, the monotonic clock counts. Later, the record says when the trigger was sent by Bolt's clock, and Bolt
    is asked for the present time. Only if Bolt's time is unknown, the clock of the machine counts.
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
    return max(0.0, record.remaining_seconds(limit))


def archive_of(record: Record, credentials: ParadimeCredentials, outcome: str | None) -> Archive:
    """Return the archive of a Bolt run: its artifacts of the flow run. `outcome` is a sentence for the summary."""
    is_ours = record.may_be_cancelled
    triggered_at = None
    if is_ours and record.intent is not None:
        triggered_at = datetime.fromtimestamp(record.intent.intended_at, timezone.utc)
    summary = RunRecord(
        schedule_name=record.schedule,
        run_id=record.run_id,
        state=record.state,
        branch=record.request.branch if is_ours else None,
        flow_run_page=flow_run_url(record.flow_run_id) if is_ours else None,
        triggered_at=triggered_at,
        outcome=outcome,
        attempts=record.attempts,
        notes=record.notes,
    )
    return Archive(credentials, ArtifactWriter(flow_run_id=record.flow_run_id), summary, record.archive)


def describe_run(record: Record, *, by_signal: bool = False) -> str:
    """Describe what has become of the Bolt run of a stopped flow run, in a sentence. Empty if the run was cancelled."""
    run_id, state = record.run_id, record.state
    if not record.is_open:
        has_ended = run_id is not None and state is not None and state.is_terminal
        message = f" Bolt run {run_id} had already ended as {state}."
        return message if has_ended and state != BoltRunState.CANCELED else ""
    if run_id is None:
        who = "sweep_orphans" if record.may_be_cancelled else "a retry of this flow run"
        return f" A Bolt run may have been started; {who} will search for this run."
    if by_signal and decide(record, Event.INTERRUPTED) is Action.LEAVE:
        return f" Bolt run {run_id} keeps running ({run_url(run_id)}); a retry will resume it."
    return f" Bolt run {run_id} may still be running ({run_url(run_id)}); sweep_orphans will cancel it."
