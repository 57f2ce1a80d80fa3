"""The worker or the `serve` process is stopped or killed, and Prefect reports it to no one."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import prefect
import pytest
from packaging.version import Version
from support.bench import Bench, Launched, case_of
from support.processes import ConditionNotMetError, TestProcess
from support.sweeps import sweep_at_once

if TYPE_CHECKING:
    from concurrent.futures import Future

_ONE_SIGNAL_SECONDS = 60.0


@dataclass(frozen=True)
class Case:
    via: str
    phase: str
    event: str

    @property
    def is_cancelled_in_good_order(self) -> bool:
        """From 3.9 on, Prefect's `serve` cancels its flow runs when it is stopped, and waits for them."""
        return (self.via, self.event) == ("serve", "SIGTERM") and Version(prefect.__version__) >= Version(
            "3.9"
        )

    def __str__(self) -> str:
        return f"{self.via}-{self.phase}-{self.event}"


def cases() -> list[Any]:
    always = {"worker-waiting-SIGTERM", "worker-waiting-SIGKILL"}
    sampled = {"worker-in_flight-SIGTERM", "serve-waiting-SIGTERM"}
    found = []
    for via in ("worker", "serve"):
        for phase in ("before", "in_flight", "waiting", "archiving", "awaiting_retry"):
            for event in ("SIGTERM", "ctrl_c", "SIGKILL"):
                case = Case(via, phase, event)
                found.append(case_of(case, always=str(case) in always, sampled=str(case) in sampled))
    return found


def play(bench: Bench, case: Case) -> Launched:
    """Stop the process above a flow run's; if the flow run continues without it, cancel the flow run then."""
    from paradime_blocks.testing import faults

    bolt = bench.bolt()
    retried = case.phase == "awaiting_retry"
    ends = retried or case.phase == "archiving"
    bolt.add(seconds=0.5 if ends else float("inf"), return_code=1 if retried else 0)
    hang = 20 if case.event == "SIGKILL" else 60
    if case.phase == "before":
        bolt.simulator.inject(faults.Hang(hang, operation="boltScheduleName"))
    elif case.phase == "in_flight":
        bolt.simulator.inject(faults.Hang(hang, operation="triggerBoltRun", after_acting=True))
    elif case.phase == "archiving":
        bolt.simulator.inject(faults.Hang(hang, operation="boltCommand"))
    name = f"own-{case}".replace("_", "-")
    flow = "retried" if retried else "run_schedule"
    supervisor = bench.worker(name) if case.via == "worker" else bench.serve(name, flow)
    run = bench.start(flow, bolt, via=case.via, pool=name, deployment=name)
    if retried:
        run.reach_state("AwaitingRetry")
    else:
        awaited, times = {
            "before": ("boltScheduleName", 1),
            "in_flight": ("triggerBoltRun", 1),
            "waiting": ("boltRunStatus", 2),
            "archiving": ("boltCommand", 1),
        }[case.phase]
        run.reach(lambda s: s.count(awaited) >= times)
    strike(supervisor, case.event)
    try:
        supervisor.wait(_ONE_SIGNAL_SECONDS)
    except ConditionNotMetError:
        # Seen: asyncio swallowed the signal in a callback of Prefect's own runner, which then continued.
        strike(supervisor, case.event)
        supervisor.wait()
    if case.event == "SIGKILL":
        # The flow run's process is alive; only the process itself can notice a cancel now.
        assert run.pids
        run.cancel()
    run.process_gone()
    return run


def strike(supervisor: TestProcess, event: str) -> None:
    if event == "ctrl_c":
        supervisor.ctrl_c()
    else:
        supervisor.send(getattr(signal, event))


@pytest.mark.guarantee(
    "Worker or machine lost",
    "The worker or `serve` is stopped, or the machine is lost",
    prefect="Running, and silent",
    bolt="Keeps running until the sweeper cancels it",
    result=(
        "The sweeper's table names the run; with the automation of `deployments/prefect.yaml` within three "
        "minutes. A process counts as lost if it has sent no heartbeat for a minute, on the sweeper's own machine, too"
    ),
)
@pytest.mark.parametrize("case", cases())
def test_a_lost_supervisor_leaves_a_run_only_where_the_sweeper_finds_it(
    case: Case, outcomes: dict[Case, Future[Launched]], record_figures
) -> None:
    """Traps 1 and 7: a stopped supervisor takes the flow run's process with it, and no hook runs, unless it cancels its
    flow runs first. A killed supervisor leaves the process, which notices a cancel on its own."""
    from paradime_flows.ledger.record import read_records
    from paradime_flows.prefect_api.labels import FLOW_RUN_TAG

    run = outcomes[case].result()
    flow_run = run.flow_run
    states = run.bolt.states()
    details = f"{flow_run.state!r}; {states}; {flow_run.labels}; {run.logs()}"
    ended = {"before": [], "archiving": ["SUCCESS"], "awaiting_retry": ["FAILED"]}
    assert FLOW_RUN_TAG in flow_run.tags, details
    swept = sweep_at_once(run)
    record_figures(
        "Real processes: worker or serve lost",
        runs=states,
        left_over=run.bolt.simulator.active_runs(),
        kills=1,
    )
    assert not run.bolt.simulator.active_runs(), details
    if case.is_cancelled_in_good_order:
        assert states == ended.get(case.phase, ["CANCELED"]), details
        assert flow_run.state.name == "Cancelled", details
        return
    if case.event == "SIGKILL":
        assert states == ended.get(case.phase, ["CANCELED"]), details
        # Without its runner, the process counts the signal as a crash, or the server has to end Cancelling.
        assert flow_run.state.name in {"Cancelled", "Cancelling", "Crashed"}, details
        return
    # Ctrl-C reaches a flow run's process that shares the terminal; it may have had time to clean up.
    left = {("RUNNING",), ("CANCELED",)} if case.event == "ctrl_c" else {("RUNNING",)}
    assert tuple(states) in ({tuple(ended[case.phase])} if case.phase in ended else left), details
    if states == ["RUNNING"]:
        assert [entry.flow_run_id for entry in swept] == [flow_run.id], swept
        assert flow_run.state.name == "Running", details
        (record,) = read_records(flow_run)
        assert record.is_open, details
        if case.phase == "waiting":
            assert record.run_id == run.bolt.simulator.runs()[0].id, details
        else:
            assert record.intent is not None, details
