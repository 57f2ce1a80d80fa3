"""The watch over our own flow run, and how its attempts are told apart, with Prefect's real engine."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from contextlib import suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause, TerminationSignal
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Running, State, Suspended

from paradime_blocks.signals import signals_held_off
from paradime_blocks.testing import SimulatedCommand, faults
from paradime_flows.pipeline import Step
from paradime_flows.pipelines.earlier_attempts import EarlierAttempts
from paradime_flows.pipelines.runner import PipelineRun
from paradime_flows.prefect_api.context import current_execution, current_flow_run_id
from paradime_flows.prefect_api.signals import count_signals
from paradime_flows.supervision import Event
from paradime_flows.supervision.watch import (
    StoppedByPrefect,
    StopRequest,
    reason_to_stop_if_known,
    stop_request,
    unless_stopped,
)
from paradime_flows.tasks import atrigger_bolt_run, await_for_bolt_run
from paradime_flows.time_limits import Timing, use_timing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Flow runs are read often, so that the tests are short."""
    with use_timing(Timing(watch_interval_seconds=0.1)):
        yield


@pytest.fixture
def outer_handler() -> Iterator[None]:
    """Prefect passes SIGTERM to the handler that existed before its own; pytest's would end the test run."""
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, previous)


def this_flow_run() -> UUID:
    flow_run_id = current_flow_run_id()
    assert flow_run_id is not None
    return flow_run_id


async def cancel_this_flow_run() -> None:
    async with get_client() as client:
        await client.set_flow_run_state(this_flow_run(), Cancelling(), force=True)


class ClearsUp:
    """Endless work that needs a second to clean up when it is stopped; a signal arrives in that second."""

    done = False

    async def __call__(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with signals_held_off(), anyio.CancelScope(shield=True):
                os.kill(os.getpid(), signal.SIGTERM)
                await anyio.sleep(1)
                self.done = True


@pytest.mark.usefixtures("outer_handler")
async def test_the_runners_signal_for_a_cancel_already_noticed_has_no_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It affects neither the clean-up nor a wait beside it for another flow run; the handler raises."""
    work = ClearsUp()

    @flow
    def other() -> None: ...

    @flow
    async def cancelled() -> None:
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(this_flow_run()))
        count_signals()
        await cancel_this_flow_run()
        async with get_client() as client:
            not_cancelled = await client.create_flow_run(other, state=Running())
        stopped, beside = await asyncio.gather(
            unless_stopped(work, this_flow_run()),
            unless_stopped(lambda: anyio.sleep(3), not_cancelled.id),
            return_exceptions=True,
        )
        assert isinstance(stopped, StoppedByPrefect)
        assert "is being cancelled in Prefect" in stopped.reason
        assert beside is None
        assert work.done

    await cancelled(return_state=True)
    assert work.done


@pytest.mark.usefixtures("outer_handler")
async def test_a_signal_while_only_some_steps_are_stopped_is_passed_on() -> None:
    """A pipeline stops its steps, but SIGTERM is for the process."""
    work = ClearsUp()
    request = StopRequest()

    @flow
    async def stopped() -> None:
        token = stop_request.set(request)
        request.why = StoppedByPrefect("Another step has failed.")
        try:
            await unless_stopped(work, this_flow_run())
        finally:
            stop_request.reset(token)

    with pytest.raises(TerminationSignal):
        await stopped()
    assert work.done


@pytest.mark.usefixtures("outer_handler")
def test_a_signal_swallowed_before_a_wait_is_noticed_in_it() -> None:
    """Requests to Bolt and Prefect happen outside of waits too, and asyncio swallows an exception raised there."""

    @flow
    async def swallowed() -> None:
        count_signals()
        with suppress(TerminationSignal):
            os.kill(os.getpid(), signal.SIGTERM)
        await anyio.sleep(0.5)
        await unless_stopped(lambda: anyio.sleep(10), this_flow_run())

    with pytest.raises(TerminationSignal):
        asyncio.run(swallowed())


@pytest.mark.usefixtures("outer_handler")
def test_a_signal_before_a_wait_in_a_thread_is_noticed_in_it() -> None:
    """A submitted task's thread receives no signals; this one came while its flow was at the task before."""

    def in_a_thread() -> None:
        asyncio.run(unless_stopped(lambda: anyio.sleep(10), this_flow_run()))

    @flow
    async def signalled() -> None:
        count_signals()
        with suppress(TerminationSignal):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StoppedByPrefect) as stopped:
            await asyncio.to_thread(in_a_thread)
        assert stopped.value.event is Event.INTERRUPTED

    asyncio.run(signalled())


async def test_ctrl_c_during_the_work_is_raised_unchanged() -> None:
    """It is not wrapped in a group, which no one would recognise as an interrupt. Here it is caught before asyncio."""
    caught = []

    async def work() -> None:
        raise KeyboardInterrupt

    @flow
    async def interrupted() -> None:
        try:
            await unless_stopped(work, this_flow_run())
        except KeyboardInterrupt as error:
            caught.append(error)

    await interrupted()
    assert caught


async def test_a_time_limit_does_not_interrupt_a_cancel(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Prefect's own time limit expires during the cancel of the Bolt run; the flow has no hook that would help."""
    bolt_simulator.add_schedule("daily", commands=[SimulatedCommand("dbt run", duration_seconds=100_000)])
    bolt_simulator.inject(faults.Hang(5, operation="cancelBoltRun", then="cut"))

    @flow(timeout_seconds=7)
    async def limited() -> Any:
        run_id = await atrigger_bolt_run("daily", credentials)
        await cancel_this_flow_run()
        return await await_for_bolt_run(run_id, credentials)

    await limited(return_state=True)
    assert [run.state for run in bolt_simulator.runs()] == ["CANCELED"]


async def test_a_step_asked_to_stop_stops_although_its_flow_run_was_resumed() -> None:
    """A pipeline was suspended, and resumed before each of its steps had noticed the suspension."""
    request = StopRequest(Pause(state=Suspended()))

    @flow
    async def lets_go() -> None:
        token = stop_request.set(request)
        try:
            with pytest.raises(Pause):
                await unless_stopped(lambda: anyio.sleep(20), this_flow_run())
            with pytest.raises(Pause):
                await reason_to_stop_if_known(this_flow_run())
        finally:
            stop_request.reset(token)

    await lets_go()


async def test_the_parts_are_asked_to_release_their_runs_before_the_work_stops() -> None:
    """A step that polled Prefect after that could find the flow run running, and would cancel its run."""
    parts = StopRequest()
    heard = []

    async def work() -> None:
        try:
            await anyio.sleep(20)
        finally:
            heard.append(parts.why)

    @flow
    async def suspended() -> None:
        async with get_client() as client:
            await client.set_flow_run_state(this_flow_run(), Suspended(), force=True)
        await unless_stopped(work, this_flow_run(), parts=parts)

    with pytest.raises(Pause):
        await suspended()
    assert [type(one) for one in heard] == [Pause]


async def test_a_pipeline_waits_for_a_slow_step_after_another_has_noticed_the_suspension(
    credentials: ParadimeCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise the event loop ends with the pipeline, and the step counts as failed: nobody would resume its run."""
    ended = []

    @flow
    async def one_step(schedule_name: str, **others: Any) -> None:
        if schedule_name == "first":
            async with get_client() as client:
                await client.set_flow_run_state(pipeline.flow_run.id, Suspended(), force=True)
            raise Pause(state=Suspended())
        try:
            await unless_stopped(lambda: anyio.sleep(20), this_flow_run())
        finally:
            # A step releases its slot while Prefect is slow.
            await anyio.sleep(2)
            ended.append(schedule_name)

    async with get_client() as client:
        flow_run = await client.create_flow_run(one_step, state=Running())
    steps = [Step(schedule_name="first"), Step(schedule_name="slow")]
    before = EarlierAttempts(flow_run, credentials, ())
    pipeline = PipelineRun("nightly", steps, {"on_interrupt": "auto"}, before, one_step, "continue", 2)
    with pytest.raises(Pause):
        await unless_stopped(pipeline.run, flow_run.id, parts=pipeline.stop)
    assert ended == ["slow"]
    pipeline._tasks.clear()
    gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.guarantee(
    "Flows of your own",
    "A parent completes or crashes before a flow run that it started by a deployment",
    prefect="As each ends",
    bolt="The run keeps running",
    result="That flow run's own result. A cancel or a failure of the parent ends it, too",
)
async def test_only_the_flow_runs_of_one_attempt_are_suspended_together() -> None:
    """The parent's next attempt restarts a subflow; no attempt restarts a flow run of a deployment."""

    @flow
    def called() -> None: ...

    @task
    def call() -> None: ...

    async with get_client() as client:
        parent = await client.create_flow_run(called, state=Suspended())
        caller = await client.create_task_run(call, flow_run_id=parent.id, dynamic_key="0")
        subflow = await client.create_flow_run(called, state=Running(), parent_task_run_id=caller.id)
        with pytest.raises(Pause):
            await reason_to_stop_if_known(subflow.id)
        deployment = await client.create_deployment(flow_id=await client.create_flow(called), name="apart")
        apart = await client.create_flow_run_from_deployment(deployment, parent_task_run_id=caller.id)
        assert await reason_to_stop_if_known(apart.id) is None
        ends: list[State[Any]] = [Completed(), Crashed(), Failed(), Cancelled()]
        stopped = []
        for state in ends:
            await client.set_flow_run_state(parent.id, state, force=True)
            stopped.append(bool(await reason_to_stop_if_known(apart.id)))
        assert stopped == [False, False, True, True], (
            "its failure and its cancel are those of what it started"
        )


async def test_a_task_that_outlives_its_attempt_does_not_count_for_another() -> None:
    """The engine replaces the flow run's state object when the attempt ends, and again for the next attempt."""
    contexts: list[Context] = []
    tokens: list[str] = []

    @flow(retries=1, retry_delay_seconds=0)
    async def twice() -> None:
        contexts.append(copy_context())
        tokens.append(current_execution())
        if len(tokens) == 1:
            msg = "the first attempt fails"
            raise ValueError(msg)

    await twice()
    assert tokens[0] != tokens[1]
    assert [context.run(current_execution) for context in contexts] == tokens
