"""A flow run crashed and was retried, was suspended, or is followed by another: which Bolt run is whose."""

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
    """A crashed flow run that left its Bolt run, what happened to the run next, and what the retry does with it."""

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


def play(bench: Bench, case: Case) -> Launched:
    """Kill a flow run while its Bolt run is active, let `meanwhile` happen, and retry the flow run."""
    bolt = bench.bolt()
    bolt.add(return_code=(1, 0) if case.meanwhile == "failed" else 0)
    simulator = bolt.simulator
    parameters = {} if case.flow != "run_schedule" else {"retries": case.retries, "retry_delay_seconds": 0}
    if case.meanwhile == "answer_was_lost":
        from paradime_blocks.testing import faults

        simulator.inject(faults.Hang(60, operation="triggerBoltRun", after_acting=True, then="cut"))
    if case.flow == "run_schedule":
        # The slot of a killed flow run is released only a minute later (`paradime_flows.runner.slot`).
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
        # Bolt's run for a retry ends without help.
        simulator.update_schedule("daily", commands=["dbt run"])
    seen = simulator.count("boltRunStatus")
    run.retry()
    if case.flow == "trigger_only":
        # The flow run ends before its Bolt run.
        run.reach_state("Completed")
        simulator.finish(left.id, "SUCCESS")
    elif case.meanwhile in {"still_running", "answer_was_lost"}:
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
def test_a_retry_resumes_the_run_of_the_crashed_attempt(
    case: Case, outcomes: dict[Case, Future[Launched]], record_figures
) -> None:
    """A running run is waited for; the end of an ended run is the flow run's; only the policy starts a second run."""
    run = outcomes[case].result()
    flow_run = run.flow_run
    simulator = run.bolt.simulator
    details = f"{flow_run.state!r}; {simulator.runs()}; {run.logs()}"
    if case.flow == "run_schedule":
        wait_until(lambda: all(one.state.is_final() for one in run.task_runs()), "the ends of its task runs")
        assert "Crashed" in {one.state_name for one in run.task_runs()}, details
    record_figures(
        "Real processes: resumed",
        runs=simulator.runs(),
        left_over=simulator.active_runs(),
        kills=1,
    )
    assert simulator.count("triggerBoltRun") == 1, details
    if case.meanwhile == "failed":
        assert simulator.count("retryBoltRun") == case.retries, details
        assert flow_run.state.name == ("Completed" if case.retries else "Failed"), details
        assert len(run.bolt.states()) == 1 + case.retries, details
    else:
        assert flow_run.state.name == "Completed", details
        assert run.bolt.states() == ["SUCCESS"], details


@pytest.mark.full
def test_after_a_report_the_next_flow_run_and_a_retry_trigger_anew(bench: Bench) -> None:
    """A reported end is final: neither the next day's run nor a retry reports it again."""
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
def test_a_crashed_flow_run_does_not_affect_the_next_one(bench: Bench) -> None:
    """Yesterday's failure, which was not reported, does not affect today's flow run."""
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
    result="The older process stops without an error; until then, both may log the same lines",
)
@pytest.mark.full
def test_a_flow_run_with_two_processes_has_one_bolt_run(bench: Bench) -> None:
    """Prefect lets two processes run one flow run; the older releases the Bolt run, and the newer reports it."""
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
def test_a_flow_run_suspended_during_a_wait_resumes_its_run(bench: Bench, flow: str) -> None:
    """Trap 12: it is suspended from outside while our code runs. The code stops; the run continues, once."""
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
def test_a_flow_run_that_suspends_itself_during_a_wait_leaves_its_run(bench: Bench, tmp_path: Path) -> None:
    """Trap 12: Prefect's Pause stops the wait as an interrupt would, but it is not an interrupt."""
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
    """Trap 12: none of our code is running; later, a new attempt starts."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start("approved", bolt, via="worker")
    run.reach_state("Suspended")
    run.process_gone()
    assert bolt.states() == ["RUNNING"]
    resume_and_finish(run)


def resume_and_finish(run: Launched) -> None:
    """Resume a suspended flow run; it must wait for its one Bolt run and end with it."""
    seen = run.bolt.simulator.count("boltRunStatus")
    run.resume()
    run.reach(lambda s: s.count("boltRunStatus") >= seen + 2)
    run.bolt.simulator.finish(run.bolt.simulator.runs()[0].id, "SUCCESS")
    assert run.ended().state.name == "Completed", run.logs()
    assert run.bolt.states() == ["SUCCESS"], run.logs()
    assert run.bolt.simulator.count("triggerBoltRun") == 1


@pytest.mark.guarantee(
    "Signals, kills, clocks",
    "Kubernetes or ECS evicts the flow run, and Prefect continues it on another machine",
    prefect="AwaitingRetry or Running, then as the run ends",
    bolt="The run keeps running",
    result="The next process resumes the same run",
)
@pytest.mark.parametrize("behavior", ["reschedule", pytest.param("relinquish", marks=pytest.mark.full)])
def test_an_evicted_flow_run_is_continued_by_the_next_process(bench: Bench, behavior: str) -> None:
    """The infrastructure sends SIGTERM to the process that executes the flow run, as Prefect's image starts it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    bolt = bench.bolt()
    bolt.add()
    pool = f"evicted-{behavior}"
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    run = bench.start("run_schedule", bolt, via="worker", pool=pool)
    command = ("flow-run", "execute", str(run.flow_run.id))
    env = {"PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": behavior}
    evicted = bench.processes.prefect(*command, env=env)
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    evicted.send(signal.SIGTERM)
    assert (evicted.wait() == 0) is (behavior == "reschedule"), evicted.output
    assert run.flow_run.state.name == ("AwaitingRetry" if behavior == "reschedule" else "Running")
    (left,) = bolt.simulator.active_runs()
    seen = bolt.simulator.count("boltRunStatus")
    successor = bench.processes.prefect(*command, env=env)
    run.reach(lambda s: s.count("boltRunStatus") >= seen + 2)
    bolt.simulator.finish(left.id, "SUCCESS")
    assert successor.wait() == 0, successor.output
    assert run.flow_run.state.name == "Completed", run.logs()
    assert (bolt.simulator.count("triggerBoltRun"), left.cancel_requests) == (1, 0)
