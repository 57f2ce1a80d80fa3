"""A Prefect task for each Bolt operation, to compose into flows of your own.

Each works awaited, called from sync code, and under `.submit()` and `.map()`. A run that a flow run triggers with
`trigger_bolt_run` is its own: it is taken up again by a retry of the flow run, and cancelled when the flow run is
cancelled while `wait_for_bolt_run` waits for it. Put the hook `paradime_flows.hooks.cancel_owned_runs` on the flow
for the time when nothing waits, and for crashes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import anyio
from prefect.client.orchestration import get_client
from prefect.states import Cancelled

from paradime_blocks.client import BoltClient
from paradime_blocks.errors import BoltError
from paradime_blocks.models import (
    BoltCommandDetail,
    BoltRunResult,
    BoltRunState,
    BoltRunStatus,
    BoltScheduleDetail,
    BoltScheduleSummary,
)
from paradime_blocks.run import CANCEL_GRACE_SECONDS, MAX_OUTAGE_SECONDS, POLL_INTERVAL_SECONDS, BoltRun
from paradime_blocks.schedule import TIMEOUT_SECONDS
from paradime_flows.calling import async_form, bolt_task
from paradime_flows.context import current_flow_run_id, current_task_run_id, resolve_credentials, resolve_schedule
from paradime_flows.lifecycle import RunLifecycle, RunPolicies
from paradime_flows.ownership import FlowRunLedger, Ownership, Policy, read_ownerships
from paradime_flows.parameters import (
    Commands,
    CredentialsParameter,
    GraceSeconds,
    NonEmpty,
    OutageSeconds,
    PollIntervalSeconds,
    RunId,
    ScheduleParameter,
    TimeoutSeconds,
)
from paradime_flows.settle import settle
from paradime_flows.watch import StoppedByPrefect, unless_stopped


@asynccontextmanager
async def _client(credentials: CredentialsParameter) -> AsyncIterator[BoltClient]:
    async with (await resolve_credentials(credentials)).get_client() as client:
        yield client


@bolt_task(name="trigger-bolt-run", task_run_name="trigger {schedule_name}")
async def trigger_bolt_run(
    schedule_name: ScheduleParameter,
    credentials: CredentialsParameter = None,
    *,
    commands: Commands | None = None,
    branch: NonEmpty | None = None,
    on_interrupt: Policy = "cancel",
    on_crash: Policy = "cancel",
) -> int:
    """Trigger a run of a schedule, at most one, and let the flow run answer for it.

    Args:
        schedule_name: The schedule's name, or a `BoltSchedule` block.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        commands: Commands that take the place of the schedule's own.
        branch: A branch or commit that takes the place of the schedule's own.
        on_interrupt: Whether an interrupt of the process cancels the run; a cancel in Prefect always does.
        on_crash: Whether a crash of the process cancels it, where the flow has the hook.

    Returns:
        The id of the run.

    Raises:
        BoltAlreadyRunning: The schedule runs already.
        BoltTriggerUnknown: The answer was lost, and it cannot be told whether a run started.
        BoltError: Nothing was started.
    """
    schedule = await resolve_schedule(schedule_name, credentials, commands=commands, branch=branch)
    flow_run_id = current_flow_run_id()
    if flow_run_id is None:
        return (await schedule.atrigger()).run_id
    policies = RunPolicies(on_already_running="fail", on_interrupt=on_interrupt, on_crash=on_crash)
    lifecycle = await RunLifecycle.begin(schedule, flow_run_id, policies, key=str(current_task_run_id()))
    async with lifecycle.settling():
        return (await lifecycle.obtain()).run_id


@bolt_task(name="wait-for-bolt-run", task_run_name="wait for {run_id}")
async def wait_for_bolt_run(
    run_id: RunId,
    credentials: CredentialsParameter = None,
    *,
    schedule_name: NonEmpty | None = None,
    timeout_seconds: TimeoutSeconds = TIMEOUT_SECONDS,
    poll_interval_seconds: PollIntervalSeconds = POLL_INTERVAL_SECONDS,
    max_outage_seconds: OutageSeconds = MAX_OUTAGE_SECONDS,
    cancel_grace_seconds: GraceSeconds = CANCEL_GRACE_SECONDS,
) -> BoltRunResult:
    """Wait for a run to succeed. A run that this flow run triggered is cancelled on time-out and on interrupt.

    Args:
        run_id: The run.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        schedule_name: Its schedule, for messages.
        timeout_seconds: How long to wait, in seconds; for a run of our own, counted from its trigger.
        poll_interval_seconds: The longest time between two looks, in seconds.
        max_outage_seconds: How long Bolt may be out of reach, in seconds.
        cancel_grace_seconds: How long a cancel may take until the run has ended, in seconds.

    Returns:
        The result of the run.

    Raises:
        BoltRunFailed: It ended FAILED or ERROR.
        BoltRunCanceled: It ended CANCELED.
        BoltRunSkipped: It ended SKIPPED.
        BoltRunTimedOut: The time limit was reached.
        BoltError: Any other trouble, as the class says.
    """
    found = await resolve_credentials(credentials)
    flow_run_id = current_flow_run_id()
    ownership = await _ownership_of(run_id, flow_run_id)
    owned = ownership is not None and ownership.owned
    run = BoltRun(
        run_id=run_id,
        credentials=found,
        schedule_name=schedule_name or (ownership.schedule if ownership else None),
        cancel_on_timeout=owned,
        timeout_seconds=ownership.remaining_seconds(timeout_seconds) if ownership else timeout_seconds,
        poll_interval_seconds=poll_interval_seconds,
        max_outage_seconds=max_outage_seconds,
        cancel_grace_seconds=cancel_grace_seconds,
    )
    if flow_run_id is None:
        await run.await_for_completion()
        return await run.afetch_result()
    try:
        await unless_stopped(run.await_for_completion, flow_run_id)
        result = await run.afetch_result()
    except StoppedByPrefect as stop:
        if ownership is not None:
            await settle(ownership, found, stop.reason)
        return Cancelled(message=stop.reason)  # type: ignore[return-value]
    except asyncio.CancelledError:
        if ownership is not None and ownership.on_interrupt == "cancel":
            with anyio.CancelScope(shield=True):
                await settle(ownership, found, "The task run was interrupted.")
        raise
    except BoltError as error:
        await _close(ownership, BoltRunState(str(error.state)) if error.state else None)
        raise
    await _close(ownership, result.state)
    return result


async def _ownership_of(run_id: int, flow_run_id: UUID | None) -> Ownership | None:
    """Return what makes a run this flow run's own."""
    if flow_run_id is None:
        return None
    async with get_client() as client:
        found = read_ownerships(await client.read_flow_run(flow_run_id))
    return next((ownership for ownership in found if ownership.run_id == run_id), None)


async def _close(ownership: Ownership | None, state: BoltRunState | None) -> None:
    if ownership is not None and state is not None and state.is_terminal:
        await FlowRunLedger(ownership, 0.0).close(state, reported=True)


@bolt_task(name="get-bolt-run", task_run_name="get {run_id}")
async def get_bolt_run(run_id: RunId, credentials: CredentialsParameter = None) -> BoltRunStatus:
    """Return a run's state and its commands with their output (`boltRunStatus`).

    Args:
        run_id: The run.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.
    """
    async with _client(credentials) as client:
        return await client.get_bolt_run(run_id)


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
    run = BoltRun(run_id=run_id, credentials=await resolve_credentials(credentials))
    state = await run.acancel(cancel_grace_seconds)
    await _close(await _ownership_of(run_id, current_flow_run_id()), state)
    return state


@bolt_task(name="get-bolt-command", task_run_name="get command {command_id}")
async def get_bolt_command(command_id: RunId, credentials: CredentialsParameter = None) -> BoltCommandDetail:
    """Return a command with its output, its run and its resources (`boltCommand`).

    Args:
        command_id: The command.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.
    """
    async with _client(credentials) as client:
        return await client.get_bolt_command(command_id)


@bolt_task(name="get-bolt-resource-url", task_run_name="get resource {resource_id}")
async def get_bolt_resource_url(resource_id: RunId, credentials: CredentialsParameter = None) -> str:
    """Return the signed, expiring URL of a resource (`boltResourceUrl`). Whoever has it can read the file.

    Args:
        resource_id: The resource, from a command's `resources`.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.
    """
    async with _client(credentials) as client:
        return await client.get_bolt_resource_url(resource_id)


@bolt_task(name="list-bolt-schedules")
async def list_bolt_schedules(
    credentials: CredentialsParameter = None, *, show_inactive: bool = False
) -> list[BoltScheduleSummary]:
    """Return all schedules of the workspace (`listBoltSchedules`, every page).

    Args:
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.
        show_inactive: Whether to list inactive schedules, too.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.
    """
    async with _client(credentials) as client:
        return [schedule async for schedule in client.iter_bolt_schedules(show_inactive=show_inactive)]


@bolt_task(name="get-bolt-schedule", task_run_name="get {schedule_name}")
async def get_bolt_schedule(schedule_name: NonEmpty, credentials: CredentialsParameter = None) -> BoltScheduleDetail:
    """Return a schedule with the id of its latest run (`boltScheduleName`).

    Args:
        schedule_name: The schedule's name.
        credentials: A `ParadimeCredentials` block, the name of one, or None for the environment's.

    Raises:
        BoltError: Bolt refused it, or no usable answer came.
    """
    async with _client(credentials) as client:
        return await client.get_bolt_schedule(schedule_name)


atrigger_bolt_run = async_form(trigger_bolt_run)
await_for_bolt_run = async_form(wait_for_bolt_run)
aget_bolt_run = async_form(get_bolt_run)
acancel_bolt_run = async_form(cancel_bolt_run)
aget_bolt_command = async_form(get_bolt_command)
aget_bolt_resource_url = async_form(get_bolt_resource_url)
alist_bolt_schedules = async_form(list_bolt_schedules)
aget_bolt_schedule = async_form(get_bolt_schedule)
