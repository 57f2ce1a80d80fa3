"""Watching our own flow run while a Bolt run is waited for.

A flow called as a script, a submitted task, and a flow run whose worker died are never told that somebody
cancelled them. So whoever waits also looks at the state of its own flow run and of the flow runs above it.
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
    Swallowed,
    current_task_run_id,
    has_its_own_process,
    hear_signals,
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
    """Our flow run, or one above it, has been cancelled or has ended without us.

    Args:
        reason: What was seen, as a sentence.
        by_signal: It was the process that was told to end; nobody has cancelled the flow run.
        ends_process: With what was cancelled, all ends that runs in this process.
    """

    def __init__(self, reason: str, *, by_signal: bool = False, ends_process: bool = False) -> None:
        self.reason = reason
        self.by_signal = by_signal
        self.ends_process = ends_process
        super().__init__(reason)


class Stop(NamedTuple):
    """Why the work of a flow run is no longer wanted.

    Attributes:
        reason: What was seen, as a sentence.
        ends_process: With what was cancelled, all ends that runs in this process: it is no one's subflow here.
        is_cancel: Somebody has cancelled it, or what it belongs to; it has not merely lost that.
    """

    reason: str
    ends_process: bool = False
    is_cancel: bool = False


@dataclass
class StopRequest:
    """Asks the waits within it to stop, from the same process: a pipeline stops its steps by it.

    Attributes:
        reason: Why, as a sentence; None as long as they may go on.
        release: What they are to raise in place of it, and leave their Bolt runs to who comes after them.
    """

    reason: str | None = None
    release: Superseded | Pause | None = None


stop_request: ContextVar[StopRequest | None] = ContextVar("stop_request", default=None)


async def cancelled_before_execution(client: PrefectClient, flow_run: FlowRun) -> FlowRun | None:
    """Return the flow run, or the one above it, that was cancelled before its present body began; else None.

    A cancel during AwaitingRetry is written and then run over: the sleeping process begins the body again.
    """
    async for one in lineage(client, flow_run):
        if [None, *await state_types(client, one.id)][-2:] in _CANCELLED_THEN_RUNNING:
            return one
    return None


async def cancel_in_prefect(flow_run_id: UUID) -> Stop | None:
    """Return what to say of a flow run's own cancel; None if nobody has cancelled it, or Prefect cannot be asked.

    Raises:
        Superseded: Another process has taken up the flow run.
    """
    flow_run: FlowRun | None = None
    # Prefect's client tries again for longer than there is time to cancel anything in.
    with suppress(Exception), anyio.move_on_after(times().prefect_answer_seconds):
        async with get_client() as client:
            flow_run = await client.read_flow_run(flow_run_id)
    if flow_run is None:
        # Without Prefect, it is an interrupt like any other.
        return None
    check_lease(flow_run)
    state = flow_run.state
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        return Stop("The flow run was cancelled in Prefect.", ends_the_process(flow_run))
    return None


async def reason_to_stop(client: PrefectClient, flow_run_id: UUID, *, in_task: bool = False) -> Stop | None:
    """Return why the work of a flow run is no longer wanted, or None.

    A flow run's own end is no reason unless it is a cancel: it may be written late or by somebody else, and what
    is still running knows better. A parent that has ended without its child is one, or has failed without one that it
    started by a deployment; and so is, for a task that was
    submitted, that its flow has failed: nobody but the flow's own body writes that.

    Args:
        client: An open client.
        flow_run_id: The flow run.
        in_task: The work is that of a task, beside which its flow can end.

    Raises:
        Superseded: Another process has taken up the flow run, or one above it.
        Pause: The flow run, or one above it in whose body it runs, has been suspended, which Prefect tells a body only
            where a task or flow of it ends. Its Bolt run goes on, and the body that begins on resumption takes it up.
    """
    own = in_this_body = True
    async for flow_run in lineage(client, await client.read_flow_run(flow_run_id)):
        check_lease(flow_run)
        state = flow_run.state
        if state is not None:
            if state.is_cancelling() or state.is_cancelled():
                told = f"Flow run {flow_run.name!r} is being cancelled in Prefect."
                return Stop(told, ends_the_process(flow_run), is_cancel=True)
            if in_this_body and is_suspended(flow_run):
                raise Pause(state=state)
            if own and in_task and state.is_failed():
                return Stop(f"Flow run {flow_run.name!r} has failed beside its task.")
            # A process of its own outlives the parent that does not wait for it, or has crashed; but not its failure.
            if not own and state.is_final() and (in_this_body or state.is_failed()):
                told = f"Flow run {flow_run.name!r}, to which this one belongs, has ended as {state.name}."
                return Stop(told)
        own = False
        in_this_body = in_this_body and not has_its_own_process(flow_run)
    return None


async def check_not_stopped(flow_run_id: UUID) -> None:
    """See that the work of a flow run is still wanted; unlike `reason_to_stop_if_known`, it needs Prefect's answer.

    Raises:
        StoppedByPrefect: It is not.
        Superseded: Another process has taken up the flow run, or one above it.
        Pause: The flow run is suspended, or one above it.
        Exception: Prefect cannot be asked.
    """
    async with get_client() as client:
        stop = await reason_to_stop(client, flow_run_id)
    if stop is not None:
        raise StoppedByPrefect(stop.reason, ends_process=stop.ends_process)


async def reason_to_stop_if_known(flow_run_id: UUID) -> Stop | None:
    """See that no other process has taken up a flow run, or one above it, or will when it is resumed.

    Returns:
        Why its work is no longer wanted; None if it is, or Prefect cannot be asked.

    Raises:
        Superseded: One has.
        Pause: The flow run is suspended, or one above it.
    """
    asked = stop_request.get()
    if asked is not None and asked.release is not None:
        # Prefect may say otherwise by now.
        raise asked.release
    # Prefect's client tries again for longer than there is time to cancel anything in.
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
    """Do some work while watching the flow run that it belongs to.

    Args:
        work: What to do; it is cancelled when the flow run is.
        flow_run_id: The flow run.
        interval_seconds: Time between two looks at the flow run, if not as usual.
        parts: What the parts of the work ask; it hears of a reason to let go before they are stopped.

    Returns:
        What the work returned.

    Raises:
        StoppedByPrefect: The flow run is being cancelled, and the work has been stopped.
        Superseded: Another process has taken up the flow run, and the work has been stopped.
        Pause: The flow run has been suspended, and the work has been stopped.
        TerminationSignal, KeyboardInterrupt: A signal came in the midst of it; as such, since Prefect knows no group
            of it.
        Exception: What the work raised.
    """
    watch = _Watch(flow_run_id, interval_seconds or times().watch_interval_seconds, parts)
    result: list[T] = []
    failure: list[BaseException] = []
    # The group would wrap what the work raises in an ExceptionGroup, so it is carried out by hand.
    with watch.held:
        async with anyio.create_task_group() as group:
            group.start_soon(watch.run, group.cancel_scope)
            try:
                result.append(await work())
            except (Exception, Superseded, Pause, *_SIGNALLED) as error:  # noqa: BLE001 - raised again below
                if isinstance(error, _SIGNALLED):
                    # Another one would break off the end of the group.
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
    """Looks for a reason to stop.

    Args:
        flow_run_id: The flow run that is watched.
        interval_seconds: Time between two looks at it.
        parts: What the parts of the work ask.
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
        self._heard = hear_signals()
        self._swallowed = Swallowed(self._heard)
        self._asked = stop_request.get()
        self._next_look = anyio.current_time() + interval_seconds
        self._in_task = current_task_run_id() is not None

    async def run(self, scope: anyio.CancelScope) -> None:
        """Watch until there is a reason, then end the work's scope."""
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
            # The runner's signal may come while the work clears up: it would find no one who knows it for a cancel.
            self.held.enter_context(signals_held_off()).keep()
        if self.parts is not None and self.release is not None:
            self.parts.release = self.release
        scope.cancel()

    def _reason_in_this_process(self) -> Stop | None:
        if self._heard.interrupts and not in_main_thread():
            self.by_signal = True
            return Stop("The process of the flow run was interrupted.")
        self._swallowed.look()
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
        except Exception:  # noqa: BLE001 - Prefect out of reach is no reason to stop a healthy run
            return None
