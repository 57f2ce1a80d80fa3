"""Random stories of triggers, faults, kills, retries, cancels and sweeps: one run per intent, none left over."""

from __future__ import annotations

import asyncio
import itertools
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from faults.bench import credentials_for
from faults.engine import call_flow, flow_run_context
from faults.prefect_in_memory import (
    ONE_WAY_SECONDS,
    PrefectInMemory,
    Process,
    in_place_of_prefect,
    process,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from prefect.client.schemas.objects import StateType
from support.in_process import BoltInProcess
from support.virtual_time import VirtualTimeLoop, until

from paradime_blocks.testing import faults
from paradime_blocks.testing.commands import SimulatedCommand
from paradime_flows.prefect_api.supervisor import start_new_supervisor
from paradime_flows.time_limits import Timing, use_timing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun

    from paradime_blocks.credentials import ParadimeCredentials

# From the very start to the middle of the wait: an attempt triggers after about 0.35 s.
BEATS = st.sampled_from([0.0, 0.02, 0.08, 0.15, 0.25, 0.36, 0.5, 1.0, 4.0])
# The number of writes to Prefect before a process is killed; usually, it is not killed.
WRITES = st.none() | st.none() | st.integers(1, 10)
POLICIES = st.sampled_from(["cancel", "leave"])
MOST_TIMES = 5
FAULTS = {
    "cut": faults.CutConnection,
    "cut-acts": lambda **at: faults.CutConnection(after_acting=True, **at),
    "503": lambda **at: faults.Status(503, **at),
    "401": lambda **at: faults.Status(401, **at),
    "429": lambda **at: faults.Status(429, **at),
    "garbage-acts": lambda **at: faults.Garbage(after_acting=True, **at),
    "error-acts": lambda **at: faults.GraphQLError("Internal server error", after_acting=True, **at),
    "late": lambda **at: faults.Hang(3, **at),
    "slow": lambda **at: faults.Slow(3, **at),
}
OPERATIONS = [
    "triggerBoltRun",
    "boltRunStatus",
    "boltScheduleName",
    "listBoltRuns",
    "cancelBoltRun",
    "boltCommand",
]


@dataclass
class Intent:
    """One flow run. Its attempts run one after another, each in its own process."""

    flow_run_id: UUID
    schedule: str
    process: Process | None = None
    task: asyncio.Task[Any] | None = None
    begun: int = 0
    cancelled: bool = False
    on_crash: str = "cancel"
    # Older processes of the same flow run that Prefect counts as crashed, but that are alive.
    others: list[tuple[Process, asyncio.Task[Any]]] = field(default_factory=list)

    @property
    def lives(self) -> bool:
        """Whether the latest process is alive and can send heartbeats."""
        return self.task is not None and not self.task.done()


@dataclass
class Tally:
    """The totals of all stories."""

    stories: int = 0
    kills: int = 0
    twins: int = 0
    started: int = 0
    left_over: int = 0


TALLY = Tally()


@dataclass
class World:
    """One Bolt and one event loop for all stories."""

    simulator: BoltInProcess = field(default_factory=lambda: BoltInProcess(speed=0))
    loop: VirtualTimeLoop = field(default_factory=VirtualTimeLoop)

    def call(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 3600))


WORLD: World


@contextmanager
def suppress_kills() -> Iterator[None]:
    """End the block if its process is killed. A task group puts the kill into a group."""
    try:
        yield
    except BaseException:
        if not process.get().dead:
            raise


class Stories(RuleBasedStateMachine):
    """The steps of a story; Hypothesis combines them."""

    def __init__(self) -> None:
        super().__init__()
        self.simulator = WORLD.simulator
        self.simulator.reset()
        self.prefect = PrefectInMemory()
        self.intents: list[Intent] = []
        self.patches = ExitStack()
        self.patches.enter_context(in_place_of_prefect(self.prefect))
        orphans = sys.modules["paradime_flows.supervision.orphans"]
        self.patches.enter_context(mock.patch.object(orphans, "silent_seconds", self._silent_seconds))
        cancellation = sys.modules["paradime_flows.supervision.cancellation"]
        self.patches.enter_context(mock.patch.object(cancellation, "credentials_of", self._credentials_of))
        TALLY.stories += 1

    # Steps

    @initialize(on_crash=POLICIES, beat=BEATS, writes=WRITES)
    def first(self, on_crash, beat, writes) -> None:
        """Each story begins with a trigger."""
        self.trigger(on_crash, beat, writes)

    @precondition(lambda self: len(self.intents) < 2)
    @rule(on_crash=POLICIES, beat=BEATS, writes=WRITES)
    def trigger(self, on_crash, beat, writes) -> None:
        """A flow run triggers the schedule."""
        # Bolt does not help: it would start two runs of one schedule.
        name = f"schedule-{len(self.intents)}"
        self.simulator.add_schedule(
            name,
            commands=[SimulatedCommand("dbt run", duration_seconds=10)],
            setup_commands=False,
            already_running="allow",
        )
        intent = Intent(self.prefect.new_flow_run(), name, on_crash=on_crash)
        self.intents.append(intent)
        self._begin(intent, beat, writes)

    @rule(seconds=st.sampled_from([1, 4]), beat=BEATS)
    def poll(self, seconds, beat) -> None:
        """Some time passes, in Bolt and here."""
        self.simulator.clock.advance(seconds)
        self._wait(beat)

    @rule(
        kind=st.sampled_from(sorted(FAULTS)), operation=st.sampled_from(OPERATIONS), times=st.integers(1, 3)
    )
    def fault(self, kind, operation, times) -> None:
        """A fault is injected."""
        self.simulator.inject(FAULTS[kind](operation=operation, times=times))

    @rule(seconds=st.sampled_from([0.5, 3, 20]), ahead=st.integers(0, 3))
    def late_write(self, seconds, ahead) -> None:
        """Prefect answers a write with HTTP 503, and its client repeats it: it arrives late."""
        self.prefect.late_by = [*self.prefect.late_by, *[ONE_WAY_SECONDS] * ahead, seconds]

    @rule(which=st.integers(0, 1))
    def kill(self, which) -> None:
        """The process is killed: its memory is lost, and it cannot clean up."""
        intent = self._pick(which, running=True)
        if intent is not None:
            self._kill(intent)

    @rule(which=st.integers(0, 1), beat=BEATS)
    def kill_and_retry(self, which, beat) -> None:
        """The process is killed, and the flow run is retried at once."""
        intent = self._pick(which, running=True)
        if intent is None:
            return
        self._kill(intent)
        if not intent.cancelled and intent.begun < MOST_TIMES:
            self._begin(intent, beat)

    @rule(which=st.integers(0, 1), retry_after=st.none() | BEATS, writes=WRITES, hooks_writes=WRITES)
    def kill_under_a_worker(self, which, retry_after, writes, hooks_writes) -> None:
        """The process is killed, and another one runs the hook; the flow run may be retried in the meantime.

        The hook's process may be killed, too.
        """
        intent = self._pick(which, running=True)
        if intent is None:
            return
        self._kill(intent)
        hook = WORLD.loop.create_task(self._hook(intent, hooks_writes))
        if retry_after is not None and not intent.cancelled and intent.begun < MOST_TIMES:
            self._wait(retry_after)
            self._begin(intent, 0.0, writes)
        WORLD.call(hook)

    @rule(which=st.integers(0, 1), beat=BEATS)
    def begin_twice(self, which, beat) -> None:
        """Prefect takes the process for dead, and the flow run starts again while it is alive."""
        intent = self._pick(which, running=True)
        if intent is None or intent.cancelled or intent.begun >= MOST_TIMES or intent.task.done():
            return
        TALLY.twins += 1
        intent.others.append((intent.process, intent.task))
        self.prefect.set_state(intent.flow_run_id, StateType.CRASHED)
        self._begin(intent, beat)

    @rule(which=st.integers(0, 1))
    def interrupt(self, which) -> None:
        """The process is asked to end, and has time to clean up."""
        intent = self._pick(which, running=True)
        if intent is None:
            return
        intent.task.cancel()
        self._end_of(intent)

    @rule(which=st.integers(0, 1), beat=BEATS, writes=WRITES)
    def retry(self, which, beat, writes) -> None:
        """The flow run starts again, from its labels."""
        intent = self._pick(which, running=False)
        if intent is not None and not intent.cancelled and intent.begun < MOST_TIMES:
            self._begin(intent, beat, writes)

    @rule(which=st.integers(0, 1))
    def cancel(self, which) -> None:
        """A person cancels the flow run; its process polls Prefect and sees that."""
        intent = self._pick(which, running=True)
        if intent is None or intent.task.done():
            return
        intent.cancelled = True
        self.prefect.set_state(intent.flow_run_id, StateType.CANCELLING)
        self._end_of(intent)

    @rule(writes=WRITES)
    def sweep(self, writes) -> None:
        """The sweeper searches for what ended flow runs have left. It may be killed at that."""
        self._sweep(writes)

    @invariant()
    def one_live_run_for_each_intent(self) -> None:
        for intent in self.intents:
            runs = self.simulator.runs(intent.schedule)
            assert len([run for run in runs if run.is_active]) <= 1, (intent, runs)
            assert len(runs) <= intent.begun, (intent, runs)
            for one, next_one in itertools.pairwise(runs):
                # A new run only if the one before had ended without success.
                assert one.ended_at is not None, runs
                assert one.ended_at <= next_one.started_at, runs
                assert one.state != "SUCCESS", runs

    def teardown(self) -> None:
        """All processes die; one sweep, and nothing is left."""
        try:
            self.simulator.clear_faults()
            for intent in self.intents:
                for other in intent.others:
                    self._kill_process(*other)
                self._kill(intent)
            WORLD.call(until(lambda: all(request.answered for request in self.simulator.requests)))
            WORLD.call(until(lambda: not self.prefect.is_busy))
            # Even what was left for a retry is not left for ever.
            with use_timing(Timing(left_for_retry_seconds=0.0)):
                self._sweep()
            self.one_live_run_for_each_intent()
            TALLY.started += len(self.simulator.runs())
            TALLY.left_over += len(self.simulator.active_runs())
            labels = [flow_run.labels for flow_run in self.prefect.flow_runs.values()]
            assert not self.simulator.active_runs(), labels
            for intent in self.intents:
                WORLD.call(self._hook(intent))
            left = [run for run in self.prefect.task_runs.values() if not run.state.is_final()]
            assert not left, (left, labels)
        finally:
            self.patches.close()

    # How

    def _pick(self, which: int, *, running: bool) -> Intent | None:
        """Return an intent for a step, if any; a precondition would make the story depend on the time."""
        fitting = [intent for intent in self.intents if (intent.task is not None) == running]
        return fitting[which % len(fitting)] if fitting else None

    def _begin(self, intent: Intent, beat: float, writes: int | None = None) -> None:
        start_new_supervisor()
        intent.begun += 1
        intent.process = Process(writes_left=writes)
        self.prefect.set_state(intent.flow_run_id, StateType.RUNNING)
        flow = sys.modules["paradime_flows.run_schedule"]

        async def body() -> Any:
            process.set(intent.process)
            with flow_run_context(self.prefect, intent.flow_run_id, flow.run_schedule):
                return await call_flow(
                    flow.run_schedule,
                    intent.schedule,
                    credentials_for(self.simulator),
                    timeout_seconds=3600.0,
                    on_crash=intent.on_crash,
                    live_logs="off",
                    one_at_a_time=False,
                )

        intent.task = WORLD.loop.create_task(body())
        self._wait(beat)

    def _wait(self, seconds: float) -> None:
        """Let the attempts continue for a while, and record the end of those that have ended."""
        WORLD.call(asyncio.sleep(seconds))
        for intent in self.intents:
            if intent.task is not None and intent.task.done():
                self._note_the_end(intent)

    def _note_the_end(self, intent: Intent) -> None:
        task, intent.task = intent.task, None
        if intent.process.dead:
            self._note_the_death(intent, task)
            return
        state = StateType.COMPLETED
        if intent.cancelled or task.cancelled():
            state = StateType.CANCELLED if intent.cancelled else StateType.CRASHED
        elif task.exception() is not None:
            state = StateType.FAILED
        elif hasattr(task.result(), "type"):
            state = task.result().type
        self.prefect.set_state(intent.flow_run_id, state)

    def _note_the_death(self, intent: Intent, task: asyncio.Task[Any]) -> None:
        TALLY.kills += 1
        if not task.cancelled():
            task.exception()
        state = StateType.CANCELLED if intent.cancelled else StateType.CRASHED
        self.prefect.set_state(intent.flow_run_id, state)

    def _end_of(self, intent: Intent) -> None:
        async def end() -> None:
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.wait([intent.task], timeout=600)

        WORLD.call(end())
        assert intent.task.done(), "it did not end"
        self._note_the_end(intent)

    def _kill(self, intent: Intent) -> None:
        if intent.task is None:
            return
        self._kill_process(intent.process, intent.task)
        intent.task = None
        self.prefect.set_state(
            intent.flow_run_id, StateType.CANCELLED if intent.cancelled else StateType.CRASHED
        )

    def _kill_process(self, process: Process, task: asyncio.Task[Any]) -> None:
        TALLY.kills += not task.done()
        process.dead = True
        task.cancel()

        async def end() -> None:
            await asyncio.wait([task], timeout=600)

        WORLD.call(end())
        with suppress(BaseException):
            task.exception()

    async def _hook(self, intent: Intent, writes: int | None = None) -> None:
        """Run the hook of a crash or a cancel in its own process."""
        process.set(Process(writes_left=writes))
        flow_run = await self.prefect.read_flow_run(intent.flow_run_id)
        flow = sys.modules["paradime_flows.run_schedule"].run_schedule
        with suppress_kills():
            await sys.modules["paradime_flows.hooks"].cancel_owned_runs(flow, flow_run, flow_run.state)

    async def _credentials_of(self, _: Any) -> ParadimeCredentials:
        return credentials_for(self.simulator)

    def _silent_seconds(self, flow_run: FlowRun) -> float:
        lives = any(intent.lives for intent in self.intents if intent.flow_run_id == flow_run.id)
        return 0.0 if lives else float("inf")

    def _sweep(self, writes: int | None = None) -> None:
        flow = sys.modules["paradime_flows.sweep_orphans"]

        async def sweep() -> None:
            process.set(Process(writes_left=writes))
            with suppress_kills():
                await flow.sweep_orphans.fn(credentials_for(self.simulator), older_than_seconds=0)

        WORLD.call(WORLD.loop.create_task(sweep()))


@pytest.fixture
def world():
    import paradime_flows.run_schedule
    import paradime_flows.sweep_orphans  # noqa: F401

    global WORLD  # noqa: PLW0603 - Hypothesis makes the machines, so they find their world here
    WORLD = World()
    # What a killed process leaves unfinished is no error.
    WORLD.loop.set_exception_handler(lambda *_: None)
    with WORLD.simulator:
        yield WORLD
    # A task that is collected later, in the middle of another test, can make Python's own parser fail.
    if left := asyncio.all_tasks(WORLD.loop):
        for task in left:
            task.cancel()
        WORLD.loop.run_until_complete(asyncio.wait(left, timeout=60))
    WORLD.loop.close()


@pytest.mark.parametrize("stories", [100, pytest.param(400, marks=pytest.mark.exhaustive)])
def test_at_most_one_run_per_intent_and_none_left_over(world, stories, record_figures) -> None:
    """Whatever happens in whatever order, as long as every process that dies stays dead."""
    global TALLY  # noqa: PLW0603 - as above
    TALLY = Tally()
    try:
        run_state_machine_as_test(
            Stories,
            settings=settings(
                max_examples=stories,
                stateful_step_count=20,
                derandomize=True,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        # Stories that start nothing would prove nothing.
        assert stories / 2 < TALLY.started
    finally:
        record_figures(
            "Random stories",
            runs=TALLY.started,
            left_over=TALLY.left_over,
            kills=TALLY.kills,
            cases=TALLY.stories,
        )
