"""A flow run that crashed, was retried, suspended or followed by another one: which Bolt run is whose."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from support.bench import Bench, Launched, case_of
from support.processes import wait_until

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A crashed flow run, whose Bolt run was left; what became of that meanwhile, and what the retry makes of it."""

    meanwhile: str
    retries: int = 0
    flow: str = "run_schedule"

    def __str__(self) -> str:
        return f"{self.flow}-{self.meanwhile}-{self.retries}-retries"


CASES = [
    Case("still_running"),
    Case("succeeded"),
    Case("failed"),
    Case("failed", retries=1),
    Case("answer_was_lost"),
    Case("still_running", flow="awaited_tasks_left"),
    Case("answer_was_lost", flow="trigger_only"),
]


def completed(run: Launched) -> bool:
    """Whether a flow run has completed; it is retried once more where its worker has written the crash a second time,
    over the first retry, as it does when the hook is done."""
    state = run.flow_run.state.name
    if state == "Crashed":
        run.retry()
    return bool(state == "Completed")


def play(bench: Bench, case: Case) -> Launched:
    """Kill a flow run while its Bolt run goes on, let time pass for that, and retry the flow run."""
    from paradime_flows.ledger.entry import read_ownerships

    bolt = bench.bolt()
    bolt.add(return_code=(1, 0) if case.meanwhile == "failed" else 0)
    simulator = bolt.simulator
    parameters = {} if case.flow != "run_schedule" else {"retries": case.retries, "retry_delay_seconds": 0}
    if case.meanwhile == "answer_was_lost":
        from paradime_blocks.testing import faults

        simulator.inject(faults.Hang(60, operation="triggerBoltRun", after_acting=True, then="cut"))
    if case.flow == "run_schedule":
        # The slot of a flow run that was killed is free again only a minute later (`paradime_flows.runner.slot`).
        parameters |= {"on_crash": "leave", "one_at_a_time": False}
    run = bench.start(case.flow, bolt, via="worker", **parameters)
    if case.meanwhile == "answer_was_lost":
        run.reach(lambda s: s.count("triggerBoltRun") == 1)
    else:
        run.reach(lambda s: s.count("boltRunStatus") >= 2)
    run.send(signal.SIGKILL)
    assert run.ended().state.name == "Crashed"
    (left,) = simulator.active_runs()
    if case.meanwhile in {"succeeded", "failed"}:
        simulator.finish(left.id, "SUCCESS" if case.meanwhile == "succeeded" else "FAILED")
    if case.retries:
        # The run that Bolt makes of a retry ends by itself.
        simulator.update_schedule("daily", commands=["dbt run"])
    if case.flow == "trigger_only":
        # The hook comes first: it finds the run, and leaves it.
        wait_until(
            lambda: not any(one.is_open for one in read_ownerships(run.flow_run)), "the hook", every=0.5
        )
        wait_until(lambda: completed(run), "the retry", every=1.0)
        simulator.finish(left.id, "SUCCESS")
        # Of a retry that the crash was written over, the process may come now, and begin the flow run once more.
        run.ended()
        return run
    seen = simulator.count("boltRunStatus")
    run.retry()
    if case.meanwhile in {"still_running", "answer_was_lost"}:
        run.reach(lambda s: s.count("boltRunStatus") >= seen + 2)
        simulator.finish(left.id, "SUCCESS")
    run.ended()
    return run


@pytest.mark.guarantee(
    "Signals, kills, clocks",
    'SIGKILL ends the process with `on_crash="leave"`, and the flow run is retried',
    prefect="Crashed, then as the run ends",
    bolt="The run keeps running",
    result="The retry resumes the same run",
)
@pytest.mark.parametrize("case", [case_of(case, always=case is CASES[0], sampled=True) for case in CASES])
def test_a_retry_takes_up_the_run_of_the_attempt_that_crashed(
    case: Case, outcomes: dict[Case, Future[Launched]], record_figures
) -> None:
    """Still running, it is waited for; ended, its end is the flow run's; a second one is started by policy only."""
    run = outcomes[case].result()
    flow_run = run.flow_run
    simulator = run.bolt.simulator
    told = f"{flow_run.state!r}; {simulator.runs()}; {run.logs()}"
    record_figures(
        "Real processes: taken up again",
        runs=simulator.runs(),
        left_over=simulator.active_runs(),
        kills=1,
    )
    assert simulator.count("triggerBoltRun") == 1, told
    if case.meanwhile == "failed":
        assert simulator.count("retryBoltRun") == case.retries, told
        assert flow_run.state.name == ("Completed" if case.retries else "Failed"), told
        assert len(run.bolt.states()) == 1 + case.retries, told
    else:
        assert flow_run.state.name == "Completed", told
        assert run.bolt.states() == ["SUCCESS"], told


@pytest.mark.full
def test_the_next_flow_run_and_a_retry_after_a_report_trigger_anew(bench: Bench) -> None:
    """What has been reported is over: neither the next day's run nor a retry reports it again."""
    bolt = bench.bolt()
    bolt.add(seconds=0.5, return_code=(1, 0))
    first = bench.start("run_schedule", bolt, via="worker")
    assert first.ended().state.name == "Failed"
    assert bolt.states() == ["FAILED"]
    second = bench.start("run_schedule", bolt, via="worker")
    assert second.ended().state.name == "Completed"
    assert bolt.states() == ["FAILED", "SUCCESS"]
    first.retry()
    first.reach(lambda s: s.count("triggerBoltRun") == 3)
    assert first.ended().state.name == "Completed"
    assert bolt.states() == ["FAILED", "SUCCESS", "SUCCESS"]


@pytest.mark.full
def test_the_next_flow_run_is_not_troubled_by_one_that_crashed(bench: Bench) -> None:
    """Yesterday's failure, which nobody has reported, stays yesterday's."""
    bolt = bench.bolt()
    bolt.add()
    crashed = bench.start("run_schedule", bolt, via="worker", on_crash="leave", one_at_a_time=False)
    crashed.reach(lambda s: s.count("boltRunStatus") >= 2)
    crashed.send(signal.SIGKILL)
    assert crashed.ended().state.name == "Crashed"
    bolt.simulator.finish(bolt.simulator.active_runs()[0].id, "FAILED")
    bolt.add(seconds=0.5)
    following = bench.start("run_schedule", bolt, via="worker", one_at_a_time=False)
    assert following.ended().state.name == "Completed"
    assert bolt.states() == ["FAILED", "SUCCESS"]


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    "Prefect starts a flow run again while its process is still running",
    prefect="As the newer process ends it",
    bolt="One run, which keeps running",
    result="The older process stops without an error",
)
@pytest.mark.full
def test_a_flow_run_that_is_begun_again_while_its_process_lives_has_one_bolt_run(bench: Bench) -> None:
    """Prefect lets two processes run one flow run; the older lets go of the Bolt run, and the newer reports it."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start("run_schedule", bolt, via="worker")
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    (older,) = run.pids
    run.retry()
    (newer,) = wait_until(lambda: [pid for pid in run.pids if pid != older], "a second process", every=0.2)
    wait_until(lambda: run.pids == [newer], "the end of the older process", every=0.2)
    assert bolt.states() == ["RUNNING"], run.logs()
    seen = bolt.simulator.count("boltRunStatus")
    run.reach(lambda s: s.count("boltRunStatus") >= seen + 2)
    bolt.simulator.finish(bolt.simulator.runs()[0].id, "SUCCESS")
    assert run.ended().state.name == "Completed", run.logs()
    assert bolt.states() == ["SUCCESS"], run.logs()
    assert bolt.simulator.count("triggerBoltRun") == 1


@pytest.mark.guarantee(
    "Retried, suspended, resumed",
    "A flow run is suspended while it waits for a run",
    prefect="Suspended, then as the run ends",
    bolt="One run, which keeps running",
    result="The process ends. When the flow run is resumed, it resumes the same run",
)
@pytest.mark.parametrize("flow", ["run_schedule", pytest.param("called_tasks", marks=pytest.mark.exhaustive)])
def test_a_flow_run_that_is_suspended_while_it_waits_leaves_its_run_and_takes_it_up_when_it_is_resumed(
    bench: Bench, flow: str
) -> None:
    """Trap 12: suspended from outside with our code at work, which ends; the run neither ends nor is doubled."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start(flow, bolt, via="worker")
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    run.suspend()
    run.process_gone()
    assert run.flow_run.state.name == "Suspended"
    assert bolt.states() == ["RUNNING"], run.logs()
    resume_and_finish(run)


@pytest.mark.full
def test_a_flow_run_that_suspends_itself_beside_a_wait_leaves_its_run(bench: Bench, tmp_path: Path) -> None:
    """Trap 12: Prefect's Pause breaks off the wait as an interrupt would, and is none."""
    bolt = bench.bolt()
    bolt.add()
    suspend_at = tmp_path / "now"
    run = bench.start("approved_meanwhile", bolt, via="worker", suspend_at=str(suspend_at))
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    suspend_at.touch()
    run.process_gone()
    assert run.flow_run.state.name == "Suspended"
    assert bolt.states() == ["RUNNING"], run.logs()
    resume_and_finish(run)


@pytest.mark.exhaustive
def test_a_flow_run_that_suspends_itself_before_a_wait_leaves_its_run(bench: Bench) -> None:
    """Trap 12: with none of our code at work; later the body begins anew."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start("approved", bolt, via="worker")
    run.reach_state("Suspended")
    run.process_gone()
    assert bolt.states() == ["RUNNING"]
    resume_and_finish(run)


def resume_and_finish(run: Launched) -> None:
    """Resume a suspended flow run; it is to wait for the one Bolt run that it has, and to end with it."""
    seen = run.bolt.simulator.count("boltRunStatus")
    run.resume()
    run.reach(lambda s: s.count("boltRunStatus") >= seen + 2)
    run.bolt.simulator.finish(run.bolt.simulator.runs()[0].id, "SUCCESS")
    assert run.ended().state.name == "Completed", run.logs()
    assert run.bolt.states() == ["SUCCESS"], run.logs()
    assert run.bolt.simulator.count("triggerBoltRun") == 1
