"""The parts of the webhooks' receiver: the body, the secret, and the inbox."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paradime_flows.time_limits import Timing, use_timing
from paradime_flows.watching import Reported
from paradime_flows.webhooks.body import MOST_COMMANDS, command_ids
from paradime_flows.webhooks.inbox import Inbox
from paradime_flows.webhooks.secret import HidePath, is_secret, parse_secrets

FIRST, SECOND = "a" * 16, "b-._~" * 4


def body(*ids) -> bytes:
    return json.dumps({"commands": [{"id": id_} for id_ in ids]}).encode()


def test_only_ids_of_commands_are_read():
    """Each once, whatever else there is."""
    assert command_ids(body(3, 1, 3)) == (3, 1)
    assert command_ids(body(None, "5", *[True], 0, -1, 2**31, 1.5, [], {})) == ()
    assert command_ids(b'{"commands": [5, null, "x", [], {"id": 7}], "run_id": 9}') == (7,)
    assert command_ids(b'{"commands": {"id": 5}}') == command_ids(b"{}") == ()
    assert len(command_ids(body(*range(1, 10_000)))) == MOST_COMMANDS


@pytest.mark.parametrize("text", [b"", b"[]", b"5", b"null", b'{"commands": [', b"\xff", b"[" * 100_000])
def test_another_body_is_refused(text):
    """So is one that is cut off, or nested too deeply."""
    with pytest.raises(ValueError, match=r"."):
        command_ids(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s, max_size=3)))
def test_whatever_the_commands_are_the_ids_are_valid(value):
    """The ids go into a request to Bolt."""
    found = command_ids(json.dumps({"commands": value}).encode())
    assert all(0 < id_ < 2**31 for id_ in found)


def test_one_of_several_secrets_is_accepted():
    """So that a secret can be changed without a gap."""
    secrets = parse_secrets(f" {FIRST}, {SECOND},")
    assert secrets == (FIRST, SECOND)
    assert is_secret(FIRST, secrets)
    assert is_secret(SECOND, secrets)
    assert not any(
        is_secret(text, secrets) for text in ("", FIRST[:-1], f"{FIRST},{SECOND}", "é" * 16, "\ud800")
    )


@pytest.mark.parametrize("text", ["", " , ", "short", f"{FIRST},short", "a b" * 10, "a/b" * 10, "é" * 20])
def test_a_weak_or_unusable_secret_is_refused(text):
    """The message does not repeat it."""
    with pytest.raises(ValueError, match="PARADIME_WEBHOOK_SECRET") as refused:
        parse_secrets(text)
    assert "short," not in str(refused.value)


def test_the_access_log_hides_the_secret():
    """Uvicorn passes the path as an argument."""
    arguments = ("1.2.3.4:5", "POST", f"/in/hooks/{FIRST}?x=1", "1.1", 202)
    record = logging.LogRecord("uvicorn.access", 20, "", 1, '%s - "%s %s HTTP/%s" %d', arguments, None)
    assert HidePath().filter(record)
    assert record.getMessage() == '1.2.3.4:5 - "POST /in/hooks/***?x=1 HTTP/1.1" 202'


class Worker:
    """Does the work of an inbox; each result or error is used once, and then all work succeeds."""

    def __init__(self, *results):
        self.results = list(results)
        self.batches = []
        self.may_go = asyncio.Event()
        self.may_go.set()

    async def __call__(self, named):
        self.batches.append(sorted(named))
        await self.may_go.wait()
        result = self.results.pop(0) if self.results else Reported()
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture(autouse=True)
def _quick():
    with use_timing(
        Timing(webhook_retry_seconds=0.001, webhook_again_seconds=0.001, webhook_stop_seconds=0.05)
    ):
        yield


async def empty(inbox):
    while inbox:  # noqa: ASYNC110 - an inbox has no event for that
        await asyncio.sleep(0)


async def test_repeated_webhooks_are_one_and_come_together():
    """A burst costs a few requests."""
    inbox = Inbox(worker := Worker())
    for _ in range(1000):
        assert inbox.put((1, 2))
        assert inbox.put((3,))
    assert len(inbox) == 2
    await empty(inbox)
    assert worker.batches == [[(1, 2), (3,)]]


async def test_a_webhook_that_comes_during_its_own_work_is_not_swallowed():
    """The end may come while the start is worked on, with the same commands."""
    inbox = Inbox(worker := Worker())
    worker.may_go.clear()
    inbox.put((1,))
    await asyncio.sleep(0)
    inbox.put((1,))
    assert len(inbox) == 1
    worker.may_go.set()
    await empty(inbox)
    assert worker.batches == [[(1,)], [(1,)]]


async def test_a_failure_keeps_all():
    """Bolt or Prefect is unreachable."""
    inbox = Inbox(worker := Worker(OSError("down"), OSError("down"), OSError("down")))
    inbox.put((1,))
    inbox.put((2,))
    await empty(inbox)
    assert worker.batches == [[(1,), (2,)]] * 4


async def test_what_prefect_has_not_stored_is_told_again():
    """Only that."""
    inbox = Inbox(worker := Worker(Reported(again={(2,)})))
    inbox.put((1,))
    inbox.put((2,))
    await empty(inbox)
    assert worker.batches == [[(1,), (2,)], [(2,)]]


async def test_a_run_that_has_not_ended_is_asked_about_once_more():
    """Bolt may send the webhook of the end before its API shows the end."""
    inbox = Inbox(worker := Worker(Reported(unfinished={(1,)}), Reported(unfinished={(1,)})))
    inbox.put((1,))
    await empty(inbox)
    assert worker.batches == [[(1,)], [(1,)]]


async def test_a_new_webhook_need_not_wait_for_the_second_look():
    """The second look is ten seconds later."""
    inbox = Inbox(worker := Worker(Reported(unfinished={(1,)})))
    with use_timing(Timing(webhook_again_seconds=3600)):
        inbox.put((1,))
        while not worker.batches or inbox._busy:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0)
        inbox.put((2,))
        inbox.put((1,))
        await empty(inbox)
    assert worker.batches == [[(1,)], [(1,), (2,)]]


async def test_too_many_are_refused():
    """The memory is bounded; what is waiting already may come again."""
    inbox = Inbox(worker := Worker(), most=2)
    assert [inbox.put((number,)) for number in (1, 2, 3)] == [True, True, False]
    assert inbox.put((1,))
    await empty(inbox)
    assert inbox.put((3,))
    await empty(inbox)
    assert worker.batches == [[(1,), (2,)], [(3,)]]


async def test_a_webhook_whose_work_has_begun_may_come_again():
    """It is taken although no more fit in."""
    inbox = Inbox(worker := Worker(), most=1)
    worker.may_go.clear()
    inbox.put((1,))
    await asyncio.sleep(0)
    assert [inbox.put((number,)) for number in (1, 2, 1)] == [True, False, True]
    worker.may_go.set()
    await empty(inbox)
    assert worker.batches == [[(1,)], [(1,)]]


async def test_a_stop_finishes_the_work():
    """And gives up what cannot be done in time."""
    inbox = Inbox(worker := Worker())
    await inbox.close()
    inbox.put((1,))
    await inbox.close()
    assert worker.batches == [[(1,)]]
    worker.may_go.clear()
    inbox.put((2,))
    await inbox.close()
    assert len(inbox) == 1
