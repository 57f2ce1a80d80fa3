"""The watch over our own flow run, and what tells one body of it from another; with the engine's own doings."""

from __future__ import annotations

import os
import signal
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, NoReturn

import anyio
import pytest
from prefect import flow
from prefect.exceptions import TerminationSignal

from paradime_flows.context import current_body, current_flow_run_id
from paradime_flows.watch import StoppedByPrefect, StopRequest, stop_request, unless_stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture
def prefects_handler() -> Iterator[None]:
    """SIGTERM raises, as Prefect has it do in the process of a flow run."""

    def raise_it(number: int, _frame: object) -> NoReturn:
        raise TerminationSignal(signal=number)

    previous = signal.signal(signal.SIGTERM, raise_it)
    yield
    signal.signal(signal.SIGTERM, previous)


@pytest.mark.usefixtures("prefects_handler")
async def test_the_runners_signal_for_a_cancel_that_we_have_seen_breaks_nothing_off() -> None:
    """Whoever clears up does so to its end, and the cancel stays a cancel."""
    cleared_up = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                os.kill(os.getpid(), signal.SIGTERM)
                await anyio.sleep(0.2)
            cleared_up.append(True)

    @flow
    async def watched() -> None:
        request = StopRequest()
        token = stop_request.set(request)
        request.reason = "It is cancelled."
        flow_run_id = current_flow_run_id()
        assert flow_run_id is not None
        try:
            await unless_stopped(work, flow_run_id)
        finally:
            stop_request.reset(token)

    with pytest.raises(StoppedByPrefect, match="It is cancelled"):
        await watched()
    assert cleared_up


async def test_a_task_that_outlives_its_body_is_not_taken_for_another() -> None:
    """The engine makes another state of the flow run's when the body ends, and again for the next body."""
    contexts: list[Context] = []
    tokens: list[str] = []

    @flow(retries=1, retry_delay_seconds=0)
    async def twice() -> None:
        contexts.append(copy_context())
        tokens.append(current_body())
        if len(tokens) == 1:
            msg = "the first body fails"
            raise ValueError(msg)

    await twice()
    assert tokens[0] != tokens[1]
    assert [context.run(current_body) for context in contexts] == tokens
