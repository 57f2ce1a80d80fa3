"""Keeps the webhooks that have come, until Prefect knows what has happened to their Bolt runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import anyio

from paradime_flows.prefect_api import run_logger, times
from paradime_flows.watching import CommandIds, Reported

# A webhook that waits needs less than a kilobyte.
MOST_WAITING: Final = 10_000
# The work of this many webhooks is done together, with a few requests. With more webhooks, sending their events would
# delay the answer to the next webhook.
_AT_ONCE: Final = 200

Work = Callable[[list[CommandIds]], Awaitable[Reported]]


class Inbox:
    """The webhooks that wait, and the one task that does their work.

    The task starts with the first webhook and ends with the last one, so nothing has to be started before. While Bolt
    or Prefect is unreachable, all webhooks are kept and tried again. They are kept in memory: if the process ends
    before their work is done, they are lost, and `watch_runs` sends their events.

    Args:
        work: Does the work of some webhooks.
        most: How many webhooks may wait.
    """

    def __init__(self, work: Work, *, most: int = MOST_WAITING) -> None:
        self._work = work
        self._most = most
        # For each webhook: the time at which its work may begin, and whether Bolt is asked about its run once more.
        self._waiting: dict[CommandIds, tuple[float, bool]] = {}
        self._busy: list[CommandIds] = []
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return the number of webhooks whose work is not done. Equal webhooks count as one."""
        return len(self._waiting) + sum(ids not in self._waiting for ids in self._busy)

    def put(self, ids: CommandIds) -> bool:
        """Take a webhook. If an equal webhook is waiting, the two count as one.

        Returns:
            Whether the webhook was taken; False if it is new, and too many webhooks are waiting.
        """
        if len(self) >= self._most and ids not in self._waiting and ids not in self._busy:
            return False
        # The run may have ended since an equal webhook came.
        self._waiting[ids] = (0.0, True)
        self._came.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        return True

    async def close(self) -> None:
        """Give the work that is left some time, and then stop."""
        if self._task is None:
            return
        with anyio.move_on_after(times().webhook_stop_seconds):
            while self._is_due():
                await asyncio.wait([self._task], timeout=0.1)
        self._task.cancel()
        await asyncio.wait([self._task])
        if self:
            run_logger().warning(
                "The work of %d webhooks is not done. `watch_runs` sends their events.", len(self)
            )

    def _is_due(self) -> bool:
        return bool(self._busy) or any(first for _, first in self._waiting.values())

    async def _run(self) -> None:
        failures, pause = 0, 0.0
        while self._waiting:
            now = asyncio.get_running_loop().time()
            due = [ids for ids, (at, _) in self._waiting.items() if at <= now][:_AT_ONCE]
            if not due:
                await self._until(min(at for at, _ in self._waiting.values()) - now)
                continue
            first = {ids: self._waiting.pop(ids)[1] for ids in due}
            self._busy = due
            try:
                reported = await self._work(due)
            except asyncio.CancelledError:
                self._keep(first)
                self._busy = []
                raise
            except Exception as error:  # noqa: BLE001 - whatever Bolt's or Prefect's client raises
                self._keep(first)
                pause = min(2.0**failures, times().webhook_retry_seconds)
                failures = min(failures + 1, 10)
                run_logger().warning("%d webhooks are kept for %.0f s: %s", len(due), pause, error)
            else:
                failures = 0
                self._keep({ids: first[ids] for ids in reported.again})
                again = asyncio.get_running_loop().time() + times().webhook_again_seconds
                self._keep_until(again, {ids for ids in reported.unfinished - reported.again if first[ids]})
                self._keep_unarchived(reported.unarchived)
            self._busy = []
            if failures:
                await anyio.sleep(pause)

    def _keep(self, first: dict[CommandIds, bool]) -> None:
        for ids, is_first in first.items():
            self._waiting.setdefault(ids, (0.0, is_first))

    def _keep_unarchived(self, unarchived: Mapping[CommandIds, Exception]) -> None:
        """Keep webhooks whose Bolt runs could not be archived. They do not delay the work of other webhooks."""
        for error in {*unarchived.values()}:
            run_logger().warning(
                "%d webhooks are kept until their runs are archived: %s", len(unarchived), error
            )
        # All of them are due at the same time, because their work costs fewer requests if it is done together.
        pause = times().webhook_retry_seconds
        self._keep_until((asyncio.get_running_loop().time() // pause + 1) * pause, unarchived)

    def _keep_until(self, at: float, those: Iterable[CommandIds]) -> None:
        for ids in those:
            self._waiting.setdefault(ids, (at, False))

    async def _until(self, seconds: float) -> None:
        self._came.clear()
        with anyio.move_on_after(seconds):
            await self._came.wait()
