"""Shares polls between the waits that use one connection: one request reads the status of many runs.

A connection belongs to one workspace, one set of credentials and one event loop. So waits in several event loops, such
as sync waits in several threads, do not share polls.

Each wait keeps its own times. When the poll of a wait is due, this wait sends the request. The request also reads the
run of each other wait that has slept for half of its time. If a wait ends or fails, the other waits are not affected:
the request has an asyncio task of its own, and the reply has a status or an error for each run.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from paradime_blocks.errors import BoltAuthError, BoltError, BoltUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from paradime_blocks.client.runs import RunCalls
    from paradime_blocks.models import BoltRunStatus

# Many waits may begin one after the other. So if other waits share the connection, a new wait sends its first poll at
# least this many seconds after the last request.
_FIRST_POLL_SPACING_SECONDS: Final = 0.25
# After this share of its sleep, a wait joins a request of another wait.
_SHARE_OF_SLEEP: Final = 0.5


class SharedPolls:
    """The waits that share a connection."""

    def __init__(self) -> None:
        self.waits: set[SharedPoll] = set()
        # The request that is about to be sent. Waits can still join it.
        self.next: _Request | None = None
        self.sent_at = float("-inf")

    @contextmanager
    def join(
        self,
        client: RunCalls,
        run_id: int,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> Iterator[SharedPoll]:
        """Share the polls of a run with the other waits.

        Args:
            client: An open client of this connection.
            run_id: The run.
            monotonic: The clock of the wait.
            sleep: The sleep of the wait.
        """
        wait = SharedPoll(self, client, run_id, monotonic, sleep)
        self.waits.add(wait)
        try:
            yield wait
        finally:
            self.waits.discard(wait)
            wait.leave()


class SharedPoll:
    """The polls of one wait. `poll` and `sleep` take turns."""

    def __init__(
        self,
        shared: SharedPolls,
        client: RunCalls,
        run_id: int,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.client = client
        self.run_id = run_id
        # Whether Bolt refused to return this run. Then the run is polled alone, because with some backends this run
        # would make a shared request fail.
        self.alone = False
        self._shared = shared
        self._monotonic = monotonic
        self._sleep = sleep
        self._request: _Request | None = None
        self._woken: asyncio.Future[None] | None = None
        self._sleeps_until = self._slept_from = 0.0
        self._is_first = True
        self._wake_next = False

    async def poll(self) -> BoltRunStatus:
        """Return the run's status, from a request of this wait or from a request of another wait.

        Raises:
            BoltError: Bolt refused the request, or sent no usable reply about this run.
        """
        if self._is_first:
            self._is_first = False
            early = self._shared.sent_at + _FIRST_POLL_SPACING_SECONDS - self._monotonic()
            if early > 0 and len(self._shared.waits) > 1 and self._shared.next is None:
                await self.sleep(early)
        request = self._request or self._new_request()
        try:
            found = await asyncio.shield(request.task)
        finally:
            self.leave()
        outcome = found[self.run_id]
        self.alone = isinstance(outcome, BoltError) and _is_about_the_run(outcome)
        if isinstance(outcome, BoltError):
            raise outcome
        return outcome

    async def sleep(self, seconds: float) -> None:
        """Sleep until the next poll is due, until `wake` is called, or until a shared request has read this run."""
        if self._wake_next:
            self._wake_next = False
            return
        self._slept_from = self._monotonic()
        self._sleeps_until = self._slept_from + seconds
        self._woken = asyncio.get_running_loop().create_future()
        nap = asyncio.ensure_future(self._sleep(seconds))
        try:
            await asyncio.wait({nap, self._woken}, return_when=asyncio.FIRST_COMPLETED)
            if nap.done():
                nap.result()
        finally:
            nap.cancel()
            self._woken = None

    def wake(self) -> None:
        """End the sleep. If this wait does not sleep now, end the next sleep."""
        self._wake_next = self._woken is None
        self._end_sleep()

    def _end_sleep(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def leave(self) -> None:
        """Stop waiting for the request. If no other wait needs the request, cancel the request."""
        request, self._request = self._request, None
        if request is not None:
            request.members.discard(self)
            if not request.members:
                request.task.cancel()

    def join(self, request: _Request) -> None:
        """Let a request read the status of this wait's run, too."""
        self._request = request
        request.members.add(self)
        request.task.add_done_callback(lambda _: self._end_sleep())

    @property
    def is_due_soon(self) -> bool:
        """Whether this wait has slept long enough to join a request that another wait sends now."""
        if self._woken is None or self._request is not None or self.alone:
            return False
        slept = self._monotonic() - self._slept_from
        return slept >= _SHARE_OF_SLEEP * (self._sleeps_until - self._slept_from)

    def _new_request(self) -> _Request:
        shared = self._shared
        if self.alone or self.client.refuses_aliases:
            request = _Request(self)
        else:
            # The task of a new request begins in the next round of the event loop. Until then, waits can join it.
            request = shared.next = shared.next or _Request(self, shared)
        self.join(request)
        shared.sent_at = self._monotonic()
        return request


class _Request:
    """One request for the status of the runs of several waits."""

    def __init__(self, first: SharedPoll, shared: SharedPolls | None = None) -> None:
        self.members: set[SharedPoll] = set()
        # The request may outlive the client of the wait that sends it.
        self._client = first.client.clone()
        self._shared = shared
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> dict[int, BoltRunStatus | BoltError]:
        if self._shared is not None:
            self._shared.next = None
            for wait in self._shared.waits:
                if wait.is_due_soon:
                    wait.join(self)
        run_ids = sorted({wait.run_id for wait in self.members})
        errors: dict[int, BoltError] = {}
        try:
            async with self._client as client:
                if len(run_ids) == 1:
                    return {run_ids[0]: await client.get_bolt_run(run_ids[0], logs=False)}
                return {**await client.get_bolt_runs(run_ids, errors=errors), **errors}
        except BoltError as error:
            return dict.fromkeys(run_ids, error)


def _is_about_the_run(error: BoltError) -> bool:
    """Whether an error concerns only the run, and not all requests to Bolt."""
    if isinstance(error, BoltUnavailable):
        return bool(error.graphql_errors)
    return not isinstance(error, BoltAuthError)
