"""Retried flows that repeat their calls: each intent keeps its one Bolt run.

tests/unit/test_call_paths.py has the table of which flow run precedes which. Here is what happens to the runs that the
earlier flow runs left. tests/e2e has one case of each shape on a real Prefect server.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import anyio
import pytest
from faults.attempts import begun, record_of, running, unanswered
from faults.bench import SCHEDULE, credentials_for
from faults.prefect_in_memory import Process, process
from prefect.client.schemas.objects import StateType

from paradime_blocks.errors import BoltError, BoltRunFailed, BoltRunTimedOut, BoltUnavailable
from paradime_blocks.testing import SimulatedCommand, faults
from paradime_flows.hooks import cancel_owned_runs
from paradime_flows.ledger.store import Superseded, execution_of
from paradime_flows.prefect_api.supervisor import start_new_supervisor
from paradime_flows.run_schedule import run_schedule
from paradime_flows.supervision.watch import unless_stopped
from paradime_flows.time_limits import Timing, use_timing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from faults.prefect_in_memory import PrefectInMemory

    from paradime_blocks.testing import BoltSimulator


@dataclass
class Place:
    """A place where a flow calls another one; each attempt calls it again.

    Attributes:
        prefect: The server.
        depth: The number of nested flow runs that each attempt creates; the innermost is ours.
        deployed: Whether a deployment starts the outermost of them, in its own process.
    """

    prefect: PrefectInMemory
    depth: int = 1
    deployed: bool = False
    flow_run_id: UUID = field(init=False)
    flow_ids: list[UUID] = field(init=False)
    deployment_id: UUID = field(default_factory=uuid4)
    other_flow_id: UUID = field(default_factory=uuid4)
    calls: dict[UUID, UUID] = field(default_factory=dict)
    last: datetime = field(default=datetime.min.replace(tzinfo=timezone.utc))

    def __post_init__(self) -> None:
        self.flow_run_id = running(self.prefect)
        self.flow_ids = [uuid4() for _ in range(self.depth)]

    def called(self) -> UUID:
        """Return our flow run of the next attempt; it is scheduled."""
        one = self.flow_run_id
        if self.calls:
            # The flow at the top is retried.
            self.prefect.set_state(one, StateType.RUNNING)
        for level in range(self.depth):
            one = self._below(one, level)
        return one

    def begun(self) -> UUID:
        """The same, with all its new flow runs set to Running."""
        one = self.called()
        for each in self.lineage(one):
            self.prefect.set_state(each, StateType.RUNNING)
        return one

    def lineage(self, flow_run_id: UUID) -> list[UUID]:
        """A flow run, and those above it that were created with it."""
        found = [flow_run_id]
        while len(found) < self.depth:
            call = self.prefect.flow_runs[found[-1]].parent_task_run_id
            assert call is not None
            found.append(self.prefect.calls[call])
        return found

    def beside(self, flow_run_id: UUID) -> UUID:
        """Return another flow run that the parent calls; it is running."""
        call = self.prefect.flow_runs[flow_run_id].parent_task_run_id
        assert call is not None
        one = running(self.prefect, parent=self.prefect.calls[call])
        self.prefect.flow_runs[one].flow_id = self.other_flow_id
        return one

    def _below(self, above: UUID, level: int) -> UUID:
        made = self.prefect.new_flow_run(parent=above)
        flow_run = self.prefect.flow_runs[made]
        assert flow_run.parent_task_run_id is not None
        call = self.calls.setdefault(above, flow_run.parent_task_run_id)
        if call != flow_run.parent_task_run_id:
            # A retried flow run repeats the same call.
            del self.prefect.calls[flow_run.parent_task_run_id]
        self.last = max(self.last + timedelta(microseconds=1), datetime.now(timezone.utc))
        flow_run.parent_task_run_id, flow_run.flow_id, flow_run.created = (
            call,
            self.flow_ids[level],
            self.last,
        )
        if self.deployed and level == 0:
            flow_run.deployment_id = self.deployment_id
        return made


PLACES = pytest.mark.parametrize(
    "place",
    [
        pytest.param({}, id="a sub-flow"),
        pytest.param({"depth": 2}, id="a sub-flow of a sub-flow"),
        pytest.param({"depth": 3}, id="one level deeper"),
        pytest.param({"deployed": True}, id="a deployment"),
        pytest.param({"deployed": True, "depth": 2}, id="a sub-flow of a deployment"),
    ],
)
DEPLOYED = pytest.mark.parametrize(
    "place",
    [
        pytest.param({"deployed": True}, id="a deployment"),
        pytest.param({"deployed": True, "depth": 2}, id="a sub-flow of a deployment"),
    ],
)


def in_a_process(
    work: Callable[[], Coroutine[Any, Any, Any]], where: Process | None = None
) -> asyncio.Task[Any]:
    """Run some work in its own process, as an attempt or a part of one."""

    async def run() -> Any:
        process.set(where or Process())
        return await work()

    return asyncio.create_task(run())


async def until(accept: Callable[[], Any]) -> None:
    while not accept():  # noqa: ASYNC110 - Bolt's simulator and Prefect tell nobody
        await asyncio.sleep(0.01)


async def to_the_end(simulator: BoltSimulator, flow_run_id: UUID, key: str = "run", **policies: Any) -> int:
    """Run an attempt from the start to the end of its intent."""
    attempt = await begun(simulator, flow_run_id, key, **policies)
    run = await attempt.obtain()
    try:
        await attempt.wait(run)
        await attempt.result(run)
    except BoltError as error:
        await attempt.finish(error)
        raise
    await attempt.finish(None)
    return run.run_id


async def started(simulator: BoltSimulator, flow_run_id: UUID, **options: Any) -> int:
    """Run an attempt until it is killed while it waits."""
    return (await (await begun(simulator, flow_run_id, **options)).obtain()).run_id


def never_ends(simulator: BoltSimulator) -> None:
    simulator.update_schedule(SCHEDULE, commands=[SimulatedCommand("dbt run", duration_seconds=float("inf"))])


def ends(simulator: BoltSimulator, *return_codes: int) -> None:
    """Let the schedule's runs end at once, each with the next return code."""
    simulator.update_schedule(SCHEDULE, commands=[SimulatedCommand("dbt run", return_code=return_codes)])


@dataclass(frozen=True)
class Left:
    """What an attempt does, and what happens to its run before the next attempt.

    Attributes:
        simulator: Bolt.
        prefect: Prefect.
        flow_run_id: Our flow run in that attempt.
    """

    simulator: BoltSimulator
    prefect: PrefectInMemory
    flow_run_id: UUID

    async def still_running(self) -> None:
        await started(self.simulator, self.flow_run_id)

    async def not_answered(self) -> None:
        await started(self.simulator, self.flow_run_id)
        unanswered(self.prefect, self.flow_run_id)

    async def ended_unnoticed(self, state: str = "SUCCESS") -> None:
        self.simulator.finish(await started(self.simulator, self.flow_run_id), state=state)

    async def failed_unnoticed(self) -> None:
        await self.ended_unnoticed("FAILED")

    async def bolt_unreachable(self) -> None:
        attempt = await begun(self.simulator, self.flow_run_id)
        attempt.schedule = attempt.schedule.model_copy(update={"max_outage_seconds": 10})
        run = await attempt.obtain()
        self.simulator.inject(faults.Status(503, operation="boltRunStatus", times=None))
        with pytest.raises(BoltUnavailable) as outage:
            await attempt.wait(run)
        await attempt.finish(outage.value)
        self.simulator.clear_faults()

    async def succeeded(self) -> None:
        ends(self.simulator, 0)
        await to_the_end(self.simulator, self.flow_run_id)
        never_ends(self.simulator)

    async def failed(self) -> None:
        ends(self.simulator, 1)
        with pytest.raises(BoltRunFailed):
            await to_the_end(self.simulator, self.flow_run_id)
        never_ends(self.simulator)

    async def left_at_the_time_limit(self) -> None:
        attempt = await begun(self.simulator, self.flow_run_id, on_timeout="leave")
        run = await attempt.obtain()
        await attempt.finish(BoltRunTimedOut("Time is up.", state="RUNNING", run_id=run.run_id))
        self.simulator.finish(run.run_id)

    async def cleaned_up(self, state: StateType) -> None:
        from paradime_flows.supervision import Event, reconcile_run

        await started(self.simulator, self.flow_run_id)
        self.prefect.set_state(self.flow_run_id, state)
        record = record_of(self.prefect, self.flow_run_id)
        await reconcile_run(record, credentials_for(self.simulator), Event.ORPHANED, "The flow run is over.")

    async def crashed(self) -> None:
        await self.cleaned_up(StateType.CRASHED)

    async def cancelled(self) -> None:
        await self.cleaned_up(StateType.CANCELLED)

    async def nothing(self) -> None:
        await begun(self.simulator, self.flow_run_id)


@PLACES
@pytest.mark.parametrize(
    "left, is_resumed",
    [
        pytest.param(Left.still_running, True, id="its run is still running"),
        pytest.param(Left.not_answered, True, id="its trigger was not answered"),
        pytest.param(Left.ended_unnoticed, True, id="its run succeeded unnoticed"),
        pytest.param(Left.failed_unnoticed, True, id="its run failed unnoticed"),
        pytest.param(Left.bolt_unreachable, True, id="Bolt was unreachable"),
        pytest.param(Left.succeeded, True, id="it succeeded"),
        pytest.param(Left.failed, False, id="it failed"),
        pytest.param(Left.left_at_the_time_limit, False, id="it left its run at the time limit"),
        pytest.param(Left.crashed, False, id="it crashed, and its run was cancelled"),
        pytest.param(Left.cancelled, False, id="a person cancelled it"),
        pytest.param(Left.nothing, False, id="it was killed before it triggered"),
    ],
)
async def test_the_next_attempt_resumes_what_an_attempt_left(
    simulator, prefect, place, left, is_resumed
) -> None:
    """Unless the attempt reported an end: then the next one is a new intent. A success is not repeated."""
    where = Place(prefect, **place)
    first = where.begun()
    await in_a_process(lambda: left(Left(simulator, prefect, first)))
    before = [run.id for run in simulator.runs()]
    second = where.begun()
    taken = await in_a_process(lambda: started(simulator, second))
    assert (taken in before) is is_resumed
    assert len(simulator.runs()) == len(before) + (not is_resumed)
    assert record_of(prefect, second).run_id == taken


@PLACES
async def test_each_attempt_resumes_the_run_of_the_attempt_before(simulator, prefect, place) -> None:
    """What the last attempt took over is found, whatever attempts came before."""
    where = Place(prefect, **place)
    attempts = [where.begun()]
    first = await in_a_process(lambda: started(simulator, attempts[0]))
    for _ in range(3):
        attempts.append(where.begun())
        assert await in_a_process(lambda: started(simulator, attempts[-1])) == first
    assert [record_of(prefect, one).is_open for one in attempts] == [False, False, False, True]
    simulator.finish(first)
    attempts.append(where.begun())
    for _ in range(2):
        assert await in_a_process(lambda: to_the_end(simulator, attempts[-1])) == first
        attempts.append(where.begun())
    assert len(simulator.runs()) == 1


@PLACES
async def test_an_unnoticed_failure_is_reported_once(simulator, prefect, place) -> None:
    """The attempt that resumes it reports it; the attempt after that starts a new run."""
    where = Place(prefect, **place)
    first, second, third = (where.begun() for _ in range(3))
    await in_a_process(lambda: Left(simulator, prefect, first).failed_unnoticed())
    with pytest.raises(BoltRunFailed):
        await in_a_process(lambda: to_the_end(simulator, second))
    ends(simulator, 0)
    await in_a_process(lambda: to_the_end(simulator, third))
    assert [run.state for run in simulator.runs()] == ["FAILED", "SUCCESS"]


@PLACES
async def test_a_call_at_another_place_has_its_own_run(simulator, prefect, place) -> None:
    """Even if it asks for the same."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    where, elsewhere = Place(prefect, **place), Place(prefect, **place)
    there = elsewhere.begun()
    run = await in_a_process(lambda: started(simulator, there))
    first, second = where.begun(), where.begun()
    own = await in_a_process(lambda: started(simulator, first))
    assert own != run
    assert await in_a_process(lambda: started(simulator, second)) == own
    assert record_of(prefect, there).is_open


async def test_a_different_request_resumes_nothing(simulator, prefect) -> None:
    """The schedule is the same, but the commands are not."""
    from paradime_blocks.schedule import BoltSchedule
    from paradime_flows.runner.lifecycle import RunLifecycle, RunPolicies

    simulator.update_schedule(SCHEDULE, already_running="allow")
    where = Place(prefect)
    first, second = where.begun(), where.begun()
    before = await in_a_process(lambda: started(simulator, first))

    async def with_other_commands() -> int:
        credentials = credentials_for(simulator)
        schedule = BoltSchedule(credentials=credentials, schedule_name=SCHEDULE, commands=["dbt test"])
        attempt = await RunLifecycle.begin(schedule, second, RunPolicies(), schedule.request())
        return (await attempt.obtain()).run_id

    assert await in_a_process(with_other_commands) != before
    assert [record_of(prefect, one).is_open for one in (first, second)] == [True, True]


@PLACES
async def test_each_of_two_equal_tasks_resumes_its_own_run(simulator, prefect, place) -> None:
    """They do so in the order of their calls. A task whose run had failed triggers again, and so does a third task."""
    from paradime_flows.ledger.record import read_records

    where = Place(prefect, **place)
    first, second = where.begun(), where.begun()
    ends(simulator, 1, 0)

    async def before() -> None:
        with pytest.raises(BoltRunFailed):
            await to_the_end(simulator, first, "one")
        await to_the_end(simulator, first, "two")

    async def again() -> list[int]:
        return [await to_the_end(simulator, second, key) for key in ("another", "one more", "a third")]

    await in_a_process(before)
    taken = await in_a_process(again)
    failed, good, *anew = [run.id for run in simulator.runs()]
    assert taken == [good, *anew]
    assert len(anew) == 2
    assert failed not in taken
    assert {one.key for one in read_records(prefect.flow_runs[second])} == {
        "another",
        "one more",
        "a third",
    }


async def test_equal_tasks_at_once_resume_one_run_each(simulator, prefect, monkeypatch) -> None:
    """While one of them takes over the run it found, the others search."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    where = Place(prefect, depth=2)
    first, second = where.begun(), where.begun()
    keys = ["one", "two", "three"]

    async def before() -> list[int]:
        return [(await (await begun(simulator, first, key)).obtain()).run_id for key in keys]

    async def again() -> list[int]:
        attempts = await asyncio.gather(*(begun(simulator, second, f"{key} again") for key in keys))
        return [(await attempt.obtain()).run_id for attempt in attempts]

    write = prefect.update_flow_run_labels

    async def slowly(*arguments: Any) -> None:
        await asyncio.sleep(0.2)
        await write(*arguments)

    runs = await in_a_process(before)
    monkeypatch.setattr(prefect, "update_flow_run_labels", slowly)
    assert sorted(await in_a_process(again)) == runs == [run.id for run in simulator.runs()]


async def test_equal_tasks_in_other_processes_resume_one_run_each(simulator, prefect) -> None:
    """They are part of one attempt, but know of each other only through Prefect."""
    where = Place(prefect)
    first, second = where.begun(), where.begun()
    ends(simulator, 0)

    async def before() -> list[int]:
        return [await to_the_end(simulator, first, key) for key in ("one", "two")]

    runs = await in_a_process(before)
    taken, attempt = [], Process()
    for key in ("another", "one more", "a third"):
        start_new_supervisor()
        taken.append(await in_a_process(lambda key=key: to_the_end(simulator, second, key), attempt))
    assert taken[:2] == runs
    assert [run.id for run in simulator.runs()] == taken


async def test_a_task_does_not_resume_its_flows_own_run(simulator, prefect) -> None:
    """One is the schedule of our own flow, the other was triggered by a task of a user's flow."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    where = Place(prefect)
    first, second = where.begun(), where.begun()
    run = await in_a_process(lambda: started(simulator, first))
    assert await in_a_process(lambda: started(simulator, second, key="a task")) != run
    assert record_of(prefect, first).is_open


# The first attempt's process is alive: a flow run of a deployment outlives its parent.


@DEPLOYED
@pytest.mark.parametrize("cancelled", [False, True], ids=["", "the first is cancelled"])
async def test_the_next_attempt_takes_over_from_one_that_is_alive(
    simulator, prefect, place, cancelled
) -> None:
    """The first flow run releases the run; now the second waits for it and may cancel it."""
    where = Place(prefect, **place)
    first, second = where.begun(), where.begun()
    older = in_a_process(lambda: to_the_end(simulator, first))
    await until(lambda: simulator.count("boltRunStatus") > 1)
    newer = in_a_process(lambda: to_the_end(simulator, second))
    with pytest.raises(Superseded):
        await older
    await until(lambda: prefect.flow_runs[first].state.type is StateType.CRASHED)
    if cancelled:
        state = prefect.set_state(first, StateType.CANCELLING)
        await in_a_process(lambda: cancel_owned_runs(run_schedule, prefect.flow_runs[first], state))
    asked = simulator.count("boltRunStatus")
    await until(lambda: simulator.count("boltRunStatus") > asked + 3)
    (run,) = simulator.runs()
    assert (run.state, run.cancel_requests) == ("RUNNING", 0)
    simulator.finish(run.id)
    assert await newer == run.id
    assert [one.id for one in simulator.runs()] == [run.id]


@DEPLOYED
async def test_a_flow_run_that_starts_late_stops_for_the_newer_one(simulator, prefect, place) -> None:
    """Its worker was down, and the parent was retried in the meantime."""
    where = Place(prefect, **place)
    late, second = where.called(), where.begun()
    run = await in_a_process(lambda: started(simulator, second))
    for each in where.lineage(late):
        prefect.set_state(each, StateType.RUNNING)
    with pytest.raises(Superseded):
        await in_a_process(lambda: started(simulator, late))
    ended = [prefect.flow_runs[each].state.type for each in where.lineage(late)]
    assert ended == [StateType.CRASHED] * len(ended)
    assert {prefect.flow_runs[each].state.type for each in where.lineage(second)} == {StateType.RUNNING}
    assert record_of(prefect, second).is_open
    assert [(one.id, one.state, one.cancel_requests) for one in simulator.runs()] == [(run, "RUNNING", 0)]


@DEPLOYED
async def test_a_flow_run_stops_for_the_newer_one_before_its_trigger(simulator, prefect, place) -> None:
    """It waits for the schedule's slot, or is about to trigger; the next attempt does that instead."""
    where = Place(prefect, **place)
    first, second = where.begun(), where.begun()

    async def waits() -> None:
        await begun(simulator, first)
        with use_timing(Timing(watch_interval_seconds=0.1)):
            await unless_stopped(anyio.sleep_forever, first)

    older = in_a_process(waits)
    await until(lambda: execution_of(prefect.flow_runs[first]).holder)
    await in_a_process(lambda: started(simulator, second))
    with pytest.raises(Superseded):
        await older
    assert prefect.flow_runs[first].state.type is StateType.CRASHED


async def test_a_flow_run_continues_until_the_newer_one_reaches_it(simulator, prefect) -> None:
    """It is in its second step while the newer flow run is at the first one."""
    where = Place(prefect, depth=2, deployed=True)
    older_step = where.begun()
    ends(simulator, 0)
    done = await in_a_process(lambda: to_the_end(simulator, older_step))
    prefect.set_state(older_step, StateType.COMPLETED)
    never_ends(simulator)
    older = where.beside(older_step)
    waiting = in_a_process(lambda: to_the_end(simulator, older))
    await until(lambda: len(simulator.active_runs()) == 1)
    (going,) = simulator.active_runs()
    newer_step = where.begun()
    newer = where.beside(newer_step)
    assert await in_a_process(lambda: to_the_end(simulator, newer_step)) == done
    asked = simulator.count("boltRunStatus")
    await until(lambda: simulator.count("boltRunStatus") > asked + 3)
    assert not waiting.done()
    taking_over = in_a_process(lambda: to_the_end(simulator, newer))
    with pytest.raises(Superseded):
        await waiting
    assert (going.state, going.cancel_requests) == ("RUNNING", 0)
    simulator.finish(going.id)
    assert await taking_over == going.id
    assert [run.id for run in simulator.runs()] == [done, going.id]


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    "A parent is retried while a flow run that it had started by a deployment is still running",
)
@DEPLOYED
async def test_the_next_attempt_triggers_instead_of_one_that_waits(simulator, prefect, place) -> None:
    """Both find the schedule running. The first stops, and the run that it waited to trigger is triggered once."""
    simulator.update_schedule(SCHEDULE, already_running="refuse")
    conflicting = simulator.start_run(SCHEDULE)
    where = Place(prefect, **place)
    first, second = where.begun(), where.begun()
    older = in_a_process(lambda: to_the_end(simulator, first))
    await until(lambda: simulator.count("triggerBoltRun") == 1)
    newer = in_a_process(lambda: to_the_end(simulator, second))
    with pytest.raises(Superseded):
        await older
    ends(simulator, 0)
    simulator.finish(conflicting)
    own = await newer
    assert [run.id for run in simulator.runs()] == [conflicting, own]
    assert prefect.flow_runs[first].state.type is StateType.CRASHED
