"""Tasks that wait for a Bolt run or cancel a Bolt run."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
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
from paradime_blocks.signals import INTERRUPTS, signals_held_off, to_the_end
from paradime_flows.ledger import FlowRunLedger, Ownership, read_ownerships, take_lease
from paradime_flows.parameters import CredentialsParameter, RunId
from paradime_flows.prefect_api import (
    async_form,
    bolt_task,
    count_signals,
    current_flow_run_id,
    resolve_credentials,
)
from paradime_flows.supervision import (
    StoppedByPrefect,
    clean_up_interrupted,
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
    **options: Unpack[WaitOptions],
) -> BoltRunResult:
    """Wait until a Bolt run succeeds. A time-out or an interrupt cancels the run if this flow run triggered it.

    If this flow run triggered the Bolt run, the time limit counts from the trigger. If not, the time limit counts from
    the start of this task.

    Args:
        run_id: The id of the Bolt run.
        credentials: A `ParadimeCredentials` block, its name, or None for the `PARADIME_*` environment variables.
        schedule_name: The schedule of the run, for messages.
        options: How to wait.

    Returns:
        The result of the run.

    Raises:
        BoltRunFailed: The run ended FAILED or ERROR.
        BoltRunCanceled: The run ended CANCELED.
        BoltRunSkipped: The run ended SKIPPED.
        BoltRunTimedOut: The time limit was reached.
        prefect.exceptions.CancelledRun: The flow run was cancelled in Prefect. If it owned the Bolt run, the Bolt run
            was cancelled, too.
        BoltError: Another error; its class says which.
    """
    count_signals()
    limits: dict[str, Any] = {"timeout_seconds": TIMEOUT_SECONDS, **chosen(WaitOptions, options)}
    found = await resolve_credentials(credentials)
    flow_run_id = current_flow_run_id()
    ownership = await _ownership_of(run_id, flow_run_id, found)
    owned = ownership is not None and ownership.owned
    run = BoltRun(
        run_id=run_id,
        credentials=found,
        schedule_name=schedule_name or (ownership.schedule if ownership else None),
        cancel_on_timeout=owned,
        **limits,
    )
    if flow_run_id is None:
        await run.await_for_completion()
        return await run.afetch_result()

    async def wait() -> None:
        limit = limits["timeout_seconds"]
        left = limit if ownership is None else await remaining_seconds(ownership, found, limit)
        await run.await_for_completion(left, whole_seconds=limit)

    try:
        await unless_stopped(wait, flow_run_id)
        result = await run.afetch_result()
    except (StoppedByPrefect, *INTERRUPTS) as error:
        stop = error if isinstance(error, StoppedByPrefect) else None
        if ownership is not None:
            # When Prefect's time limit has been reached, it cancels every further await in this block.
            with signals_held_off():
                await to_the_end(clean_up_interrupted(ownership, found, stop))
        if stop is not None:
            run_text = "" if ownership is None else describe_run(ownership, by_signal=stop.by_signal)
            raise CancelledRun(f"{stop.reason}{run_text}") from None
        raise
    except BoltError as error:
        if ownership is not None and isinstance(error, (BoltUnavailable, BoltAuthError)):
            # Only the wait has failed, and the Bolt run may still be running. So no hook may cancel the Bolt run.
            ownership.unreachable = True
            await FlowRunLedger(ownership).save()
        # If the flow run was suspended, Prefect hides the error that is raised here. So the error must not be noted as
        # reported.
        await reason_to_stop_if_known(flow_run_id)
        await _close(ownership, BoltRunState(str(error.state)) if error.state else None)
        raise
    await reason_to_stop_if_known(flow_run_id)
    await _close(ownership, result.state)
    return result


async def _ownership_of(
    run_id: int, flow_run_id: UUID | None, credentials: ParadimeCredentials
) -> Ownership | None:
    """Return the flow run's record of a Bolt run that it owns. A run of another workspace may have the same id."""
    if flow_run_id is None:
        return None
    async with get_client() as client:
        await take_lease(client, flow_run_id)
        found = read_ownerships(await client.read_flow_run(flow_run_id))
    return next((one for one in found if one.run_id == run_id and one.is_in(credentials)), None)


async def _close(ownership: Ownership | None, state: BoltRunState | None) -> None:
    if ownership is not None and state is not None and state.is_terminal:
        await FlowRunLedger(ownership).close(state, reported=True)


@bolt_task(name="cancel-bolt-run", task_run_name="cancel {run_id}")
async def cancel_bolt_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    cancel_grace_seconds: GraceSeconds | None = None,
) -> BoltRunState:
    """Cancel a Bolt run and wait until it has ended (`cancelBoltRun`). A run that has already ended does not change.

    Args:
        run_id: The id of the Bolt run.
        credentials: A `ParadimeCredentials` block, its name, or None for the `PARADIME_*` environment variables.
        cancel_grace_seconds: How long the run may take to end after the cancel, in seconds; None for 60.

    Returns:
        The state in which the run ended.

    Raises:
        BoltCancelUnconfirmed: Bolt refused the cancel, or the run did not end in time.
        BoltError: Another error; its class says which.
    """
    found = await resolve_credentials(credentials)
    state = await BoltRun(run_id=run_id, credentials=found).acancel(cancel_grace_seconds)
    await _close(await _ownership_of(run_id, current_flow_run_id(), found), state)
    return state


await_for_bolt_run = async_form(wait_for_bolt_run)
acancel_bolt_run = async_form(cancel_bolt_run)
