"""Which flow runs preceded a flow run at its place, as Prefect's engine creates them: flows of all shapes, retried.

What tells one call from another is in tests/unit/test_call_paths.py. These flows only ask for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.deployments import arun_deployment
from prefect.flow_engine import run_flow_async
from prefect.runtime import flow_run as this_flow_run

from paradime_flows.ledger.retried_parents import enter
from paradime_flows.prefect_api.flow_runs import lineage

if TYPE_CHECKING:
    from uuid import UUID

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

# The code at a place in a flow.
Work = Callable[[], Awaitable[Any]]
# The flow runs of one attempt, each with those found as its predecessors.
Attempt = list[tuple["UUID", list["UUID"]]]


class AnotherStepFailedError(Exception):
    """Causes a retry of the attempt."""


async def who_stood_here() -> tuple[UUID, list[UUID]]:
    """Return the current flow run and its predecessors, oldest first."""
    async with get_client() as client:
        flow_run = await client.read_flow_run(this_flow_run.id)
        earlier, _ = await enter(client, [one async for one in lineage(client, flow_run)])
        return flow_run.id, [one.id for one in reversed(earlier)]


@flow
async def a_flow() -> Any:
    return await who_stood_here()


@flow
async def a_flow_that_calls_it() -> Any:
    return await a_flow()


@task
async def a_task_that_calls_it() -> Any:
    return await a_flow()


@task
async def a_task_that_calls_a_flow() -> Any:
    return await a_flow_that_calls_it()


@flow
async def a_flow_that_calls_a_task() -> Any:
    return await a_task_that_calls_it()


@task
async def a_task_in_a_task() -> Any:
    return await a_task_that_calls_it()


async def retried(work: Callable[[int], Awaitable[Attempt]], by: str, attempts: int = 2) -> list[Attempt]:
    """Have a flow, or a task in it, do some work in several attempts; the work gets the number of the attempt."""
    seen: list[Attempt] = []
    times = {"retries": attempts - 1, "retry_delay_seconds": 0}

    @task(**(times if by == "task" else {}))
    async def step() -> None:
        await attempt()

    @flow(**({} if by == "task" else times))
    async def parent() -> None:
        await (attempt() if by == "flow" else step())

    async def attempt() -> None:
        seen.append(await work(len(seen)))
        if len(seen) < attempts:
            raise AnotherStepFailedError

    await parent()
    return seen


def by_place(seen: list[Attempt]) -> None:
    """Check that the first flow run of each attempt has the first ones of earlier attempts before it, and so on."""
    places: dict[int, list[UUID]] = {}
    for attempt in seen:
        for number, (flow_run_id, before) in enumerate(attempt):
            assert before == places.setdefault(number, [])
            places[number].append(flow_run_id)


def by_attempt(seen: list[Attempt]) -> None:
    """Check that each flow run has all flow runs of earlier attempts before it, and none of its own attempt."""
    earlier: set[UUID] = set()
    for attempt in seen:
        assert [set(before) for _, before in attempt] == [earlier] * len(attempt)
        earlier.update(flow_run_id for flow_run_id, _ in attempt)


longer = pytest.mark.full


@pytest.mark.parametrize(
    "called, by",
    [
        pytest.param(a_flow, "flow", id="a flow; its caller is retried"),
        pytest.param(a_flow_that_calls_it, "flow", id="a flow of a flow", marks=longer),
        pytest.param(a_flow_that_calls_a_task, "flow", id="a flow of a task of a flow"),
        pytest.param(a_task_that_calls_it, "flow", id="a flow of a task", marks=longer),
        pytest.param(a_task_in_a_task, "flow", id="a flow of a task in a task", marks=longer),
        pytest.param(
            a_flow, "flow of a task", id="a flow in a task; the task's flow is retried", marks=longer
        ),
        pytest.param(
            a_flow_that_calls_it,
            "flow of a task",
            id="a flow of a flow in a task; the task's flow is retried",
        ),
        pytest.param(
            a_task_that_calls_it,
            "flow of a task",
            id="a flow in a task in a task; the task's flow is retried",
            marks=longer,
        ),
        pytest.param(a_flow, "task", id="a task is retried and calls it"),
        pytest.param(
            a_flow_that_calls_it, "task", id="a task is retried and calls a flow of it", marks=longer
        ),
        pytest.param(a_task_that_calls_it, "task", id="a task is retried, with a task in it"),
        pytest.param(
            a_task_that_calls_a_flow,
            "task",
            id="a task is retried, with a flow of a task in it",
            marks=longer,
        ),
        pytest.param(
            a_flow_that_calls_a_task,
            "task",
            id="a task is retried, with a task of a flow in it",
            marks=longer,
        ),
    ],
)
async def test_each_attempt_finds_its_predecessors(called: Work, by: str) -> None:
    """Prefect numbers the calls of a flow: a call beyond those of earlier attempts has no predecessor."""

    async def work(number: int) -> Attempt:
        return [await called() for _ in range(1 if number == 0 else 2)]

    seen = await retried(work, by, attempts=3 if called is a_flow_that_calls_a_task else 2)
    is_numbered = by == "flow" and called in {a_flow, a_flow_that_calls_it, a_flow_that_calls_a_task}
    (by_place if is_numbered else by_attempt)(seen)


async def test_a_retried_flow_in_a_task_finds_its_predecessor() -> None:
    """It is the same task in the same attempt, but the flow that it called has another attempt."""
    seen: list[Attempt] = []

    @flow(retries=1, retry_delay_seconds=0)
    async def called() -> None:
        seen.append([await a_flow()])
        if len(seen) < 2:
            raise AnotherStepFailedError

    @task
    async def step() -> None:
        await called()

    @flow
    async def parent() -> None:
        await step()

    await parent()
    by_place(seen)


async def test_equal_calls_of_tasks_find_those_of_earlier_attempts() -> None:
    """They make the same call, one after the other and at once. None finds a call of its own attempt."""

    async def work(_: int) -> Attempt:
        one_by_one = [await a_task_that_calls_it() for _ in range(2)]
        return one_by_one + await asyncio.gather(a_task_that_calls_it(), a_task_that_calls_it())

    by_attempt(await retried(work, "flow"))


async def test_a_retried_task_does_not_find_the_equal_call_of_a_task_beside_it() -> None:
    """The other task has made its call before, in the same attempt of the flow."""
    seen: list[Attempt] = []

    @task(retries=1, retry_delay_seconds=0)
    async def step(*, fails: bool) -> None:
        seen.append([await a_flow()])
        if fails and len(seen) < 3:
            raise AnotherStepFailedError

    @flow
    async def parent() -> None:
        await step(fails=False)
        await step(fails=True)

    await parent()
    (_, before_beside), (failed, before_failed), (_, before_retry) = (one for (one,) in seen)
    assert (before_beside, before_failed, before_retry) == ([], [], [failed])


@flow(name="load")
async def loads() -> Any:
    return await who_stood_here()


@flow(name="load")
async def loads_as_well() -> Any:
    return await who_stood_here()


async def test_two_flows_with_one_name_are_different() -> None:
    """Prefect gives both the same id, and counts the runs of each from zero."""

    async def work(_: int) -> Attempt:
        return [await loads(), await loads_as_well()]

    by_place(await retried(work, "flow"))


async def test_two_calls_of_a_task_outside_a_flow_have_two_places() -> None:
    """Prefect has one key for all flows that it calls."""
    async with get_client() as client:
        await client.create_deployment(flow_id=await client.create_flow(a_flow), name="twice")

    @task
    async def refresh() -> list[Any]:
        return [await arun_deployment("a-flow/twice", timeout=0) for _ in range(2)]

    seen = [await run_flow_async(a_flow, flow_run=flow_run) for flow_run in await refresh()]
    assert [before for _, before in seen] == [[], []]
