"""Cleans up a Bolt run after a cancel, an interrupt or a crash of its flow run, or in a sweep."""

from __future__ import annotations

from functools import partial

import anyio

from paradime_blocks import BoltError, BoltRequestError, BoltRun, ParadimeCredentials
from paradime_blocks.models import BoltRunState
from paradime_blocks.signals import signals_held_off
from paradime_blocks.trigger import Finding, Verdict
from paradime_flows.ledger import FlowRunLedger, Record, hold
from paradime_flows.prefect_api import run_logger, times
from paradime_flows.supervision.decide import Action, Event, decide
from paradime_flows.supervision.tracked_run import archive_of, find_run
from paradime_flows.supervision.watch import StoppedByPrefect, reason_to_stop_if_known, unless_unreachable


async def reconcile_run(
    record: Record,
    credentials: ParadimeCredentials,
    event: Event,
    reason: str,
    *,
    search_seconds: float | None = None,
) -> BoltRunState | None:
    """Do to a Bolt run what `decide` says for an event, write the result to the record, and archive the Bolt run.

    Several processes may call this function for the same record, because a cancel of an ended Bolt run changes nothing.
    `reason` is a sentence for people. `search_seconds` limits the search for an unknown Bolt run, as in `find_run`.
    Return the final state of the Bolt run; None if the Bolt run was not cancelled and has not ended.

    Raises:
        BoltError: The Bolt run may still be running. The record stays open, so that the sweeper cleans up later.
        Superseded: Another execution runs the flow run now. That execution tracks the Bolt run.
    """
    if not record.is_in(credentials):
        msg = "The available credentials belong to another workspace. A run of that workspace can have the same id."
        guidance = (
            "Nothing was sent. Store the credentials in a ParadimeCredentials block, which hooks can read."
        )
        raise BoltRequestError(msg, guidance=guidance, schedule_name=record.schedule, run_id=record.run_id)
    record.logged_decisions().note(reason)
    # If Prefect is unreachable, the Bolt run is cleaned up without the lease.
    await unless_unreachable(partial(hold, record=record))
    try:
        return await _reconcile(record, credentials, event, search_seconds)
    finally:
        with anyio.move_on_after(times().archive_seconds):
            await archive_of(record, credentials, reason).run()


async def _reconcile(
    record: Record, credentials: ParadimeCredentials, event: Event, search_seconds: float | None
) -> BoltRunState | None:
    ledger, decision_log = FlowRunLedger(record), record.logged_decisions()
    action = decide(record, event)
    if action is Action.SEARCH:
        finding = await find_run(record, credentials, decision_log, seconds=search_seconds)
        # During the search, a new execution of the flow run may have begun. It may also have found the Bolt run.
        await unless_unreachable(partial(hold, record=record))
        action = decide(record, event, is_absent=finding.verdict is Verdict.ABSENT)
        if action is Action.KEEP and await _have_ended(finding, credentials):
            decision_log.note("All candidates have ended, so there is nothing to cancel.")
            await ledger.close(None, reported=False)
            return None
    if action is Action.CANCEL:
        return await _cancel(record, credentials)
    if action is Action.WITHDRAW:
        await ledger.withdraw()
    elif action in {Action.KEEP, Action.RESUME}:
        await ledger.save()
    elif action is Action.RELEASE:
        why = "as requested" if record.left else "since it may belong to another client"
        decision_log.note(f"Bolt run {record.run_id} keeps running, {why}.")
        # Usually, a retry of the flow run resumes the Bolt run. But if a person has cancelled the flow run, a retry
        # starts anew.
        await ledger.close(None, reported=event is Event.CANCELLED and not record.left)
    elif record.state is not None and record.state.is_terminal:
        # The record was closed after the caller had read it: somebody else has cleaned up.
        return record.state
    return None


async def _have_ended(finding: Finding, credentials: ParadimeCredentials) -> bool:
    """Whether all Bolt runs that a trigger may have started are known and have ended."""
    states = [await BoltRun(run_id, credentials).astate() for run_id in finding.candidates]
    return bool(states) and all(state.is_terminal for state in states)


async def _cancel(record: Record, credentials: ParadimeCredentials) -> BoltRunState:
    assert record.run_id is not None  # noqa: S101 - `decide` cancels only a known Bolt run
    ledger, decision_log = FlowRunLedger(record), record.logged_decisions()
    run = BoltRun(record.run_id, credentials, record.schedule, cancel_grace_seconds=times().cancel_seconds)
    try:
        state = await run.acancel()
    except BoltError as error:
        decision_log.note(f"Bolt run {run.run_id} could not be cancelled: {error.message}")
        await ledger.save()
        raise
    is_cancelled = state == BoltRunState.CANCELED
    decision_log.note(
        f"Bolt run {run.run_id} was cancelled."
        if is_cancelled
        else f"Bolt run {run.run_id} had already ended as {state}."
    )
    # If the Bolt run had already ended, nobody has reported its end yet. Then a retry of the flow run reports the end,
    # or retries the Bolt run.
    await ledger.close(state, reported=is_cancelled)
    return state


async def clean_up_interrupted(
    record: Record, credentials: ParadimeCredentials, stop: StoppedByPrefect | None = None
) -> None:
    """Clean up after an interrupt. If the flow run was cancelled, cancel the Bolt run; otherwise, the policy decides.

    `stop` says why the flow run stops, if this is known already.
    """
    with signals_held_off() as hold_off:
        if stop is None or stop.by_signal:
            # Somebody may have cancelled the flow run or a parent, and the signal may be the consequence.
            found = await reason_to_stop_if_known(record.flow_run_id)
            stop = found if found is not None and found.is_cancel else None
        event, reason = Event.INTERRUPTED, "The flow run was interrupted."
        if stop is not None:
            event, reason = Event.CANCELLED if stop.is_cancel else Event.STOPPED, stop.reason
            if stop.ends_process:
                # Prefect's runner sends a signal after a cancel, and the signal would make the flow run Crashed. The
                # flow run ends as Cancelled by itself, so the signal is not delivered.
                hold_off.keep()
        action = decide(record, event)
        if action is Action.NOTHING:
            record.decision_log().note(reason)
            # Prefect may still have an older record with a trigger that was never sent. A later execution could then
            # take another client's Bolt run for ours. So the record is written again.
            with anyio.move_on_after(times().prefect_answer_seconds):
                await FlowRunLedger(record).save()
            with anyio.move_on_after(times().archive_seconds):
                await archive_of(record, credentials, None if stop is None else reason).summary()
        elif action is Action.LEAVE:
            record.decision_log().note(
                f"{reason} The Bolt run keeps running; a retry of the flow run will resume this run."
            )
            # After this interrupt, Prefect calls the hook for a crash. The hook must leave the Bolt run running, too.
            record.on_crash = "leave"
            await FlowRunLedger(record).save()
        else:
            try:
                await reconcile_run(record, credentials, event, reason, search_seconds=times().search_seconds)
            except BoltError as error:
                run_logger().error("%s", error)
