"""Watches our own flow run and its parents while we wait for a Bolt run.

Prefect reports no cancel to a flow that was called as a script, to a submitted task, or after the worker has died.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NoReturn, TypeVar
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Pause, TerminationSignal

from paradime_blocks.signals import heard_since, in_main_thread, signals_held_off
from paradime_flows.ledger import Superseded, check_lease
from paradime_flows.prefect_api import (
    count_signals,
    current_task_run_id,
    family_of,
    has_its_own_process,
    is_suspended,
    lineage,
    observing,
    prefect_client,
    times,
)
from paradime_flows.supervision.decide import Event, event_of

T = TypeVar("T")


class StoppedByPrefect(Exception):
    """The work of a flow run is no longer wanted. `reason` is a sentence; `event` is for `decide`."""

    def __init__(self, reason: str, event: Event = Event.ORPHANED) -> None:
        self.reason = reason
        self.event = event
        super().__init__(reason)


@dataclass
class StopRequest:
    """A request of a pipeline to its steps, in the same process: each step raises the error `why`.

    After Superseded or Pause, no step cleans up, because another execution resumes the Bolt runs.
    """

    why: StoppedByPrefect | Superseded | Pause | None = None


stop_request: ContextVar[StopRequest | None] = ContextVar("stop_request", default=None)


async def unless_unreachable(ask: Callable[[PrefectClient], Awaitable[T]]) -> T | None:
    """Return Prefect's answer; None if it does not come soon. Prefect's client alone retries longer than that."""
    with suppress(Exception), anyio.move_on_after(times().prefect_answer_seconds):
        async with prefect_client() as client:
            return await ask(client)
    return None


def is_cancelled(family: list[FlowRun]) -> bool:
    """Whether a flow run, or one of its parents, was cancelled. A suspended flow run has no process that notices it."""
    return any(one.state is not None and event_of(one.state) is Event.CANCELLED for one in family)


def reason_in(family: list[FlowRun]) -> StoppedByPrefect | None:
    """Return why the work of the first flow run is no longer wanted, or None. The others are its parents.

    A final state of the flow run itself is no reason, because it may be written late, or by another process. There is
    one exception: a submitted task stops if its flow has failed, because only the flow's own code writes that. Raises
    Superseded after a lost lease; and Pause after a suspension, which Prefect itself reports to the code too late.
    """
    if not family:
        return StoppedByPrefect("The flow run has been deleted in Prefect.")
    in_this_process = True
    for flow_run in family:
        check_lease(flow_run)
        own, name, state = flow_run is family[0], flow_run.name, flow_run.state
        if state is not None:
            if is_cancelled([flow_run]):
                return StoppedByPrefect(f"Flow run {name!r} is being cancelled in Prefect.", Event.CANCELLED)
            if in_this_process and is_suspended(flow_run):
                raise Pause(state=state)
            if own and state.is_failed() and current_task_run_id() is not None:
                return StoppedByPrefect(f"Flow run {name!r} failed while its task was running.")
            # A flow run in a process of its own stops only if its parent fails.
            if not own and state.is_final() and (in_this_process or state.is_failed()):
                return StoppedByPrefect(f"Parent flow run {name!r} has ended as {state.name}.")
        in_this_process = in_this_process and not has_its_own_process(flow_run)
    return None


async def check_not_stopped(flow_run: FlowRun) -> None:
    """Raise if the work of a flow run, as just read, is no longer wanted, or if Prefect is unreachable."""
    async with prefect_client() as client:
        if stop := reason_in([one async for one in lineage(client, flow_run)]):
            raise stop


async def reason_to_stop_if_known(flow_run_id: UUID) -> StoppedByPrefect | None:
    """Return what `reason_in` returns for a flow run and its parents; None if Prefect is unreachable."""
    asked = stop_request.get()
    if asked is not None and isinstance(asked.why, (Superseded, Pause)):
        # The state of the flow run in Prefect may have changed since then, so Prefect is not asked.
        raise asked.why
    family = await unless_unreachable(lambda client: family_of(client, flow_run_id))
    return None if family is None else reason_in(family)


async def interrupt_of(flow_run_id: UUID) -> StoppedByPrefect:
    """Return why a signal has stopped a flow run: Prefect also sends one after a cancel of the flow run or a parent."""
    found = await reason_to_stop_if_known(flow_run_id)
    if found is not None and found.event is Event.CANCELLED:
        return found
    return StoppedByPrefect("The flow run was interrupted.", Event.INTERRUPTED)


async def unless_stopped(
    work: Callable[[], Awaitable[T]], flow_run_id: UUID, *, parts: StopRequest | None = None
) -> T:
    """Do some work, and watch its flow run meanwhile. If there is a reason to stop, cancel the work and raise it.

    Superseded or Pause is written to `parts`, the request of a pipeline to its steps, before the work is cancelled.
    """
    why: BaseException | None = None

    async def watch() -> None:
        nonlocal why
        try:
            await _watch(flow_run_id)
        except (Exception, Superseded, Pause, TerminationSignal, KeyboardInterrupt) as reason:  # noqa: BLE001
            why = reason
        if isinstance(why, StoppedByPrefect) and why.event is Event.CANCELLED:
            # The signal of Prefect's runner may come during the clean-up, and must not interrupt the clean-up.
            held.enter_context(signals_held_off()).drop()
        if parts is not None and isinstance(why, (Superseded, Pause)):
            parts.why = why
        scope.cancel()

    # There is no task group, since it would put an error into an ExceptionGroup, in which Prefect would not recognize a
    # signal.
    with ExitStack() as held, anyio.CancelScope() as scope:
        watcher = asyncio.create_task(watch())
        try:
            return await work()
        finally:
            watcher.cancel()
    assert why is not None  # noqa: S101 - nothing else ends the work without a result
    raise why


async def _watch(flow_run_id: UUID) -> NoReturn:
    """Raise when there is a reason to stop the work of the current flow run or task."""
    signals_since, asked = count_signals(), stop_request.get() or StopRequest()
    interval = times().watch_interval_seconds
    with observing(flow_run_id, interval) as observed:
        while True:
            await anyio.sleep(min(interval, times().signal_interval_seconds))
            if in_main_thread():
                # Prefect's handler has raised this in the main thread, but asyncio swallows what is raised while an
                # asyncio transport sends or receives.
                if heard_since(signals_since, (signal.SIGTERM,)) > 0:
                    raise TerminationSignal(signal=signal.SIGTERM)
            elif heard_since(signals_since) > 0:
                raise await interrupt_of(flow_run_id)
            if asked.why is not None:
                raise asked.why
            family = observed.news()
            # An unreachable Prefect is no reason to stop a healthy run.
            if family is not None and (stop := reason_in(family)):
                raise stop
