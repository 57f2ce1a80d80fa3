"""Observes the flow runs of this process and their parents, all of them with one subscription and one request.

Prefect's events say at once that the state of a flow run has changed. Then all observed flow runs are read with one
request. They are also read every half minute, because not every change has an event. While there is no event stream (a
proxy may refuse the stream), they are read every few seconds instead.

The observer is a thread. So it does not depend on the flow's own code, and serves all event loops of the process. The
thread starts with the first observed flow run. It ends a little while after the last flow run is no longer observed.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

from prefect.context import SettingsContext
from prefect.exceptions import ObjectNotFound

from paradime_flows.prefect_api.client import prefect_client
from paradime_flows.prefect_api.flow_runs import family_of
from paradime_flows.prefect_api.shared_reads import read_flow_runs
from paradime_flows.prefect_api.supervisor import the_supervisor
from paradime_flows.time_limits import times, use_timing

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

OnRead = Callable[["PrefectClient", "list[FlowRun]"], Awaitable[None]]

# The names of the states that can be a reason to stop, and of the state with which another execution begins. A state
# with another name, which a user can give, is noticed within half a minute.
_STATES: Final = (
    *("Cancelling", "Cancelled", "Suspended", "Running"),
    *("Failed", "TimedOut", "Crashed", "Completed"),
)
_EVENT: Final = "prefect.flow-run."
# The time from an event to the read of its flow run, so that flow runs that change together are read together.
_TOGETHER_SECONDS: Final = 0.2
# A wait that is shorter than this is left out, because a timer may be early by less than this.
_TICK_SECONDS: Final = 0.001


@dataclass(eq=False)
class Observed:
    """A flow run that is observed.

    Attributes:
        flow_run_id: The flow run.
        interval_seconds: Time between two reads while there is no event stream, and after an event.
        rarely_seconds: Time between two reads while there is an event stream.
        on_read: An async function that is awaited with a Prefect client and the family after each read, in the context
            of the caller that observes the flow run. An error of the function is suppressed. Reads do not wait for the
            function.
        family: The flow run, its parent, the parent's parent and so on, as read last; empty if one of them was deleted.
        reads: How often the family was read.
        due: When the flow run is to be read next, on the monotonic clock.
        event_at: When the last event for the flow run came, on the monotonic clock.
        context: The context of the caller.
        reacting: The call of `on_read` that is running, or that was the last.
    """

    flow_run_id: UUID
    interval_seconds: float
    rarely_seconds: float
    on_read: OnRead | None = None
    family: list[FlowRun] = field(default_factory=list)
    reads: int = 0
    due: float = 0.0
    event_at: float = float("-inf")
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    reacting: asyncio.Task[None] | None = None
    _seen: int = 0

    def news(self) -> list[FlowRun] | None:
        """Return the family if it was read since the last call, or else None."""
        if self.reads == self._seen:
            return None
        self._seen = self.reads
        return self.family


class Observer:
    """Observes flow runs until nobody needs that any more."""

    def __init__(self) -> None:
        self._observed: list[Observed] = []
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_active = False
        self._listening_since: float | None = None
        self._changed = asyncio.Event()

    def add(self, observed: Observed) -> None:
        """Observe a flow run. The first read is after the interval, because the caller has just read the flow run."""
        observed.due = time.monotonic() + observed.interval_seconds
        with self._lock:
            self._observed.append(observed)
            starts, self._is_active = not self._is_active, True
        if starts:
            self._start()
        else:
            self._wake()

    def remove(self, observed: Observed) -> None:
        """Stop observing a flow run."""
        with self._lock, suppress(ValueError):
            self._observed.remove(observed)

    def end(self) -> None:
        """Stop observing all flow runs."""
        with self._lock:
            self._observed.clear()
        self._wake()

    def _start(self) -> None:
        # The thread needs Prefect's settings, but not the context of one of the flow runs.
        settings, timing = SettingsContext.get(), times()

        def observe() -> None:
            if settings is not None:
                SettingsContext.__var__.set(settings)
            with use_timing(timing):
                asyncio.run(self._observe())

        context = contextvars.Context()
        threading.Thread(target=context.run, args=(observe,), name="paradime-observer", daemon=True).start()

    def _wake(self) -> None:
        loop = self._loop
        # The loop may just have ended.
        with suppress(RuntimeError):
            if loop is not None:
                loop.call_soon_threadsafe(self._changed.set)

    async def _observe(self) -> None:
        self._changed, self._loop = asyncio.Event(), (loop := asyncio.get_running_loop())
        self._listening_since = None
        stream: asyncio.Task[None] | None = None
        try:
            while await self._is_due():
                # A flow run that ends at once needs no stream.
                stream = stream or asyncio.create_task(self._listen())
                with self._lock:
                    observed = list(self._observed)
                began, is_read = time.monotonic(), False
                with suppress(Exception):
                    async with prefect_client() as client:
                        await _read(client, observed)
                    is_read = True
                self._set_due(observed, began, is_read=is_read)
        finally:
            with self._lock:
                # By now, a new thread may observe.
                if self._loop is loop:
                    self._is_active, self._loop = False, None
            if stream is not None:
                stream.cancel()
                await asyncio.wait({stream})

    async def _is_due(self) -> bool:
        """Wait until a flow run is to be read. Return False if no flow run was observed for a while."""
        ends_at = time.monotonic() + times().observer_idle_seconds
        while True:
            with self._lock:
                due = min((each.due for each in self._observed), default=None)
                now = time.monotonic()
                if due is None and ends_at - now < _TICK_SECONDS:
                    self._is_active, self._loop = False, None
                    return False
            if due is not None and due - now < _TICK_SECONDS:
                return True
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), (ends_at if due is None else due) - now)
            self._changed.clear()

    def _set_due(self, observed: list[Observed], began: float, *, is_read: bool) -> None:
        with self._lock:
            for each in observed:
                if each.event_at >= began:
                    # There was an event during the read.
                    continue
                was_event = began - each.event_at < each.interval_seconds
                listened = self._listening_since is not None and began >= self._listening_since
                rarely = listened and is_read and not was_event
                each.due = began + (each.rarely_seconds if rarely else each.interval_seconds)

    async def _listen(self) -> None:
        """Read the flow runs for which there is an event. If the stream breaks, open it again after a pause."""
        # These modules are imported here, because a run that ends at once does not need them.
        from prefect.events.clients import get_events_subscriber  # noqa: PLC0415
        from prefect.events.filters import EventFilter, EventNameFilter  # noqa: PLC0415

        pause = times().watch_interval_seconds
        while True:
            names = EventNameFilter(name=[f"{_EVENT}{state}" for state in _STATES])
            with suppress(Exception):
                async with get_events_subscriber(EventFilter(event=names), reconnection_attempts=0) as events:
                    # No event has told us what happened before this moment. But all flow runs are due within seconds.
                    self._listening_since, pause = time.monotonic(), times().watch_interval_seconds
                    async for event in events:
                        self._read_soon(event.resource.id.removeprefix(_EVENT), str(event.id))
            self._listening_since = None
            self._read_soon()
            await asyncio.sleep(pause)
            pause = min(2 * pause, times().stream_pause_seconds)

    def _read_soon(self, flow_run_id: str | None = None, state_id: str = "") -> None:
        """Read one or all flow runs soon, and again after the interval, because some changes come in two steps.

        Args:
            flow_run_id: The flow run; None for all.
            state_id: The new state of the flow run. If an execution of this process began with this state, nothing is
                read.
        """
        now = time.monotonic()
        lease = None if flow_run_id is None else the_supervisor().leases.get(UUID(flow_run_id))
        if lease is not None and lease.holder == state_id:
            return
        with self._lock:
            for each in self._observed:
                ids = {str(each.flow_run_id), *map(str, the_supervisor().of(each.flow_run_id).parents or ())}
                if flow_run_id is None or flow_run_id in ids:
                    each.event_at = now
                    each.due = min(each.due, now + _TOGETHER_SECONDS)
        self._changed.set()


async def _read(client: PrefectClient, observed: list[Observed]) -> None:
    wanted = {each.flow_run_id for each in observed}
    for flow_run_id in list(wanted):
        wanted.update(the_supervisor().of(flow_run_id).parents or ())
    found = await read_flow_runs(client, wanted)
    for each in observed:
        try:
            each.family = await family_of(client, each.flow_run_id, found)
        except ObjectNotFound:
            each.family = []
        each.reads += 1
        if each.on_read is not None and (each.reacting is None or each.reacting.done()):
            reacting = each.context.run(asyncio.create_task, _react(client, each, each.on_read))
            each.reacting = reacting


async def _react(client: PrefectClient, observed: Observed, on_read: OnRead) -> None:
    # What fails now is tried again after the next read.
    with suppress(Exception):
        await on_read(client, observed.family)


def the_observer() -> Observer:
    """Return the observer of this process."""
    supervisor = the_supervisor()
    if supervisor.observer is None:
        supervisor.observer = Observer()
    return supervisor.observer


@contextmanager
def observing(flow_run_id: UUID, interval_seconds: float) -> Iterator[Observed]:
    """Observe a flow run during the `with` block.

    Args:
        flow_run_id: The flow run.
        interval_seconds: Time between two reads while there is no event stream.
    """
    observed = Observed(flow_run_id, interval_seconds, times().rarely_seconds)
    observer = the_observer()
    observer.add(observed)
    try:
        yield observed
    finally:
        observer.remove(observed)
