"""Event loops whose time jumps: a wait of an hour ends at once.

The time of `VirtualTimeLoop` stands still in between, so that the order is the same each time. `JumpingTimeLoop` is for
tests with a real server.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import anyio
import anyio.lowlevel
import anyio.to_thread

from paradime_blocks import polling
from paradime_blocks.trigger import send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_real_monotonic = time.monotonic
# How long to wait, in real seconds, for something outside of the loop before a test counts as stuck.
_STUCK_SECONDS = 20.0
# How long an answer from another thread or process may take, in real seconds, before the time jumps.
_ANSWER_SECONDS = 0.05


class _Now:
    """The time of all virtual loops; real time outside of `virtual_time`."""

    monotonic = _real_monotonic()
    # The difference to the time of day.
    to_wall = 0.0


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs everything that is ready; then its time jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__(_JumpingSelector())

    def time(self) -> float:
        return _Now.monotonic


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Does not wait for timers: where a real selector would wait, it makes the loop's time jump."""

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None:
            # There is no timer: only a thread can wake the loop.
            events = super().select(_STUCK_SECONDS)
            if not events:
                raise RuntimeError("Every task is waiting, and nothing can wake any of them.")
            return events
        _Now.monotonic += timeout
        return []


class JumpingTimeLoop(asyncio.SelectorEventLoop):
    """Has the real time, so that it can talk to other processes. While `jumping` is True, it does not wait for timers.

    Set `jumping` only while all answers from outside come at once: the time limits of requests pass at once, too.
    """

    def __init__(self) -> None:
        self._patient = _PatientSelector()
        super().__init__(self._patient)

    @property
    def jumping(self) -> bool:
        return self._patient.jumping

    @jumping.setter
    def jumping(self, value: bool) -> None:
        self._patient.jumping = value

    def time(self) -> float:
        return _real_monotonic() + self._patient.jumped


class _PatientSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits a moment for answers from outside. Then it makes the loop's time jump to the next timer."""

    jumping = False
    jumped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if not self.jumping or timeout is None or timeout <= _ANSWER_SECONDS:
            return super().select(timeout)
        events = super().select(_ANSWER_SECONDS)
        if not events:
            self.jumped += timeout - _ANSWER_SECONDS
        return events


def in_this_loop(work: Callable[[], Any]) -> Future[int]:
    """Start the trigger's request as a task instead of a thread; a cancel of the caller does not reach it."""
    future: Future[int] = Future()
    future.set_running_or_notify_cancel()

    def hand_over(task: asyncio.Task[int]) -> None:
        if task.cancelled():
            future.set_exception(asyncio.CancelledError())
        elif error := task.exception():
            future.set_exception(error)
        else:
            future.set_result(task.result())

    task = asyncio.get_running_loop().create_task(work(), name="bolt-trigger")
    task.add_done_callback(hand_over)
    return future


async def _at_once(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
    """Run the work of another thread in this one, so that virtual time does not pass during it."""
    await anyio.lowlevel.checkpoint()
    return function(*arguments)


@contextmanager
def virtual_time() -> Iterator[None]:
    """Make the package and the simulator use the time of a `VirtualTimeLoop`.

    Threads are replaced: the trigger's by a task, the others by running their work at once.
    """
    _Now.monotonic = _real_monotonic()
    _Now.to_wall = time.time() - _Now.monotonic

    def monotonic() -> float:
        return _Now.monotonic

    def wall() -> float:
        return _Now.monotonic + _Now.to_wall

    clock = polling.Clock(monotonic=monotonic, wall=wall, sleep=anyio.sleep)
    with (
        mock.patch.object(time, "monotonic", monotonic),
        mock.patch.object(time, "time", wall),
        mock.patch.object(polling, "SYSTEM_CLOCK", clock),
        mock.patch.object(send, "in_own_thread", in_this_loop),
        mock.patch.object(anyio.to_thread, "run_sync", _at_once),
    ):
        yield


async def until(condition: Callable[[], object], *, within: float = 3600.0) -> None:
    """Let virtual time pass until a condition is true."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not condition():
        assert loop.time() < deadline, "The condition did not become true."
        await asyncio.sleep(0.01)
