"""Watching our own flow run while a Bolt run is waited for.

A flow called as a script, a submitted task, and a flow run whose worker died are never told that somebody
cancelled them. So whoever waits also looks at the state of its own flow run and of the flow runs above it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from paradime_flows.interrupts import in_main_thread, interrupts_so_far
from paradime_flows.liveness import BEAT_SECONDS, beat

T = TypeVar("T")

WATCH_INTERVAL_SECONDS = 3.0
_INTERRUPT_INTERVAL_SECONDS = 0.25
_GENERATIONS = 10


class StoppedByPrefect(Exception):  # noqa: N818 - not an error: a person's wish
    """Our flow run, or one above it, has been cancelled or has ended without us.

    Args:
        reason: What was seen, as a sentence.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


async def parent_of(client: PrefectClient, flow_run: FlowRun) -> FlowRun | None:
    """Return the flow run that called a flow run as its subflow."""
    if flow_run.parent_task_run_id is None:
        return None
    task_run = await client.read_task_run(flow_run.parent_task_run_id)
    return None if task_run.flow_run_id is None else await client.read_flow_run(task_run.flow_run_id)


async def reason_to_stop(client: PrefectClient, flow_run_id: UUID) -> str | None:
    """Return why the work of a flow run is no longer wanted, or None.

    A flow run's own end is no reason unless it is a cancel: it may be written late or by somebody else, and what
    is still running knows better. A parent that has ended without its child is one.
    """
    flow_run: FlowRun | None = await client.read_flow_run(flow_run_id)
    own = True
    for _ in range(_GENERATIONS):
        if flow_run is None:
            return None
        state = flow_run.state
        if state is not None:
            if state.is_cancelling() or state.is_cancelled():
                return f"Flow run {flow_run.name!r} is being cancelled in Prefect."
            if not own and state.is_final():
                return f"Flow run {flow_run.name!r}, to which this one belongs, has ended as {state.name}."
        flow_run, own = await parent_of(client, flow_run), False
    return None


async def unless_stopped(
    work: Callable[[], Awaitable[T]], flow_run_id: UUID, *, interval_seconds: float = WATCH_INTERVAL_SECONDS
) -> T:
    """Do some work while watching the flow run that it belongs to.

    Args:
        work: What to do; it is cancelled when the flow run is.
        flow_run_id: The flow run.
        interval_seconds: Time between two looks at the flow run.

    Returns:
        What the work returned.

    Raises:
        StoppedByPrefect: The flow run is being cancelled, and the work has been stopped.
        Exception: What the work raised.
    """
    interrupts_before = interrupts_so_far()
    result: list[T] = []
    failure: list[Exception] = []
    reason: str | None = None

    async def watch(scope: anyio.CancelScope) -> None:
        nonlocal reason
        next_look = anyio.current_time() + interval_seconds
        next_beat = 0.0
        async with get_client() as client:
            while reason is None:
                await anyio.sleep(min(interval_seconds, _INTERRUPT_INTERVAL_SECONDS))
                if anyio.current_time() >= next_beat:
                    next_beat = anyio.current_time() + BEAT_SECONDS
                    with suppress(Exception):
                        await beat(client, flow_run_id)
                if interrupts_so_far() > interrupts_before and not in_main_thread():
                    reason = "The process of the flow run was interrupted."
                    break
                if anyio.current_time() < next_look:
                    continue
                next_look = anyio.current_time() + interval_seconds
                try:
                    reason = await reason_to_stop(client, flow_run_id)
                except ObjectNotFound:
                    reason = "The flow run has been deleted in Prefect."
                except Exception:  # noqa: BLE001, S112 - Prefect out of reach is no reason to stop a healthy run
                    continue
        scope.cancel()

    # The group would wrap what the work raises in an ExceptionGroup, so it is carried out by hand.
    async with anyio.create_task_group() as group:
        group.start_soon(watch, group.cancel_scope)
        try:
            result.append(await work())
        except Exception as error:  # noqa: BLE001 - raised again below
            failure.append(error)
        group.cancel_scope.cancel()
    if failure:
        raise failure[0]
    if result:
        return result[0]
    raise StoppedByPrefect(reason or "The flow run was stopped.")
