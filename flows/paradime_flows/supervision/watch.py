"""Watches our own flow run while we wait for a Bolt run.

Prefect does not report a cancel to a flow that was called as a script, to a submitted task, or to a flow run whose
worker has died. So the code that waits checks the states of its own flow run and of the parents.
"""

from __future__ import annotations

import os
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

from paradime_blocks.signals import had_effect_since, heard_since, in_main_thread, signals_held_off
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

T = TypeVar("T")

_SIGNALLED = (TerminationSignal, KeyboardInterrupt)
_RELEASES = (Superseded, Pause)


class StoppedByPrefect(Exception):
    """The work of a flow run is no longer wanted, for example because the flow run was cancelled.

    Args:
        reason: Why the work is no longer wanted, as a sentence.
        by_signal: Whether a signal stopped the process, and as far as is known, nobody has cancelled the flow run.
        ends_process: Whether the process ends when the cancelled flow run ends.
        is_cancel: Whether somebody has cancelled the flow run or a parent. The end of a parent is not a cancel.
    """

    def __init__(
        self, reason: str, *, by_signal: bool = False, ends_process: bool = False, is_cancel: bool = False
    ) -> None:
        self.reason = reason
        self.by_signal = by_signal
        self.ends_process = ends_process
        self.is_cancel = is_cancel
        super().__init__(reason)


@dataclass
class StopRequest:
    """A request of a pipeline to its steps, in the same process.

    Attributes:
        reason: Why the steps must stop, as a sentence; None while the steps may continue.
        release: An error that each step raises without a clean-up, because another execution resumes the Bolt runs.
    """

    reason: str | None = None
    release: Superseded | Pause | None = None


stop_request: ContextVar[StopRequest | None] = ContextVar("stop_request", default=None)


async def unless_unreachable(ask: Callable[[PrefectClient], Awaitable[T]]) -> T | None:
    """Return Prefect's answer; None if it does not come soon. Prefect's client alone retries longer than that."""
    with suppress(Exception), anyio.move_on_after(times().prefect_answer_seconds):
        async with prefect_client() as client:
            return await ask(client)
    return None


def _reason_in(family: list[FlowRun], *, in_task: bool = False) -> StoppedByPrefect | None:
    """Return why the work of the first flow run is no longer wanted, or None. The others are its parents.

    A final state of the flow run itself is no reason, because it may be written late, or by another process. There is
    one exception: a submitted task stops if its flow has failed, because only the flow's own code writes that.

    Raises:
        Superseded: Another process runs the flow run, or one of its parents, now.
        Pause: The flow run, or a parent in the same process, is suspended. Prefect itself reports a suspension to the
            code only at the end of a task or flow. The Bolt run continues, and the next execution resumes it.
    """
    if not family:
        return StoppedByPrefect("The flow run has been deleted in Prefect.")
    in_this_process = True
    for flow_run in family:
        check_lease(flow_run)
        own, name, state = flow_run is family[0], flow_run.name, flow_run.state
        if state is not None:
            if state.is_cancelling() or state.is_cancelled():
                reason = f"Flow run {name!r} is being cancelled in Prefect."
                # A runner starts a process for one flow run. Without a deployment, a worker still names the flow run.
                is_named = os.environ.get("PREFECT__FLOW_RUN_ID") == str(flow_run.id)
                ends_process = is_named or has_its_own_process(flow_run)
                return StoppedByPrefect(reason, ends_process=ends_process, is_cancel=True)
            if in_this_process and is_suspended(flow_run):
                raise Pause(state=state)
            if own and in_task and state.is_failed():
                return StoppedByPrefect(f"Flow run {name!r} failed while its task was running.")
            # A flow run in a process of its own stops only if its parent fails.
            if not own and state.is_final() and (in_this_process or state.is_failed()):
                return StoppedByPrefect(f"Parent flow run {name!r} has ended as {state.name}.")
        in_this_process = in_this_process and not has_its_own_process(flow_run)
    return None


async def check_not_stopped(flow_run: FlowRun) -> None:
    """Raise if the work of a flow run, as just read, is no longer wanted, or if Prefect is unreachable."""
    async with prefect_client() as client:
        stop = _reason_in([one async for one in lineage(client, flow_run)])
    if stop is not None:
        raise stop


async def reason_to_stop_if_known(flow_run_id: UUID, seen: FlowRun | None = None) -> StoppedByPrefect | None:
    """Return what `_reason_in` returns for a flow run; None if Prefect is unreachable.

    If the flow run was read just now (`seen`), its parents are not read.
    """
    asked = stop_request.get()
    if asked is not None and asked.release is not None:
        # The state of the flow run in Prefect may have changed since then, so Prefect is not asked.
        raise asked.release
    if seen is not None:
        return _reason_in([seen])
    family = await unless_unreachable(lambda client: family_of(client, flow_run_id))
    return None if family is None else _reason_in(family)


async def unless_stopped(
    work: Callable[[], Awaitable[T]], flow_run_id: UUID, *, parts: StopRequest | None = None
) -> T:
    """Do some work, and watch its flow run meanwhile. If there is a reason to stop, the work is cancelled.

    `parts` is the request that a pipeline shares with its steps. Its `release` is set before the work is cancelled.

    Raises:
        StoppedByPrefect, Superseded, Pause: The reason to stop (`_reason_in`).
        TerminationSignal, KeyboardInterrupt: A signal came during the work.
    """
    why: BaseException | None = None
    result: list[T] = []
    failure: BaseException | None = None
    # The task group would put an error into an ExceptionGroup, in which Prefect would not recognize a signal. So each
    # error is stored, and raised below.
    with ExitStack() as held:

        async def watch() -> None:
            nonlocal why
            try:
                await _watch(flow_run_id)
            except (StoppedByPrefect, *_RELEASES, *_SIGNALLED) as reason:
                why = reason
            if isinstance(why, StoppedByPrefect) and why.ends_process:
                # The signal of Prefect's runner may come during the clean-up, and must not interrupt the clean-up.
                held.enter_context(signals_held_off()).keep()
            if parts is not None and isinstance(why, _RELEASES):
                parts.release = why
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            try:
                result.append(await work())
            except (Exception, *_RELEASES, *_SIGNALLED) as error:  # noqa: BLE001 - raised again below
                if isinstance(error, _SIGNALLED):
                    # Another signal would interrupt the end of the group.
                    held.enter_context(signals_held_off())
                failure = error
            group.cancel_scope.cancel()
    if isinstance(why, _SIGNALLED):
        raise why
    if result:
        return result[0]
    if failure is not None and not isinstance(why, _RELEASES):
        raise failure
    assert why is not None  # noqa: S101 - nothing else ends the work without a result
    raise why


async def _watch(flow_run_id: UUID) -> NoReturn:
    """Raise when there is a reason to stop the work of the current flow run or task."""
    signals_since, asked = count_signals(), stop_request.get() or StopRequest()
    in_task = current_task_run_id() is not None
    interval = times().watch_interval_seconds
    with observing(flow_run_id, interval) as observed:
        while True:
            await anyio.sleep(min(interval, times().signal_interval_seconds))
            if in_main_thread():
                # Prefect's handler has raised this in the main thread, but asyncio swallows what is raised while an
                # asyncio transport sends or receives.
                if had_effect_since(signals_since, (signal.SIGTERM,)) > 0:
                    raise TerminationSignal(signal=signal.SIGTERM)
            elif heard_since(signals_since):
                # Prefect sends a signal after a cancel, too.
                found = await reason_to_stop_if_known(flow_run_id)
                if found is not None and found.is_cancel:
                    raise found
                raise StoppedByPrefect("The process of the flow run was interrupted.", by_signal=True)
            if asked.release is not None:
                raise asked.release
            if asked.reason is not None:
                raise StoppedByPrefect(asked.reason)
            family = observed.news()
            # An unreachable Prefect is no reason to stop a healthy run.
            if family is not None and (stop := _reason_in(family, in_task=in_task)):
                raise stop
