"""Some cases of the fault matrix on a real Prefect server and a simulator behind a socket.

`tests/faults/test_matrix.py` runs all of them in memory. The difference of a real server is the same for each.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import anyio
import pytest
from faults.bench import SCHEDULE, credentials_for, outcome_of
from faults.matrix import CASES, judge
from support.prefect_api import artifacts_of

from paradime_blocks import polling
from paradime_blocks.credentials import ParadimeCredentials
from paradime_blocks.testing import BoltSimulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.bench import Outcome

SPEED = 25.0
# The call that is hit must not depend on how often the flow polls.
SAMPLED = [case for case in CASES if case.place in {"first", "end", "result"}][::31]


@contextmanager
def fast_time() -> Iterator[None]:
    """Shorten every wait of the package; requests and their time limits stay real."""

    async def sleep(seconds: float) -> None:
        await anyio.sleep(seconds / SPEED)

    clock = polling.Clock(monotonic=lambda: time.monotonic() * SPEED, sleep=sleep)
    get_client = ParadimeCredentials.get_client

    def fast_client(self: ParadimeCredentials, **options: Any) -> Any:
        return get_client(self, sleep=sleep, **options)

    with (
        mock.patch.object(polling, "SYSTEM_CLOCK", clock),
        mock.patch.object(ParadimeCredentials, "get_client", fast_client),
    ):
        yield


async def on_the_server(
    simulator: BoltSimulator, *, request_timeout_seconds: float, **parameters: Any
) -> Outcome:
    from prefect.client.orchestration import get_client

    from paradime_flows.run_schedule import run_schedule

    began = time.monotonic()
    credentials = credentials_for(simulator, request_timeout_seconds=request_timeout_seconds)
    with fast_time():
        state = await run_schedule(SCHEDULE, credentials, return_state=True, **parameters)
    error, result = None, None
    try:
        result = await state.aresult(raise_on_failure=True)
    except BaseException as raised:  # noqa: BLE001 - whatever it is, the case is judged by it
        error = raised
    flow_run_id = state.state_details.flow_run_id
    assert flow_run_id is not None
    async with get_client() as client:
        flow_run = await client.read_flow_run(flow_run_id)
    artifacts = (await artifacts_of(flow_run_id)).values()
    return outcome_of(simulator, state, error, result, flow_run, artifacts, began)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in SAMPLED])
async def test_one_fault_starts_one_run_and_leaves_none_behind(case, prefect_server, record_figures) -> None:
    """As in memory: there is one Bolt run, or none and a clear error; its end is reported; none is left over."""
    outcome = await case.run({}, on_the_server, BoltSimulator)
    record_figures("One fault", runs=outcome.runs, left_over=outcome.active)
    judge(case, outcome)
