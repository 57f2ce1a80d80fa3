"""The schedule is already running: each policy works within its bounds and never harms the other run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from faults.bench import SCHEDULE, bolt, reached, run_flow

from paradime_blocks.errors import BoltAlreadyRunning, BoltCancelUnconfirmed, BoltRunFailed, BoltRunTimedOut
from paradime_blocks.models import BoltRunState
from paradime_blocks.testing import faults

if TYPE_CHECKING:
    from faults.bench import Outcome

    from paradime_blocks.testing import BoltSimulator


@pytest.fixture
def simulator(simulator):
    """A Bolt in which another client's run never ends; neither would ours."""
    simulator.start_run(SCHEDULE)
    return simulator


@pytest.fixture
def idle_simulator():
    """A Bolt without runs; ours would succeed."""
    with bolt("success", speed=1) as simulator:
        yield simulator


async def run(simulator: BoltSimulator, policy: str, **parameters: Any) -> Outcome:
    return await run_flow(
        simulator,
        on_already_running=policy,
        live_logs="off",
        one_at_a_time=False,
        **{"timeout_seconds": 10.0, **parameters},
    )


def untouched(simulator: BoltSimulator) -> bool:
    foreign = simulator.runs()[0]
    return foreign.is_active and not foreign.cancel_requests


@pytest.mark.guarantee(
    "The trigger's answer is lost",
    "A gateway sends the trigger twice, and only Bolt's refusal of the second one arrives",
    prefect="As the run ends",
    bolt="One run",
    result=(
        "The run's result, whatever `on_already_running` says. The run is not cancelled, since it may be another "
        "client's. Where two runs fit, `BoltTriggerUnknown` names them. If the process is killed before it has seen "
        "the run, a retry of the flow run takes it for another client's, and does as `on_already_running` says"
    ),
)
@pytest.mark.parametrize("policy", ["wait", "attach", "attach_if_same", "replace", "fail", "skip"])
async def test_a_trigger_doubled_by_a_gateway_runs_once(simulator, policy) -> None:
    """Bolt starts our run and refuses the second request. We get the refusal, and wait for the run.

    The run is not cancelled: another client may have started it just before us.
    """
    simulator.finish(simulator.runs()[0].id)
    simulator.inject(faults.Duplicated(operation="triggerBoltRun"))
    outcome = await run(simulator, policy)
    _, ours = outcome.runs
    assert isinstance(outcome.error, BoltRunTimedOut)
    assert outcome.error.run_id == ours.id
    assert ours.is_active
    assert not ours.cancel_requests
    assert "started after our trigger was sent" in outcome.summary


async def test_fail(simulator) -> None:
    """The error names the conflicting run; nothing was started or changed."""
    outcome = await run(simulator, "fail")
    assert isinstance(outcome.error, BoltAlreadyRunning)
    assert outcome.error.run_id == outcome.runs[0].id
    assert len(outcome.runs) == 1
    assert untouched(simulator)
    assert outcome.record is not None
    assert not outcome.record.is_open


async def test_skip(simulator) -> None:
    """The flow run is completed, and its state's name says that it was skipped."""
    outcome = await run(simulator, "skip")
    assert outcome.state.is_completed()
    assert outcome.state.name == "Skipped"
    assert outcome.result.state is BoltRunState.SKIPPED
    assert len(outcome.runs) == 1
    assert untouched(simulator)


@pytest.mark.guarantee(
    "The schedule is running already",
    "The schedule is running again when a failed run is to be retried, and `on_already_running` is `skip`",
    prefect="Failed",
    bolt="The other run keeps running; none is started",
    result="`BoltRunFailed`: a failure is reported, not skipped",
)
async def test_skip_still_reports_a_failure(simulator) -> None:
    """Our run fails, and another run conflicts with its retry: no retry is sent, and the failure is reported."""
    simulator.finish(simulator.runs()[0].id)

    async def end_ours() -> None:
        await reached(simulator, lambda bolt: bool(bolt.active_runs()))
        simulator.finish(simulator.runs()[1].id, state="FAILED")
        simulator.start_run(SCHEDULE)

    retries = {"retries": 1, "retry_delay_seconds": 1, "timeout_seconds": 3600.0}
    outcome, _ = await asyncio.gather(run(simulator, "skip", **retries), end_ours())
    assert isinstance(outcome.error, BoltRunFailed), outcome
    assert outcome.error.run_id == outcome.runs[1].id
    assert [each.state for each in outcome.runs[1:]] == ["FAILED", "RUNNING"]
    assert "the failed run is not retried" in outcome.summary


async def test_wait_is_bounded(simulator) -> None:
    """The other run does not end: the time limit's error says so, and the other run is not touched."""
    outcome = await run(simulator, "wait")
    assert isinstance(outcome.error, BoltAlreadyRunning)
    assert outcome.error.run_id == outcome.runs[0].id
    assert len(outcome.runs) == 1
    assert untouched(simulator)


@pytest.mark.parametrize("policy", ["wait", "attach", "attach_if_same", "replace", "fail", "skip"])
async def test_wait_when_bolt_does_not_list_the_conflicting_run(idle_simulator, policy) -> None:
    """Bolt may not list a run while it starts. `wait` keeps waiting, and then triggers."""
    refusal = f"AlreadyRunningException: schedule {SCHEDULE!r} is already running"
    idle_simulator.inject(faults.GraphQLError(refusal, operation="triggerBoltRun", times=3))
    outcome = await run(idle_simulator, policy, timeout_seconds=3600.0)
    if policy in {"fail", "skip"}:
        assert isinstance(outcome.error, BoltAlreadyRunning)
        assert outcome.runs == []
    else:
        assert outcome.state.is_completed(), outcome
        assert [each.state for each in outcome.runs] == ["SUCCESS"]


async def test_wait_triggers_when_the_other_run_has_ended(simulator) -> None:
    """When the other run has ended, ours starts."""

    async def end_it() -> None:
        await reached(simulator, lambda bolt: bolt.count("boltRunStatus") > 1)
        simulator.finish(simulator.runs()[0].id)
        await reached(simulator, lambda bolt: len(bolt.runs()) > 1)
        simulator.finish(simulator.runs()[1].id)

    outcome, _ = await asyncio.gather(run(simulator, "wait", timeout_seconds=3600.0), end_it())
    assert outcome.state.is_completed(), outcome
    assert outcome.result.run_id == outcome.runs[1].id
    assert len(outcome.runs) == 2


async def test_attach_waits_for_the_other_and_never_cancels_it(simulator) -> None:
    """Neither its own time limit nor an interrupt of the flow cancels it."""
    outcome = await run(simulator, "attach")
    assert isinstance(outcome.error, BoltRunTimedOut)
    assert "is still running" in str(outcome.error)
    assert untouched(simulator)
    with anyio.move_on_after(1.0):
        await run(simulator, "attach", timeout_seconds=3600.0)
    assert untouched(simulator)
    assert len(simulator.runs()) == 1


async def test_attach_returns_the_result_of_the_other_run(simulator) -> None:
    """The result is that of the other run."""

    async def end_it() -> None:
        await reached(simulator, lambda bolt: bolt.count("boltRunStatus") > 1)
        simulator.finish(simulator.runs()[0].id)

    outcome, _ = await asyncio.gather(run(simulator, "attach", timeout_seconds=3600.0), end_it())
    assert outcome.result.run_id == outcome.runs[0].id
    assert len(outcome.runs) == 1


OTHERS = [
    pytest.param(
        {"commands": ["dbt test"]}, {}, "commands 'dbt seed; dbt run' instead of 'dbt test'", id="commands"
    ),
    pytest.param(
        {"commands": ["dbt seed"]}, {}, "commands 'dbt seed; dbt run' instead of 'dbt seed'", id="more"
    ),
    pytest.param(
        {}, {"commands": ["dbt seed"]}, "commands 'dbt seed' instead of 'dbt seed; dbt run'", id="fewer"
    ),
    pytest.param({"branch": "main"}, {"branch": "theirs"}, "branch 'theirs' instead of 'main'", id="branch"),
    pytest.param({}, {"branch": "theirs"}, None, id="no branch asked for"),
    pytest.param({"commands": ["dbt seed", "dbt run"], "branch": "main"}, {}, None, id="the same"),
]


async def attached(
    bolt: BoltSimulator, asked: dict[str, Any], theirs: dict[str, Any], policy: str
) -> Outcome:
    """A run beside another's, which succeeds."""
    bolt.start_run(SCHEDULE, **theirs)
    return await run(bolt, policy, timeout_seconds=3600.0, **asked)


@pytest.mark.parametrize("asked, theirs, told", OTHERS)
async def test_attach_says_if_the_other_run_does_something_else(
    idle_simulator, asked, theirs, told, caplog
) -> None:
    """In the log, in the summary, in the result and in the flow run's state."""
    outcome = await attached(idle_simulator, asked, theirs, "attach")
    assert outcome.result.run_id == idle_simulator.runs()[0].id
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    if told is None:
        assert (outcome.result.differs, outcome.state.name, warnings) == (None, "Completed", [])
        return
    sentence = f"Bolt run {outcome.result.run_id} differs from the request: {told}."
    assert (outcome.result.differs, outcome.state.name) == (sentence, "Attached")
    assert warnings[-1] == sentence
    assert outcome.summary.index("differs from the request") < outcome.summary.index("## ")


@pytest.mark.parametrize("asked, theirs, told", OTHERS)
async def test_attach_if_same_fails_if_the_other_run_does_something_else(
    idle_simulator, asked, theirs, told
) -> None:
    """At once, where it can be told; else when its commands are known."""
    outcome = await attached(idle_simulator, asked, theirs, "attach_if_same")
    assert [each.cancel_requests for each in outcome.runs] == [0]
    if told is None:
        assert outcome.result.run_id == outcome.runs[0].id
        return
    assert isinstance(outcome.error, BoltAlreadyRunning)
    assert told.partition(" instead of ")[2] in outcome.error.message
    assert outcome.error.run_id == outcome.runs[0].id
    assert outcome.record is not None
    assert not outcome.record.is_open


async def test_replace(simulator) -> None:
    """The other run is cancelled once; then ours runs, and its time limit cancels it."""
    outcome = await run(simulator, "replace")
    assert isinstance(outcome.error, BoltRunTimedOut), outcome
    assert [each.state for each in outcome.runs] == ["CANCELED", "CANCELED"]
    assert outcome.runs[0].cancel_requests == 1
    assert not outcome.active


async def test_replace_is_bounded(simulator) -> None:
    """Bolt does not cancel the other run: the error names that run, and nothing was started."""
    simulator.update_schedule(SCHEDULE, cancel="ignore")
    outcome = await run(simulator, "replace", cancel_grace_seconds=5.0)
    assert isinstance(outcome.error, BoltCancelUnconfirmed)
    assert outcome.error.run_id == outcome.runs[0].id
    assert len(outcome.runs) == 1


async def test_waiting_does_not_hammer_bolt(simulator) -> None:
    """The latest run has ended, but an older one is active: triggers are sent with pauses."""
    simulator.finish(simulator.start_run(SCHEDULE))
    outcome = await run(simulator, "wait", timeout_seconds=40.0)
    assert isinstance(outcome.error, BoltAlreadyRunning)
    # In 40 s, with at least five seconds between two tries.
    assert outcome.requests["triggerBoltRun"] <= 8, outcome.requests
