"""Bolt is down for ten minutes while webhooks come. The time of the receiver's event loop jumps."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
from e2e.test_webhooks import ENDED, SECRET, Receiver, ended_runs, stored
from support.virtual_time import JumpingTimeLoop

from paradime_blocks.testing import faults
from paradime_flows.watch_runs import watch_runs
from paradime_flows.webhooks import app as app_module
from paradime_flows.webhooks import webhook_app
from paradime_flows.webhooks.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]
MINUTES = 10
KEPT, REFUSED = 40, 5


@pytest.fixture
def loop() -> Iterator[JumpingTimeLoop]:
    loop = JumpingTimeLoop()
    yield loop
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.mark.guarantee("Webhooks", "Bolt is unreachable when a webhook comes")
@pytest.mark.guarantee(
    "Webhooks",
    "Bolt is down, and more webhooks come than the receiver keeps",
    prefect="The events, at the next poll of `watch_runs`",
    bolt="Not changed",
    result="The receiver answers 503. A webhook that is kept already is accepted",
)
def test_bolt_is_down_for_ten_minutes(
    loop: JumpingTimeLoop,
    workspace: BoltSimulator,
    credentials: ParadimeCredentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each webhook is kept, and Bolt is asked as often as for one webhook. What is too much is left to `watch_runs`."""
    monkeypatch.setattr(app_module, "Inbox", partial(Inbox, most=KEPT))

    async def outage() -> None:
        await watch_runs(credentials)
        run_ids = ended_runs(workspace, KEPT + REFUSED)
        receiver = Receiver(webhook_app(credentials, secrets=[SECRET]))
        workspace.inject(faults.Status(503, times=100_000))
        before = len(workspace.requests)
        began = loop.time()
        loop.jumping = True
        answers = []
        for place, run_id in enumerate(run_ids):
            await asyncio.sleep(began + place * MINUTES * 60 / len(run_ids) - loop.time())
            # The webhook comes twice.
            answers += [await receiver.post(workspace.webhook_body(run_id)) for _ in range(2)]
        await asyncio.sleep(began + MINUTES * 60 - loop.time())
        assert answers == [202] * 2 * KEPT + [503] * 2 * REFUSED
        assert await receiver.post(workspace.webhook_body(run_ids[0])) == 202
        assert await receiver.waiting() == KEPT
        asked = workspace.requests[before:]
        assert Counter(each.operations for each in asked) == {("boltCommand",): len(asked)}
        # An attempt sends a request six times at most. The longest pause between two attempts is 30 s.
        assert 60 <= len(asked) <= 130, len(asked)
        workspace.clear_faults()
        while len(workspace.requests) == before + len(asked):  # noqa: ASYNC110 - the simulator is in another thread
            await asyncio.sleep(0.1)
        loop.jumping = False
        await receiver.done()
        # In each of two batches: the runs of the commands, their states, the schedules and their runs.
        assert len(workspace.requests) - before - len(asked) <= 12
        kept, refused = run_ids[:KEPT], run_ids[KEPT:]
        assert await stored(credentials, kept) == dict.fromkeys(kept, ENDED)
        assert not any((await stored(credentials, refused)).values())
        await watch_runs(credentials)
        assert await stored(credentials, refused) == dict.fromkeys(refused, ENDED)

    loop.run_until_complete(outage())
