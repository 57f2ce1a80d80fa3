"""A Prefect task for each Bolt operation, to compose into flows of your own.

Each works awaited, called from sync code, and under `.submit()` and `.map()`. A run that a flow run triggers
with `trigger_bolt_run` is its own: it is taken up again by a retry of the flow run, and cancelled when the
flow run is cancelled while `wait_for_bolt_run` waits for it. Put the hook
`paradime_flows.hooks.cancel_owned_runs` on the flow for the time when nothing waits, and for crashes.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import CancelledRun
from prefect.runtime import task_run as this_task_run
from typing_extensions import Unpack

from paradime_blocks.credentials import ParadimeCredentials
from paradime_blocks.errors import BoltAuthError, BoltError, BoltRequestError, BoltUnavailable
from paradime_blocks.models import BoltRunResult, BoltRunState
from paradime_blocks.options import GraceSeconds, NonEmpty, TriggerOptions, WaitOptions, chosen
from paradime_blocks.run import CANCEL_GRACE_SECONDS, BoltRun
from paradime_blocks.schedule import TIMEOUT_SECONDS, BoltSchedule
from paradime_blocks.signals import INTERRUPTS, signals_held_off, to_the_end
from paradime_blocks.trigger.request import TriggerRequest
from paradime_flows.choices import Policy
from paradime_flows.ledger.entry import FlowRunLedger, Ownership, read_ownerships
from paradime_flows.ledger.store import take_hold
from paradime_flows.parameters import CredentialsParameter, RunId, ScheduleParameter
from paradime_flows.prefect_api.context import current_flow_run_id, current_task_run_id
from paradime_flows.prefect_api.dispatch import async_form, bolt_task
from paradime_flows.prefect_api.inputs import resolve_credentials, resolve_schedule, schedule_of_run
from paradime_flows.prefect_api.signals import hear_signals
from paradime_flows.read_tasks import (
    adownload_bolt_resource,
    aget_bolt_command,
    aget_bolt_command_logs,
    aget_bolt_resource_url,
    aget_bolt_run,
    aget_bolt_schedule,
    alatest_artifact,
    alatest_artifact_url,
    alatest_manifest,
    alist_bolt_runs,
    alist_bolt_schedules,
    asuspend_bolt_schedule,
    download_bolt_resource,
    get_bolt_command,
    get_bolt_command_logs,
    get_bolt_resource_url,
    get_bolt_run,
    get_bolt_schedule,
    latest_artifact,
    latest_artifact_url,
    latest_manifest,
    list_bolt_runs,
    list_bolt_schedules,
    suspend_bolt_schedule,
)
from paradime_flows.runner.lifecycle import RunLifecycle
from paradime_flows.runner.policies import RunPolicies
from paradime_flows.supervision.reconcile import settle_interrupted, told_of_run
from paradime_flows.supervision.time_left import remaining_seconds
from paradime_flows.supervision.watch import StoppedByPrefect, see_that_it_is_ours, unless_stopped

__all__ = [
    "acancel_bolt_run",
    "adownload_bolt_resource",
    "aget_bolt_command",
    "aget_bolt_command_logs",
    "aget_bolt_resource_url",
    "aget_bolt_run",
    "aget_bolt_schedule",
    "alatest_artifact",
    "alatest_artifact_url",
    "alatest_manifest",
    "alist_bolt_runs",
    "alist_bolt_schedules",
    "aretry_bolt_run",
    "aretry_bolt_schedule",
    "asuspend_bolt_schedule",
    "atrigger_bolt_run",
    "await_for_bolt_run",
    "cancel_bolt_run",
    "download_bolt_resource",
    "get_bolt_command",
    "get_bolt_command_logs",
    "get_bolt_resource_url",
    "get_bolt_run",
    "get_bolt_schedule",
    "latest_artifact",
    "latest_artifact_url",
    "latest_manifest",
    "list_bolt_runs",
    "list_bolt_schedules",
    "retry_bolt_run",
    "retry_bolt_schedule",
    "suspend_bolt_schedule",
    "trigger_bolt_run",
    "wait_for_bolt_run",
]


def _name_of_the_trigger() -> str:
    schedule = this_task_run.parameters.get("schedule_name")
    return f"trigger {getattr(schedule, 'schedule_name', None) or schedule}"


@bolt_task(name="trigger-bolt-run", task_run_name=_name_of_the_trigger)
async def trigger_bolt_run(
    schedule_name: ScheduleParameter,
    credentials: CredentialsParameter = None,
    *,
    on_interrupt: Policy = "cancel",
    on_crash: Policy = "cancel",
    **options: Unpack[TriggerOptions],
) -> int:
    """Trigger a run of a schedule, at most one, and let the flow run own it.

    Args:
        schedule_name: The schedule's name or slug, or a `BoltSchedule` block.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        on_interrupt: Whether an interrupt of the process cancels the run; a cancel in Prefect always does.
        on_crash: Whether a crash of the process cancels it, where the flow has the hook.
        options: What to run.

    Returns:
        The id of the run. One that began as the trigger was on its way, and for which Bolt refused it, can be our own,
        sent twice by a gateway: it is returned, and not cancelled.

    Raises:
        BoltAlreadyRunning: The schedule runs already.
        BoltTriggerUnknown: The answer was lost, and it cannot be told whether a run started.
        prefect.exceptions.CancelledRun: The flow run has been cancelled in Prefect.
        BoltError: Nothing was started, as far as looking could tell.
    """
    schedule = await resolve_schedule(schedule_name, credentials)
    request = schedule.request(**options)
    return await _start(schedule, request, on_interrupt, on_crash)


async def _start(
    schedule: BoltSchedule, request: TriggerRequest, on_interrupt: Policy, on_crash: Policy
) -> int:
    """Start a run that the flow run answers for; outside of any, nobody does."""
    flow_run_id = current_flow_run_id()
    if flow_run_id is None:
        return (await schedule.atrigger(request=request)).run_id
    policies = RunPolicies(on_already_running="fail", on_interrupt=on_interrupt, on_crash=on_crash)
    key = str(current_task_run_id())
    try:
        lifecycle = await RunLifecycle.begin(schedule, flow_run_id, policies, request=request, key=key)
    except StoppedByPrefect as stop:
        raise CancelledRun(stop.reason) from None
    try:
        async with lifecycle.settling():
            return (await lifecycle.obtain()).run_id
    except StoppedByPrefect as stop:
        told = told_of_run(lifecycle.ownership, by_signal=stop.by_signal)
        raise CancelledRun(f"{stop.reason}{told}") from None


@bolt_task(name="retry-bolt-run", task_run_name="retry {run_id}")
async def retry_bolt_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    everything: bool = False,
    schedule_name: NonEmpty | None = None,
    on_interrupt: Policy = "cancel",
    on_crash: Policy = "cancel",
) -> int:
    """Retry a run in a new run, at most one, and let the flow run answer for it.

    `retryBoltRun` or `retryAllBoltRun`; on a backend without them, a trigger with the command that failed and
    those after it.

    Args:
        run_id: The run to retry.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        everything: Whether to run all its commands again rather than only what failed.
        schedule_name: Its schedule; None to look for it.
        on_interrupt: Whether an interrupt of the process cancels the new run.
        on_crash: Whether a crash of the process cancels it, where the flow has the hook.

    Returns:
        The id of the new run.

    Raises:
        BoltRequestError: Bolt does not retry this run, or its schedule cannot be told.
        BoltError: As `trigger_bolt_run`.
    """
    found = await resolve_credentials(credentials)
    schedule = await resolve_schedule(await schedule_of_run(run_id, found, schedule_name), found)
    request = schedule.request(retry_of=run_id, retry_everything=everything)
    return await _start(schedule, request, on_interrupt, on_crash)


@bolt_task(name="retry-bolt-schedule", task_run_name="retry {schedule_name}")
async def retry_bolt_schedule(
    schedule_name: NonEmpty,
    credentials: CredentialsParameter = None,
    *,
    on_interrupt: Policy = "cancel",
    on_crash: Policy = "cancel",
) -> int:
    """Retry a schedule's latest failed run from its failure, as `retryBoltRunFromFailure` does.

    That run is looked for first, and then it is retried by its id: so a lost answer can be looked into.

    Args:
        schedule_name: The schedule's name or slug.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        on_interrupt: Whether an interrupt of the process cancels the new run.
        on_crash: Whether a crash of the process cancels it, where the flow has the hook.

    Returns:
        The id of the new run.

    Raises:
        BoltRequestError: The schedule has no failed run.
        BoltError: As `trigger_bolt_run`.
    """
    found = await resolve_credentials(credentials)
    async with found.get_client() as client:
        failed = await client.latest_failed_run(schedule_name)
    if failed is None:
        msg = "The schedule has no failed run to retry."
        raise BoltRequestError(msg, guidance="Trigger it instead.", schedule_name=schedule_name)
    schedule = await resolve_schedule(schedule_name, found)
    return await _start(schedule, schedule.request(retry_of=failed), on_interrupt, on_crash)


@bolt_task(name="wait-for-bolt-run", task_run_name="wait for {run_id}")
async def wait_for_bolt_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    schedule_name: NonEmpty | None = None,
    **options: Unpack[WaitOptions],
) -> BoltRunResult:
    """Wait for a run to succeed. One that this flow run triggered is cancelled on time-out and on interrupt.

    The time limit of a run of our own counts from its trigger, of any other from now.

    Args:
        run_id: The run.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        schedule_name: Its schedule, for messages.
        options: How to wait.

    Returns:
        The result of the run.

    Raises:
        BoltRunFailed: It ended FAILED or ERROR.
        BoltRunCanceled: It ended CANCELED.
        BoltRunSkipped: It ended SKIPPED.
        BoltRunTimedOut: The time limit was reached.
        prefect.exceptions.CancelledRun: The flow run has been cancelled in Prefect, and with it a run of its own.
        BoltError: Any other trouble, as the class says.
    """
    hear_signals()
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
            # Prefect's time limits cancel every await in here again.
            with signals_held_off():
                await to_the_end(settle_interrupted(ownership, found, stop))
        if stop is not None:
            told = "" if ownership is None else told_of_run(ownership, by_signal=stop.by_signal)
            raise CancelledRun(f"{stop.reason}{told}") from None
        raise
    except BoltError as error:
        if ownership is not None and isinstance(error, (BoltUnavailable, BoltAuthError)):
            # What failed the wait says nothing of the run: a hook must not cancel it for that.
            ownership.unseen = True
            await FlowRunLedger(ownership).save()
        # A suspension hides what is raised here: then it has not been reported.
        await see_that_it_is_ours(flow_run_id)
        await _close(ownership, BoltRunState(str(error.state)) if error.state else None)
        raise
    await see_that_it_is_ours(flow_run_id)
    await _close(ownership, result.state)
    return result


async def _ownership_of(
    run_id: int, flow_run_id: UUID | None, credentials: ParadimeCredentials
) -> Ownership | None:
    """Return what makes a run this flow run's own; another workspace's runs can bear the same ids."""
    if flow_run_id is None:
        return None
    async with get_client() as client:
        await take_hold(client, flow_run_id)
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
    cancel_grace_seconds: GraceSeconds = CANCEL_GRACE_SECONDS,
) -> BoltRunState:
    """Cancel a run and see that it has ended (`cancelBoltRun`); one that has ended already is left as it is.

    Args:
        run_id: The run.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        cancel_grace_seconds: How long it may take until the run has ended, in seconds.

    Returns:
        The state in which the run ended.

    Raises:
        BoltCancelUnconfirmed: Bolt refused the cancel, or the run had not ended in time.
        BoltError: Any other trouble, as the class says.
    """
    found = await resolve_credentials(credentials)
    state = await BoltRun(run_id=run_id, credentials=found).acancel(cancel_grace_seconds)
    await _close(await _ownership_of(run_id, current_flow_run_id(), found), state)
    return state


atrigger_bolt_run = async_form(trigger_bolt_run)
aretry_bolt_run = async_form(retry_bolt_run)
aretry_bolt_schedule = async_form(retry_bolt_schedule)
await_for_bolt_run = async_form(wait_for_bolt_run)
acancel_bolt_run = async_form(cancel_bolt_run)
