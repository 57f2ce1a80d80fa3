"""The answer to a trigger is lost: what is looked for, what is adopted, and what is never guessed."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

import pytest
from faults.bench import FIRST, SCHEDULE, SECOND, credentials_for, reached

from paradime_blocks.errors import BoltAlreadyRunning, BoltRequestError, BoltTriggerUnknown, BoltUnavailable
from paradime_blocks.schedule import BoltSchedule
from paradime_blocks.testing import BoltSimulator, faults
from paradime_blocks.testing.faults import Fault
from paradime_blocks.testing.reply import Reply
from paradime_blocks.trigger.decision_log import Trail

LOST = faults.CutConnection(operation="triggerBoltRun", after_acting=True)
LOST_BEFORE = faults.CutConnection(operation="triggerBoltRun")


@dataclass(frozen=True)
class Meanwhile(Fault):
    """Somebody else starts a run at the same time, before or after ours; then the answer is lost."""

    simulator: BoltSimulator
    first: bool = True
    acts: bool = True
    changes: dict[str, object] = field(default_factory=dict)

    def answer(self, exchange) -> None:
        if self.first:
            self.simulator.start_run(SCHEDULE, **self.changes)
        if self.acts:
            exchange.act()
        if not self.first:
            self.simulator.start_run(SCHEDULE, **self.changes)


@dataclass(frozen=True)
class NothingYet(Fault):
    """What tells of runs has not caught up before a second trigger is sent."""

    simulator: BoltSimulator

    def answer(self, exchange) -> Reply:
        reply = exchange.act()
        if self.simulator.count("triggerBoltRun") > 1:
            return reply
        data = json.loads(bytes(reply.body))["data"]
        if "listBoltRuns" in data:
            data["listBoltRuns"]["runs"] = []
        else:
            data["boltScheduleName"]["latestRunId"] = None
        return Reply.of_json({"data": data})


@dataclass(frozen=True)
class NoRuns(Fault):
    """A list of runs without any."""

    runs: list[object] | None

    def answer(self, exchange) -> Reply:
        return Reply.of_json({"data": {"listBoltRuns": {"ok": True, "runs": self.runs}}})


@dataclass(frozen=True)
class ActsLater(Fault):
    """Something else is answered at once; the server works on, and starts the run all the same."""

    seconds: float
    inner: Fault

    def answer(self, exchange) -> Reply | None:
        asyncio.get_running_loop().call_later(self.seconds, exchange.act)
        return self.inner.answer(exchange)


@pytest.fixture
def simulator(simulator):
    """A Bolt that allows two runs at once."""
    simulator.update_schedule(SCHEDULE, already_running="allow")
    return simulator


def block(simulator: BoltSimulator, *, patience: float = 5.0, **options) -> BoltSchedule:
    return BoltSchedule(
        credentials=credentials_for(simulator, request_timeout_seconds=patience),
        schedule_name=SCHEDULE,
        **options,
    )


@pytest.mark.guarantee(
    "The trigger's answer is lost",
    "The answer is lost: a time-out, a cut connection, HTTP 5xx, a GraphQL error that says the same, "
    "or garbage",
    prefect="Running; the log says which answer was lost",
    bolt="One run",
    result="The run is found among the schedule's newest runs, by branch and commands, and waited for",
)
async def test_the_run_is_adopted(simulator, record_figures) -> None:
    """The answer is lost, the run is found; the trail tells it."""
    simulator.inject(LOST)
    trail = Trail()
    run = await block(simulator).atrigger(trail=trail)
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert run.cancel_on_timeout
    decisions = " ".join(sentence for _, sentence in trail.notes)
    assert "was lost" in decisions
    assert "adopted" in decisions
    await run.acancel()
    record_figures("Lost answers", runs=simulator.runs(), left_over=simulator.active_runs())


@pytest.mark.guarantee(
    "The trigger's answer is lost",
    "The answer is lost, and no run was started",
    prefect="Running",
    bolt="One run",
    result=(
        "The trigger is sent again once it is certain that no run was started: 20 s after an answer that "
        "says nothing, a minute after a cut connection; after a time-out only by a retry of the flow run, "
        "two minutes later at least"
    ),
)
async def test_what_has_not_started_is_sent_again(simulator, record_figures) -> None:
    """No run within the window: the trigger is sent a second time, and no more often than three times."""
    simulator.inject(LOST_BEFORE)
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 2
    await run.acancel()
    simulator.inject(faults.CutConnection(operation="triggerBoltRun", times=None))
    with pytest.raises(BoltUnavailable, match="3 times"):
        await block(simulator).atrigger()
    assert simulator.count("triggerBoltRun") == 5
    record_figures("Lost answers", runs=simulator.runs(), left_over=simulator.active_runs(), cases=2)


@pytest.mark.guarantee(
    "The trigger's answer is lost",
    "The answer is lost, and two runs may be ours",
    prefect="Failed",
    bolt="Both keep running",
    result=(
        "`BoltTriggerUnknown` names both. Nothing is sent again, not by a retry either. Look in Paradime "
        "which one is yours"
    ),
)
@pytest.mark.parametrize("first", [True, False], ids=["before ours", "after ours"])
async def test_two_runs_that_fit_are_not_guessed_between(simulator, first) -> None:
    """Somebody starts the same at the same time: the error names both, and nothing is sent again."""
    simulator.inject(Meanwhile(simulator, first=first, operation="triggerBoltRun"))
    with pytest.raises(BoltTriggerUnknown) as caught:
        await block(simulator).atrigger()
    both = tuple(each.id for each in simulator.runs())
    assert len(both) == 2
    # The first look may have come between the two; never once the second is there, which here it always is.
    assert tuple(caught.value.candidates) == both
    assert all(str(run_id) in str(caught.value) for run_id in both)
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize("first", [True, False], ids=["before ours", "after ours"])
@pytest.mark.parametrize(
    "changes",
    [pytest.param({"commands": [SECOND]}, id="commands"), pytest.param({"branch": "main"}, id="branch")],
)
async def test_ours_is_told_from_another(simulator, changes, first) -> None:
    """A run of other commands or another branch is not ours; ours beside it is adopted."""
    simulator.inject(Meanwhile(simulator, first=first, changes=changes, operation="triggerBoltRun"))
    run = await block(simulator, commands=[FIRST, SECOND], branch="dev").atrigger()
    assert simulator.run(run.run_id).branch == "dev"
    assert simulator.run(run.run_id).planned_commands == (FIRST, SECOND)
    assert len(simulator.runs()) == 2


async def test_only_another_than_ours_is_no_proof_of_absence(simulator) -> None:
    """A run that does not seem to be ours may be all the same: nothing is sent again."""
    simulator.inject(
        Meanwhile(simulator, acts=False, changes={"commands": [SECOND]}, operation="triggerBoltRun")
    )
    with pytest.raises(BoltTriggerUnknown) as caught:
        await block(simulator).atrigger()
    assert len(caught.value.candidates) == 1
    assert simulator.count("triggerBoltRun") == 1


async def test_already_running_after_a_lost_answer_is_our_own_run(simulator, record_figures) -> None:
    """The run shows itself late; meanwhile the trigger is sent again, and refused because of it."""
    simulator.update_schedule(SCHEDULE, already_running="refuse")
    behind = [
        NothingYet(simulator, operation=each, times=None) for each in ("listBoltRuns", "boltScheduleName")
    ]
    simulator.inject(LOST, *behind)
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 2
    await run.acancel()
    record_figures("Lost answers", runs=simulator.runs(), left_over=simulator.active_runs())


async def test_already_running_of_a_run_that_was_there_before_is_believed(simulator) -> None:
    """A lost answer, then a refusal, and no newer run: the one in the way is not ours."""
    simulator.start_run(SCHEDULE)
    simulator.update_schedule(SCHEDULE, already_running="refuse")
    simulator.inject(LOST_BEFORE)
    with pytest.raises(BoltAlreadyRunning):
        await block(simulator).atrigger()
    assert len(simulator.runs()) == 1


@pytest.mark.parametrize("acts", [True, False])
async def test_a_backend_that_cannot_list_runs(simulator, acts) -> None:
    """The schedule's latest run serves in its place."""
    simulator.lacks(operations=["listBoltRuns"])
    simulator.inject(LOST if acts else LOST_BEFORE)
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == (1 if acts else 2)
    simulator.allow_bad_requests()


@pytest.mark.parametrize("runs", [None, []], ids=["null", "empty"])
async def test_a_list_of_runs_that_has_none_is_no_proof_of_absence(simulator, runs) -> None:
    """The schedule itself tells of a newer run, be the list behind or broken."""
    simulator.inject(LOST, NoRuns(runs, operation="listBoltRuns", times=None))
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize("status", [302, 400, 499])
@pytest.mark.parametrize("acts", [True, False], ids=["acts", "does not"])
async def test_a_gateway_that_refuses_in_its_own_words_is_not_believed(simulator, status, acts) -> None:
    """It may have passed the trigger on: its run is looked for, for a short while."""
    simulator.inject(faults.Status(status, operation="triggerBoltRun", after_acting=acts))
    if acts:
        run = await block(simulator).atrigger()
        assert [run.run_id] == [each.id for each in simulator.runs()]
    else:
        with pytest.raises(BoltRequestError):
            await block(simulator).atrigger()
        assert simulator.runs() == []
    assert simulator.count("triggerBoltRun") == 1


async def test_an_outage_during_the_look_is_waited_out(simulator) -> None:
    """Absence is believed only of a Bolt that answers."""
    simulator.inject(
        LOST,
        faults.Status(503, operation="listBoltRuns", times=8),
        faults.Status(503, operation="boltRunStatus", times=3),
    )
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 1


async def test_an_outage_that_does_not_end_is_told(simulator) -> None:
    """Who cannot look does not know: the error says so, and nothing is sent again."""
    simulator.inject(
        LOST,
        faults.Status(503, operation="listBoltRuns", times=None),
        faults.Status(503, operation="boltScheduleName", nth=2, times=None),
    )
    with pytest.raises(BoltTriggerUnknown):
        await block(simulator, max_outage_seconds=5).atrigger()
    assert simulator.count("triggerBoltRun") == 1


async def test_a_trigger_that_is_carried_out_late_is_found(simulator, record_figures) -> None:
    """The server acts only when the client has long stopped to wait for it."""
    simulator.inject(faults.Hang(0.6, operation="triggerBoltRun"))
    run = await block(simulator, patience=0.3).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 1
    await run.acancel()
    record_figures("Lost answers", runs=simulator.runs(), left_over=simulator.active_runs())


@pytest.mark.guarantee("The trigger's answer is lost", "The answer is lost, and no run was started")
async def test_a_run_that_starts_half_a_minute_after_the_connection_was_cut_is_found(simulator) -> None:
    """No telling how far the server had come: absence is believed when no server works at a request any longer."""
    simulator.inject(ActsLater(35, faults.CutConnection(), operation="triggerBoltRun"))
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.Hang(0.6, then="cut", operation="triggerBoltRun"), id="hang"),
        pytest.param(faults.Status(504, operation="triggerBoltRun"), id="504"),
    ],
)
async def test_what_may_still_come_is_not_sent_again(simulator, fault) -> None:
    """After a time-out, what is not there can still come: two runs are worse than an error."""
    simulator.inject(fault)
    with pytest.raises(BoltTriggerUnknown):
        await block(simulator, patience=0.3).atrigger()
    assert simulator.count("triggerBoltRun") == 1
    assert not simulator.runs()


async def test_an_error_that_comes_of_a_run_that_has_begun(simulator) -> None:
    """GraphQL answers 200 with an error although the run has started: it is found and adopted."""
    simulator.inject(
        faults.GraphQLError("Internal server error", operation="triggerBoltRun", after_acting=True)
    )
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]


@pytest.mark.parametrize(
    "text, after_seconds",
    [
        pytest.param("request to upstream timed out", 15, id="timed out"),
        pytest.param("Internal server error", 15, id="internal"),
        pytest.param("503 Service Unavailable", 15, id="unavailable"),
        pytest.param("read ECONNRESET: connection reset by peer", 35, id="reset"),
        pytest.param("Bad Gateway: invalid response from the server", 35, id="gateway"),
    ],
)
async def test_a_gateway_that_speaks_graphql_has_lost_an_answer(simulator, text, after_seconds) -> None:
    """What began its run later than a refusal is looked into is found all the same."""
    simulator.inject(ActsLater(after_seconds, faults.GraphQLError(text), operation="triggerBoltRun"))
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize("text", ["request to upstream timed out", "Gateway Timeout", "timeout of 30000ms"])
async def test_a_gateway_that_gave_up_leaves_open_what_comes(simulator, text) -> None:
    """The request may still lie with the server, as after HTTP 504: it is not sent again, nor called a refusal."""
    simulator.inject(faults.GraphQLError(text, operation="triggerBoltRun"))
    with pytest.raises(BoltTriggerUnknown):
        await block(simulator).atrigger()
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize(
    "text",
    [
        "The workspace is over its quota.",
        "Schedule 'upstream timeout' has been removed",
        "Schedule gateway_sync does not exist",
        "Argument timeout must be below 3600",
    ],
)
async def test_an_error_that_is_a_refusal_stays_one(simulator, text) -> None:
    """Bolt said no and started nothing: that is what is raised, and nothing is sent again."""
    simulator.inject(faults.GraphQLError(text, operation="triggerBoltRun"))
    with pytest.raises(BoltRequestError, match=text):
        await block(simulator).atrigger()
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.Garbage(operation="triggerBoltRun", after_acting=True), id="garbage"),
        pytest.param(faults.Status(504, operation="triggerBoltRun", after_acting=True), id="504"),
        pytest.param(faults.Truncated(operation="triggerBoltRun", after_acting=True), id="truncated"),
        pytest.param(faults.MissingData("nulls", operation="triggerBoltRun", after_acting=True), id="no id"),
    ],
)
async def test_an_answer_that_is_none(simulator, fault) -> None:
    """Whatever came in its place, the run is looked for."""
    simulator.inject(fault)
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize("retry_after", [None, 2])
async def test_what_never_arrived_is_sent_again_at_once(simulator, retry_after) -> None:
    """A server that says 'too many' has not acted: no look is needed."""
    simulator.inject(faults.Status(429, retry_after=retry_after, operation="triggerBoltRun", times=2))
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("listBoltRuns") == 0


@pytest.mark.guarantee(
    "Bolt is unreachable, busy, or refuses us",
    "Bolt is too busy to take a trigger (HTTP 429)",
    prefect="Running",
    bolt="One run",
    result=(
        "The trigger is tried again when Bolt says (`Retry-After`), within `max_outage_seconds`. If Bolt "
        "asks for longer: `BoltUnavailable`, which says how long"
    ),
)
@pytest.mark.parametrize("operation", ["triggerBoltRun", "boltScheduleName"])
async def test_bolt_is_left_alone_as_long_as_it_asks_before_a_run_is_started(simulator, operation) -> None:
    """However long that is, within the longest outage, and what others start meanwhile is not taken for ours."""
    simulator.inject(faults.Status(429, retry_after=90, operation=operation, times=3))
    began = time.monotonic()
    trigger = asyncio.create_task(block(simulator).atrigger())
    await reached(simulator, lambda bolt: bolt.count(operation) == 2)
    others = simulator.start_run(SCHEDULE)
    simulator.inject(LOST)
    run = await trigger
    assert (time.monotonic() - began) >= 3 * 90
    assert [others, run.run_id] == [each.id for each in simulator.runs()]


@pytest.mark.guarantee(
    "Bolt is unreachable, busy, or refuses us",
    "Bolt is too busy to take a trigger (HTTP 429)",
)
@pytest.mark.parametrize("asked, sent, longest", [(90, 1, 60), (90, 7, 600), (3600, 1, 600)])
async def test_bolt_that_asks_for_more_than_an_outage_is_told_with_what_it_asks(
    simulator, asked, sent, longest
) -> None:
    """It is not waited for in vain; nothing was started."""
    simulator.inject(faults.Status(429, retry_after=asked, operation="triggerBoltRun", times=None))
    with pytest.raises(BoltUnavailable, match=f"asks to be left alone for {asked} s") as caught:
        await block(simulator, max_outage_seconds=longest).atrigger()
    assert not caught.value.may_have_acted
    assert simulator.count("triggerBoltRun") == sent
    assert simulator.runs() == []


async def test_a_refused_connection_is_no_lost_answer(simulator) -> None:
    """Bolt is down from the start: nothing was sent, and the error says what to do."""
    schedule = block(simulator)
    simulator.stop()
    with pytest.raises(BoltUnavailable) as caught:
        await schedule.atrigger()
    assert not caught.value.may_have_acted


async def test_a_trigger_that_a_gateway_sends_twice(simulator) -> None:
    """Bolt gets it twice, starts one run, and refuses the second; the refusal is what arrives, and is believed.

    `run_schedule` knows better: see `test_a_trigger_that_a_gateway_sends_twice` of the already running.
    """
    simulator.update_schedule(SCHEDULE, already_running="refuse")
    simulator.inject(faults.Duplicated(operation="triggerBoltRun"))
    with pytest.raises(BoltAlreadyRunning):
        await block(simulator).atrigger()
    assert len(simulator.runs()) == 1
