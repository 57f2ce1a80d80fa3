"""Tasks that wait for a Bolt run or cancel a Bolt run."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from prefect.exceptions import CancelledRun
from typing_extensions import Unpack

from paradime_blocks import (
    BoltAuthError,
    BoltError,
    BoltRun,
    BoltRunResult,
    BoltRunState,
    BoltUnavailable,
    ParadimeCredentials,
)
from paradime_blocks.options import GraceSeconds, NonEmpty, WaitOptions, chosen
from paradime_blocks.polling import TIMEOUT_SECONDS
from paradime_blocks.signals import INTERRUPTS
from paradime_flows.events import emit_ended
from paradime_flows.ledger import FlowRunLedger, Record, read_records, take_lease
from paradime_flows.live.view import LiveView
from paradime_flows.parameters import CredentialsParameter, RunId, WatchOptions
from paradime_flows.prefect_api import (
    async_form,
    bolt_task,
    count_signals,
    current_flow_run_id,
    filled,
    prefect_client,
    resolve_credentials,
)
from paradime_flows.supervision import (
    Action,
    Event,
    StoppedByPrefect,
    clean_up_interrupted,
    decide,
    describe_run,
    reason_to_stop_if_known,
    remaining_seconds,
    unless_stopped,
)


@bolt_task(name="wait-for-bolt-run", task_run_name="wait for {run_id}")
async def wait_for_bolt_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    schedule_name: NonEmpty | None = None,
    **options: Unpack[WatchOptions],
) -> BoltRunResult:
    """Wait until a Bolt run has succeeded.

    If this flow run triggered the Bolt run, the time limit counts from the trigger. A time-out then cancels the Bolt
    run. An interrupt cancels the Bolt run, too, unless the option `on_interrupt` of the trigger says otherwise.

    If somebody else triggered the Bolt run, the time limit counts from the start of this task. This task then never
    cancels the Bolt run.

    Args:
        run_id: The id of the Bolt run.
        credentials: A `ParadimeCredentials` block, its name, or None for the `PARADIME_*` environment variables.
        schedule_name: The schedule of the run, for messages.
        options: How to wait, and what to show of the run while it is running.

    Returns:
        The result of the run.

    Raises:
        BoltRunFailed: The run ended FAILED or ERROR.
        BoltRunCanceled: The run ended CANCELED.
        BoltRunSkipped: The run ended SKIPPED.
        BoltRunTimedOut: The time limit was reached.
        prefect.exceptions.CancelledRun: The flow run was cancelled in Prefect. If this flow run triggered the Bolt
            run, the Bolt run was cancelled, too.
        BoltError: Another error. The class of the error says what went wrong.
    """
    count_signals()
    limits: dict[str, Any] = {"timeout_seconds": TIMEOUT_SECONDS, **chosen(WaitOptions, options)}
    found = await resolve_credentials(credentials)
    flow_run_id = current_flow_run_id()
    record = await _record_of(run_id, flow_run_id, found)
    owned = record is not None and decide(record, Event.TIME_LIMIT) is Action.CANCEL
    run = BoltRun(
        run_id=run_id,
        credentials=found,
        schedule_name=schedule_name or (record.schedule if record else None),
        cancel_on_timeout=owned,
        **limits,
    )
    if flow_run_id is None:
        await run.await_for_completion()
        return await run.afetch_result()

    shown = filled(WatchOptions, options)
    view = LiveView(
        flow_run_id,
        run.schedule_name,
        shown["live_logs"],
        command_task_runs=shown["command_task_runs"],
    )

    async def wait() -> None:
        limit = limits["timeout_seconds"]
        left = limit if record is None else await remaining_seconds(record, found, limit)
        await run.await_for_completion(left, watcher=partial(view.watch, run), whole_seconds=limit)

    try:
        async with view:
            await unless_stopped(wait, flow_run_id)
        result = await run.afetch_result()
    except (StoppedByPrefect, *INTERRUPTS) as error:
        if record is not None:
            await clean_up_interrupted(record, found, error)
        if isinstance(error, StoppedByPrefect):
            run_text = "" if record is None else describe_run(record, error.event)
            raise CancelledRun(f"{error.reason}{run_text}") from None
        raise
    except BoltError as error:
        if record is not None and isinstance(error, (BoltUnavailable, BoltAuthError)):
            # Only the wait has failed. The Bolt run may still be healthy, so no hook may cancel the Bolt run.
            record.unreachable = True
            await FlowRunLedger(record).save()
        # If the flow run was suspended, this call raises Pause, and nobody sees the error. So the record must not say
        # that the error was reported.
        await reason_to_stop_if_known(flow_run_id)
        await _close(record, BoltRunState(str(error.state)) if error.state else None)
        raise
    await reason_to_stop_if_known(flow_run_id)
    await _close(record, result.state)
    return result


async def _record_of(
    run_id: int, flow_run_id: UUID | None, credentials: ParadimeCredentials
) -> Record | None:
    """Return the flow run's record of a Bolt run; None if the flow run has no such record.

    The workspace must match, too: a Bolt run of another workspace may have the same id.
    """
    if flow_run_id is None:
        return None
    async with prefect_client() as client:
        found = read_records(await take_lease(client, flow_run_id))
    return next((one for one in found if one.run_id == run_id and one.is_in(credentials)), None)


async def _close(record: Record | None, state: BoltRunState | None) -> None:
    if record is not None and state is not None and state.is_terminal:
        ledger = FlowRunLedger(record)
        await ledger.close(state, reported=True)
        if record.run_id is not None:
            emit_ended(ledger.subject(record.run_id), state)


@bolt_task(name="cancel-bolt-run", task_run_name="cancel {run_id}")
async def cancel_bolt_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    cancel_grace_seconds: GraceSeconds | None = None,
) -> BoltRunState:
    """Cancel a Bolt run (`cancelBoltRun`), and wait until the run has ended.

    If the run has already ended, the cancel changes nothing.

    Args:
        run_id: The id of the Bolt run.
        credentials: A `ParadimeCredentials` block, its name, or None for the `PARADIME_*` environment variables.
        cancel_grace_seconds: How long the run may take to end after the cancel, in seconds. None means 60.

    Returns:
        The state in which the run ended.

    Raises:
        BoltCancelUnconfirmed: Bolt refused the cancel, or the run did not end in time.
        BoltError: Another error. The class of the error says what went wrong.
    """
    found = await resolve_credentials(credentials)
    state = await BoltRun(run_id=run_id, credentials=found).acancel(cancel_grace_seconds)
    await _close(await _record_of(run_id, current_flow_run_id(), found), state)
    return state


await_for_bolt_run = async_form(wait_for_bolt_run)
acancel_bolt_run = async_form(cancel_bolt_run)
