"""The answer to a trigger is lost: what is searched for, what is adopted, and when nothing is guessed."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

import pytest
from faults.bench import FIRST, SCHEDULE, SECOND, credentials_for, reached, run_flow

from paradime_blocks.errors import (
    BoltAlreadyRunning,
    BoltRequestError,
    BoltRunTimedOut,
    BoltTriggerUnknown,
    BoltUnavailable,
)
from paradime_blocks.schedule import BoltSchedule
from paradime_blocks.testing import BoltSimulator, faults
from paradime_blocks.testing.faults import Fault
from paradime_blocks.testing.reply import Reply
from paradime_blocks.trigger.decision_log import DecisionLog

LOST = faults.CutConnection(operation="triggerBoltRun", after_acting=True)
LOST_BEFORE = faults.CutConnection(operation="triggerBoltRun")


@dataclass(frozen=True)
class Meanwhile(Fault):
    """Another client starts a run at the same time, before or after ours; then the answer is lost."""

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
    """Bolt's run list does not show the run yet when the second trigger is sent."""

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
    """A run list without runs."""

    runs: list[object] | None

    def answer(self, exchange) -> Reply:
        return Reply.of_json({"data": {"listBoltRuns": {"ok": True, "runs": self.runs}}})


@dataclass(frozen=True)
class ActsLater(Fault):
    """The client gets another response at once; the server continues, and starts the run."""

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
    "The answer is lost: a time-out, a cut connection, HTTP 5xx, a GraphQL error with that meaning, "
    "or an unreadable reply",
    prefect="Running; the log says which answer was lost",
    bolt="One run",
    result="The run is found among the schedule's newest runs, by branch and commands, and waited for",
)
async def test_the_run_of_a_lost_answer_is_adopted(simulator, record_figures) -> None:
    """The answer is lost, and the run is found; the decision log shows it."""
    simulator.inject(LOST)
    decision_log = DecisionLog()
    run = await block(simulator).atrigger(decision_log=decision_log)
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert run.cancel_on_timeout
    decisions = " ".join(sentence for _, sentence in decision_log.notes)
    assert "was lost" in decisions
    assert "which the trigger started" in decisions
    await run.acancel()
    record_figures("Lost answers", runs=simulator.runs(), left_over=simulator.active_runs())


@pytest.mark.guarantee(
    "The trigger's answer is lost",
    "The answer is lost, and no run was started",
    prefect="Running",
    bolt="One run",
    result=(
        "The trigger is sent again once it is certain that no run was started: 20 s after an unclear "
        "answer, a minute after a cut connection; after a time-out only by a retry of the flow run, "
        "two minutes later at least"
    ),
)
async def test_a_trigger_that_started_nothing_is_sent_again(simulator, record_figures) -> None:
    """No run appears within the window: the trigger is sent again, at most three times in all."""
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
async def test_of_two_runs_that_fit_none_is_chosen(simulator, first) -> None:
    """Another client starts the same at the same time: the error names both runs, and nothing is sent again."""
    another = {"actor": "an API key"}
    simulator.inject(Meanwhile(simulator, first=first, changes=another, operation="triggerBoltRun"))
    with pytest.raises(BoltTriggerUnknown) as caught:
        await block(simulator).atrigger()
    both = tuple(each.id for each in simulator.runs())
    assert len(both) == 2
    # The first poll may have come between the two, but not after the second appeared, and here it always has.
    assert tuple(caught.value.candidates) == both
    assert all(str(run_id) in str(caught.value) for run_id in both)
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize("first", [True, False], ids=["before ours", "after ours"])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"commands": [SECOND]}, id="commands"),
        pytest.param({"branch": "main"}, id="branch"),
    ],
)
async def test_our_run_is_distinguished_from_another(simulator, changes, first) -> None:
    """A run with other commands or another branch is not ours; our run beside it is adopted."""
    simulator.inject(Meanwhile(simulator, first=first, changes=changes, operation="triggerBoltRun"))
    run = await block(simulator, commands=[FIRST, SECOND], branch="dev").atrigger()
    assert simulator.run(run.run_id).branch == "dev"
    assert simulator.run(run.run_id).planned_commands == (FIRST, SECOND)
    assert len(simulator.runs()) == 2
    assert run.run_id == simulator.runs()[1 if first else 0].id


@pytest.mark.parametrize("first", [True, False], ids=["before ours", "after ours"])
async def test_a_run_that_seems_to_be_of_a_timer_may_be_ours(simulator, first) -> None:
    """An API key may be named like a timer. So neither run is adopted, and neither can be cancelled for the other."""
    changes = {"branch": "dev", "actor": "Bolt's scheduler"}
    simulator.inject(Meanwhile(simulator, first=first, changes=changes, operation="triggerBoltRun"))
    with pytest.raises(BoltTriggerUnknown) as caught:
        await block(simulator, branch="dev").atrigger()
    assert set(caught.value.candidates) == {run.id for run in simulator.runs()}
    assert simulator.count("triggerBoltRun") == 1


async def test_another_run_does_not_prove_that_ours_is_absent(simulator) -> None:
    """A run that seems not to be ours may still be ours: nothing is sent again."""
    simulator.inject(
        Meanwhile(simulator, acts=False, changes={"commands": [SECOND]}, operation="triggerBoltRun")
    )
    with pytest.raises(BoltTriggerUnknown) as caught:
        await block(simulator).atrigger()
    assert len(caught.value.candidates) == 1
    assert simulator.count("triggerBoltRun") == 1


async def test_a_run_that_appears_late_is_waited_for_and_not_started_twice(simulator, record_figures) -> None:
    """Until then the trigger is sent again, and refused because of that run, which may be another client's."""
    simulator.update_schedule(SCHEDULE, already_running="refuse")
    behind = [
        NothingYet(simulator, operation=each, times=None) for each in ("listBoltRuns", "boltScheduleName")
    ]
    simulator.inject(LOST, *behind)
    outcome = await run_flow(simulator, live_logs="off", one_at_a_time=False, timeout_seconds=10.0)
    assert isinstance(outcome.error, BoltRunTimedOut)
    (ours,) = outcome.runs
    assert (outcome.error.run_id, ours.cancel_requests) == (ours.id, 0)
    assert simulator.count("triggerBoltRun") == 2
    simulator.finish(ours.id)
    record_figures("Lost answers", runs=simulator.runs(), left_over=simulator.active_runs())


async def test_already_running_because_of_an_earlier_run_is_believed(simulator) -> None:
    """An answer is lost, the next trigger is refused, and no run is newer: the conflicting run is not ours."""
    simulator.start_run(SCHEDULE)
    simulator.update_schedule(SCHEDULE, already_running="refuse")
    simulator.inject(LOST_BEFORE)
    with pytest.raises(BoltAlreadyRunning):
        await block(simulator).atrigger()
    assert len(simulator.runs()) == 1


@pytest.mark.parametrize("acts", [True, False])
async def test_a_backend_that_cannot_list_runs(simulator, acts) -> None:
    """The schedule's latest run is used instead."""
    simulator.lacks(operations=["listBoltRuns"])
    simulator.inject(LOST if acts else LOST_BEFORE)
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == (1 if acts else 2)
    simulator.allow_bad_requests()


@pytest.mark.parametrize("runs", [None, []], ids=["null", "empty"])
async def test_an_empty_run_list_does_not_prove_absence(simulator, runs) -> None:
    """The schedule itself names a newer run, while the list is late or broken."""
    simulator.inject(LOST, NoRuns(runs, operation="listBoltRuns", times=None))
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize("status", [302, 400, 499])
@pytest.mark.parametrize("acts", [True, False], ids=["acts", "does not"])
async def test_a_gateways_own_refusal_is_not_believed(simulator, status, acts) -> None:
    """The gateway may have forwarded the trigger: its run is searched for, for a short time."""
    simulator.inject(faults.Status(status, operation="triggerBoltRun", after_acting=acts))
    if acts:
        run = await block(simulator).atrigger()
        assert [run.run_id] == [each.id for each in simulator.runs()]
    else:
        with pytest.raises(BoltRequestError):
            await block(simulator).atrigger()
        assert simulator.runs() == []
    assert simulator.count("triggerBoltRun") == 1


async def test_the_search_waits_for_the_end_of_an_outage(simulator) -> None:
    """Only a Bolt that responds can prove that no run exists."""
    simulator.inject(
        LOST,
        faults.Status(503, operation="listBoltRuns", times=8),
        faults.Status(503, operation="boltRunStatus", times=3),
    )
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 1


async def test_an_endless_outage_during_the_search_is_an_error(simulator) -> None:
    """Without responses, nothing is known: the error says so, and nothing is sent again."""
    simulator.inject(
        LOST,
        faults.Status(503, operation="listBoltRuns", times=None),
        faults.Status(503, operation="boltScheduleName", nth=2, times=None),
    )
    with pytest.raises(BoltTriggerUnknown):
        await block(simulator, max_outage_seconds=5).atrigger()
    assert simulator.count("triggerBoltRun") == 1


async def test_the_run_of_a_trigger_executed_late_is_found(simulator, record_figures) -> None:
    """The server acts long after the client has stopped waiting."""
    simulator.inject(faults.Hang(0.6, operation="triggerBoltRun"))
    run = await block(simulator, patience=0.3).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 1
    await run.acancel()
    record_figures("Lost answers", runs=simulator.runs(), left_over=simulator.active_runs())


@pytest.mark.guarantee("The trigger's answer is lost", "The answer is lost, and no run was started")
async def test_a_run_that_starts_30_s_after_a_cut_connection_is_found(simulator) -> None:
    """It is not known how far the server got. Absence is proven only when the server cannot be working any more."""
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
async def test_a_trigger_that_may_still_start_is_not_sent_again(simulator, fault) -> None:
    """After a time-out, the run may still start: two runs are worse than an error."""
    simulator.inject(fault)
    with pytest.raises(BoltTriggerUnknown):
        await block(simulator, patience=0.3).atrigger()
    assert simulator.count("triggerBoltRun") == 1
    assert not simulator.runs()


async def test_a_graphql_error_after_the_run_started(simulator) -> None:
    """GraphQL returns 200 with an error although the run has started: the run is found and adopted."""
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
async def test_a_gateway_error_in_graphql_counts_as_a_lost_answer(simulator, text, after_seconds) -> None:
    """A run that such a request starts later is found too, where a plain refusal would end the search earlier."""
    simulator.inject(ActsLater(after_seconds, faults.GraphQLError(text), operation="triggerBoltRun"))
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize("text", ["request to upstream timed out", "Gateway Timeout", "timeout of 30000ms"])
async def test_a_gateway_time_out_in_graphql_is_not_a_refusal(simulator, text) -> None:
    """As after HTTP 504, the request may still reach the server: it is not sent again, nor reported as a refusal."""
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
async def test_a_refusal_is_raised_as_a_refusal(simulator, text) -> None:
    """Bolt refused and started nothing: that error is raised, and nothing is sent again."""
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
async def test_an_unreadable_answer_is_a_lost_answer(simulator, fault) -> None:
    """Whatever came instead of the answer, the run is searched for."""
    simulator.inject(fault)
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("triggerBoltRun") == 1


@pytest.mark.parametrize("retry_after", [None, 2])
async def test_a_rate_limited_trigger_is_sent_again_without_a_search(simulator, retry_after) -> None:
    """A server that responds 'too many requests' has not acted: no search is needed."""
    simulator.inject(faults.Status(429, retry_after=retry_after, operation="triggerBoltRun", times=2))
    run = await block(simulator).atrigger()
    assert [run.run_id] == [each.id for each in simulator.runs()]
    assert simulator.count("listBoltRuns") == 0


@pytest.mark.guarantee(
    "Bolt is unreachable, busy, or refuses us",
    "Bolt is too busy to accept a trigger (HTTP 429)",
    prefect="Running",
    bolt="One run",
    result=(
        "The trigger is tried again when Bolt says (`Retry-After`), within `max_outage_seconds`. If Bolt "
        "asks for longer: `BoltUnavailable`, which says how long"
    ),
)
@pytest.mark.parametrize("operation", ["triggerBoltRun", "boltScheduleName"])
async def test_the_trigger_waits_as_long_as_bolt_asks(simulator, operation) -> None:
    """However long that is, up to the longest outage. Runs that others start meanwhile do not count as ours."""
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
    "Bolt is too busy to accept a trigger (HTTP 429)",
)
@pytest.mark.parametrize("asked, sent, longest", [(90, 1, 60), (90, 7, 600), (3600, 1, 600)])
async def test_a_retry_after_beyond_the_longest_outage_is_an_error(simulator, asked, sent, longest) -> None:
    """There is no wait that would fail anyway, and nothing was started."""
    simulator.inject(faults.Status(429, retry_after=asked, operation="triggerBoltRun", times=None))
    with pytest.raises(BoltUnavailable, match=f"Retry-After: {asked} s") as caught:
        await block(simulator, max_outage_seconds=longest).atrigger()
    assert not caught.value.may_have_acted
    assert simulator.count("triggerBoltRun") == sent
    assert simulator.runs() == []


async def test_a_refused_connection_is_not_a_lost_answer(simulator) -> None:
    """Bolt is down from the start: nothing was sent, and the error says what to do."""
    schedule = block(simulator)
    simulator.stop()
    with pytest.raises(BoltUnavailable) as caught:
        await schedule.atrigger()
    assert not caught.value.may_have_acted


async def test_a_trigger_doubled_by_a_gateway_runs_once(simulator) -> None:
    """Bolt receives it twice, starts one run, and refuses the second. The client gets the refusal and believes it.

    `run_schedule` does better: see the test of the same name in test_already_running.py.
    """
    simulator.update_schedule(SCHEDULE, already_running="refuse")
    simulator.inject(faults.Duplicated(operation="triggerBoltRun"))
    with pytest.raises(BoltAlreadyRunning):
        await block(simulator).atrigger()
    assert len(simulator.runs()) == 1
