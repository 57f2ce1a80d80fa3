"""Watches our own flow run while we wait for a Bolt run.

If a flow run is cancelled, Prefect does not tell a flow that was called as a script, a submitted task, or a flow run
whose worker has died. So the code that waits also polls the states of its own flow run and of the parents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound, Pause, TerminationSignal

from paradime_blocks.signals import (
    in_main_thread,
    signals_held_off,
)
from paradime_flows.ledger import Superseded, check_lease
from paradime_flows.prefect_api import (
    SwallowedSignals,
    count_signals,
    current_task_run_id,
    has_its_own_process,
    is_suspended,
    lineage,
    state_types,
    times,
)
from paradime_flows.supervision.heartbeat import ends_the_process

T = TypeVar("T")

_SIGNALLED = (TerminationSignal, KeyboardInterrupt)
_CANCELLED_THEN_RUNNING = (
    [StateType.CANCELLING, StateType.RUNNING],
    [StateType.CANCELLED, StateType.RUNNING],
)


class StoppedByPrefect(Exception):
    """The work of a flow run was stopped. Examples: the flow run was cancelled, or a parent has ended.

    Args:
        reason: Why the work was stopped, as a sentence.
        by_signal: Whether a signal stopped the process. It is not known whether somebody has cancelled the flow run.
        ends_process: Whether the cancelled flow run is the only flow run of this process. Then the process ends when
            the flow run ends.
    """

    def __init__(self, reason: str, *, by_signal: bool = False, ends_process: bool = False) -> None:
        self.reason = reason
        self.by_signal = by_signal
        self.ends_process = ends_process
        super().__init__(reason)


class Stop(NamedTuple):
    """Why the work of a flow run is no longer wanted.

    Attributes:
        reason: Why the work is no longer wanted, as a sentence.
        ends_process: Whether the cancelled flow run is the only flow run of this process. Then the process ends when
            the flow run ends.
        is_cancel: Whether somebody has cancelled the flow run or a parent. The end of a parent is not a cancel.
    """

    reason: str
    ends_process: bool = False
    is_cancel: bool = False


@dataclass
class StopRequest:
    """A request to stop, from code in the same process: a pipeline uses it to stop its steps.

    Attributes:
        reason: Why the steps must stop, as a sentence; None while the steps may continue.
        release: An error that each step raises without a clean-up, because another execution resumes the Bolt runs.
    """

    reason: str | None = None
    release: Superseded | Pause | None = None


stop_request: ContextVar[StopRequest | None] = ContextVar("stop_request", default=None)


async def cancelled_before_execution(client: PrefectClient, flow_run: FlowRun) -> FlowRun | None:
    """Return the flow run, or the parent, that was cancelled before its current execution began; else None.

    If a flow run is cancelled during AwaitingRetry, its process starts the next attempt anyway, and overwrites the
    cancelled state.
    """
    async for one in lineage(client, flow_run):
        if [None, *await state_types(client, one.id)][-2:] in _CANCELLED_THEN_RUNNING:
            return one
    return None


async def cancel_in_prefect(flow_run_id: UUID) -> Stop | None:
    """Return a `Stop` if a flow run was cancelled; None if nobody has cancelled it, or if Prefect is unreachable.

    Raises:
        Superseded: Another process runs the flow run now.
    """
    flow_run: FlowRun | None = None
    # Prefect's client retries for longer than the time we have to cancel anything.
    with suppress(Exception), anyio.move_on_after(times().prefect_answer_seconds):
        async with get_client() as client:
            flow_run = await client.read_flow_run(flow_run_id)
    if flow_run is None:
        # Without an answer from Prefect, the flow run does not count as cancelled.
        return None
    check_lease(flow_run)
    state = flow_run.state
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        return Stop("The flow run was cancelled in Prefect.", ends_the_process(flow_run))
    return None


async def reason_to_stop(client: PrefectClient, flow_run_id: UUID, *, in_task: bool = False) -> Stop | None:
    """Return why the work of a flow run is no longer wanted, or None.

    The reasons are: The flow run or a parent was cancelled. A parent has ended; but if a deployment started the child,
    only if the parent has failed. The flow of a submitted task has failed: only the flow's own code writes that state.
    No other final state of the flow run itself is a reason: it may be written late, or by another process.

    Args:
        client: An open client.
        flow_run_id: The flow run.
        in_task: Whether a task does the work. Then the flow can end while the task is running.

    Raises:
        Superseded: Another process runs the flow run, or one of its parents, now.
        Pause: The flow run, or a parent in the same process, is suspended. Prefect itself reports a suspension to the
            code only at the end of a task or flow. The Bolt run continues, and the next execution resumes it.
    """
    own = in_this_process = True
    async for flow_run in lineage(client, await client.read_flow_run(flow_run_id)):
        check_lease(flow_run)
        state = flow_run.state
        if state is not None:
            if state.is_cancelling() or state.is_cancelled():
                reason = f"Flow run {flow_run.name!r} is being cancelled in Prefect."
                return Stop(reason, ends_the_process(flow_run), is_cancel=True)
            if in_this_process and is_suspended(flow_run):
                raise Pause(state=state)
            if own and in_task and state.is_failed():
                return Stop(f"Flow run {flow_run.name!r} failed while its task was running.")
            # A flow run in its own process continues if its parent completes or crashes. It stops if its parent fails.
            if not own and state.is_final() and (in_this_process or state.is_failed()):
                return Stop(f"Parent flow run {flow_run.name!r} has ended as {state.name}.")
        own = False
        in_this_process = in_this_process and not has_its_own_process(flow_run)
    return None


async def check_not_stopped(flow_run_id: UUID) -> None:
    """Check that the work of a flow run is still wanted. Raise, too, if Prefect is unreachable.

    Raises:
        StoppedByPrefect: The work is no longer wanted.
        Superseded: Another process runs the flow run, or one of its parents, now.
        Pause: The flow run, or one of its parents, is suspended.
        Exception: Prefect is unreachable.
    """
    async with get_client() as client:
        stop = await reason_to_stop(client, flow_run_id)
    if stop is not None:
        raise StoppedByPrefect(stop.reason, ends_process=stop.ends_process)


async def reason_to_stop_if_known(flow_run_id: UUID) -> Stop | None:
    """Return why the work of a flow run is no longer wanted; None if it is wanted, or if Prefect is unreachable.

    Raises:
        Superseded: Another process runs the flow run, or one of its parents, now.
        Pause: The flow run, or one of its parents, is suspended.
    """
    asked = stop_request.get()
    if asked is not None and asked.release is not None:
        # The state of the flow run in Prefect may have changed since then, so Prefect is not asked.
        raise asked.release
    # Prefect's client retries for longer than the time we have to cancel anything.
    with suppress(Exception), anyio.move_on_after(times().prefect_answer_seconds):
        async with get_client() as client:
            return await reason_to_stop(client, flow_run_id)
    return None


async def unless_stopped(
    work: Callable[[], Awaitable[T]],
    flow_run_id: UUID,
    *,
    interval_seconds: float | None = None,
    parts: StopRequest | None = None,
) -> T:
    """Do some work, and watch the flow run of the work meanwhile.

    Args:
        work: The work to do. If the flow run is cancelled, the work is cancelled.
        flow_run_id: The flow run.
        interval_seconds: Time between two polls of the flow run, if not the default.
        parts: The stop request that a pipeline shares with its steps.
            Its `release` is set before the parts are stopped.

    Returns:
        What the work returned.

    Raises:
        StoppedByPrefect: The flow run is being cancelled, and the work has been stopped.
        Superseded: Another process runs the flow run now, and the work has been stopped.
        Pause: The flow run has been suspended, and the work has been stopped.
        TerminationSignal, KeyboardInterrupt: A signal came during the work. The exception is not put into an exception
            group, because Prefect would not recognize it there.
        Exception: The error that the work raised.
    """
    watch = _Watch(flow_run_id, interval_seconds or times().watch_interval_seconds, parts)
    result: list[T] = []
    failure: list[BaseException] = []
    # The task group would put an error of the work into an ExceptionGroup. So the error is stored, and raised below.
    with watch.held:
        async with anyio.create_task_group() as group:
            group.start_soon(watch.run, group.cancel_scope)
            try:
                result.append(await work())
            except (Exception, Superseded, Pause, *_SIGNALLED) as error:  # noqa: BLE001 - raised again below
                if isinstance(error, _SIGNALLED):
                    # Another signal would interrupt the end of the group.
                    watch.held.enter_context(signals_held_off())
                failure.append(error)
            group.cancel_scope.cancel()
    if watch.signal is not None:
        raise watch.signal
    if watch.release is not None and not result:
        raise watch.release
    if failure:
        raise failure[0]
    if result:
        return result[0]
    stop = watch.stop
    assert stop is not None  # noqa: S101 - nothing else ends the work without a result
    raise StoppedByPrefect(stop.reason, by_signal=watch.by_signal, ends_process=stop.ends_process)


class _Watch:
    """Polls for a reason to stop.

    Args:
        flow_run_id: The flow run that is watched.
        interval_seconds: Time between two polls of the flow run.
        parts: The stop request that the parts of the work read.
    """

    def __init__(self, flow_run_id: UUID, interval_seconds: float, parts: StopRequest | None) -> None:
        self.flow_run_id = flow_run_id
        self.interval_seconds = interval_seconds
        self.parts = parts
        self.stop: Stop | None = None
        self.by_signal = False
        self.release: Superseded | Pause | None = None
        self.signal: TerminationSignal | KeyboardInterrupt | None = None
        self.held = ExitStack()
        self._heard = count_signals()
        self._swallowed = SwallowedSignals(self._heard)
        self._asked = stop_request.get()
        self._next_look = anyio.current_time() + interval_seconds
        self._in_task = current_task_run_id() is not None

    async def run(self, scope: anyio.CancelScope) -> None:
        """Watch until there is a reason to stop, then cancel the scope of the work."""
        try:
            async with get_client() as client:
                while self.stop is None and self.release is None:
                    await anyio.sleep(min(self.interval_seconds, times().signal_interval_seconds))
                    self.stop = self._reason_in_this_process()
                    if self.stop is None and self.release is None:
                        self.stop = await self._reason_in_prefect(client)
        except _SIGNALLED as signal:
            self.signal = signal
        if self.stop is not None and self.stop.ends_process:
            # The signal of Prefect's runner may come during the clean-up, and must not interrupt the clean-up.
            self.held.enter_context(signals_held_off()).keep()
        if self.parts is not None and self.release is not None:
            self.parts.release = self.release
        scope.cancel()

    def _reason_in_this_process(self) -> Stop | None:
        if self._heard.interrupts and not in_main_thread():
            self.by_signal = True
            return Stop("The process of the flow run was interrupted.")
        self._swallowed.check()
        if self._asked is None:
            return None
        self.release = self._asked.release
        return None if self._asked.reason is None else Stop(self._asked.reason)

    async def _reason_in_prefect(self, client: PrefectClient) -> Stop | None:
        if anyio.current_time() < self._next_look:
            return None
        self._next_look = anyio.current_time() + self.interval_seconds
        try:
            return await reason_to_stop(client, self.flow_run_id, in_task=self._in_task)
        except (Superseded, Pause) as release:
            self.release = release
            return None
        except ObjectNotFound:
            return Stop("The flow run has been deleted in Prefect.")
        except Exception:  # noqa: BLE001 - an unreachable Prefect is no reason to stop a healthy run
            return None
