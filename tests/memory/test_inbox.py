"""The inbox of the webhooks' receiver, in virtual time."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from paradime_blocks import BoltRequestError
from paradime_flows.time_limits import times
from paradime_flows.watching import CommandIds, Reported
from paradime_flows.webhooks.inbox import Inbox


async def empty(inbox: Inbox) -> None:
    while inbox:  # noqa: ASYNC110 - an inbox has no event for that
        await asyncio.sleep(1)


async def test_runs_that_are_not_archived_are_tried_again_together() -> None:
    """Other webhooks do not wait for them, and they cost as few requests as one of them."""
    batches: list[tuple[float, list[CommandIds]]] = []
    loop = asyncio.get_running_loop()

    async def work(named: list[CommandIds]) -> Reported:
        batches.append((loop.time(), sorted(named)))
        error = BoltRequestError("There is no deployment.")
        return Reported(unarchived=dict.fromkeys(named, error) if len(batches) <= 3 else {})

    pause = times().webhook_retry_seconds
    await asyncio.sleep(pause - loop.time() % pause)
    inbox = Inbox(work)
    came = []
    for number in range(3):
        came.append((loop.time(), [(number,)]))
        inbox.put((number,))
        await asyncio.sleep(1)
    assert len(inbox) == 3
    await empty(inbox)
    assert batches[:3] == [(pytest.approx(at, abs=0.1), named) for at, named in came]
    assert batches[3:] == [(pytest.approx(came[0][0] + pause, abs=0.1), [(0,), (1,), (2,)])]


async def test_an_outage_of_ten_minutes_keeps_as_many_as_fit_in() -> None:
    """The pause between two attempts grows to half a minute, however many webhooks come."""
    attempts: list[float] = []
    done: list[CommandIds] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + 600

    async def work(named: list[CommandIds]) -> Reported:
        attempts.append(loop.time())
        if loop.time() < end:
            raise OSError("Bolt is unreachable.")
        done.extend(named)
        return Reported()

    inbox = Inbox(work)
    taken = []
    for number in range(10_500):
        taken.append(inbox.put((number,)))
        await asyncio.sleep(600 / 10_500)
    assert taken == [True] * 10_000 + [False] * 500
    pauses = [after - before for before, after in itertools.pairwise(attempts)]
    assert pauses[:5] == pytest.approx([1, 2, 4, 8, 16])
    assert pauses[5:] == pytest.approx([30] * len(pauses[5:]))
    await empty(inbox)
    assert sorted(done) == [(number,) for number in range(10_000)]
