"""A flow run is cancelled, signalled or killed at each phase; then the test checks which runs Bolt has had."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from support.bench import (
    FOREVER,
    HOOK_PROCESS_SECONDS,
    LIMIT_SECONDS,
    Bench,
    Launched,
    case_of,
    labels_are_sound,
)
from support.processes import wait_until
from support.sweeps import sweep_at_once

from paradime_blocks.testing import SimulatedCommand, faults

if TYPE_CHECKING:
    from concurrent.futures import Future

SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}
EVENTS = ("cancel", *SIGNALS)
PHASES = (
    "before",
    "in_flight",
    "lost",
    "waiting",
    "archiving",
    # Prefect's own retry of the flow run; the wait before our retry of the Bolt run; and that retry's `retryBoltRun`.
    "awaiting_retry",
    "pausing",
    "retry_in_flight",
)


@dataclass(frozen=True)
class Case:
    via: str
    phase: str
    event: str

    @property
    def limit_seconds(self) -> float:
        hook = self.via == "worker" and self.event == "SIGKILL"
        return HOOK_PROCESS_SECONDS if hook else LIMIT_SECONDS

    def __str__(self) -> str:
        return f"{self.via}-{self.phase}-{self.event}"

    @property
    def is_left_alone(self) -> bool:
        """A killed script runs no hook; only a sweeper can find out."""
        return self.via == "script" and self.event == "SIGKILL"

    @property
    def may_be_reported_late(self) -> bool:
        """Prefect may be requesting Running at that moment; the server can process that after the crash."""
        return self.via == "script" and self.phase == "awaiting_retry" and self.event in {"SIGINT", "SIGTERM"}

    @property
    def bolt_states(self) -> list[str]:
        """The expected states of all Bolt runs that were ever started."""
        ended = {
            "before": [],
            "archiving": ["SUCCESS"],
            "awaiting_retry": ["FAILED"],
            "pausing": ["FAILED"],
        }
        first = ["FAILED"] if self.phase == "retry_in_flight" else []
        return ended.get(self.phase, [*first, "RUNNING" if self.is_left_alone else "CANCELED"])

    @property
    def prefect_states(self) -> set[str]:
        if self.is_left_alone:
            return {"AwaitingRetry"} if self.phase == "awaiting_retry" else {"Running"}
        if self.event == "cancel":
            return {"Cancelled"}
        if self.phase == "archiving" and self.event == "SIGTERM":
            # asyncio may swallow the signal; then the flow run ends as usual (`flows/paradime_flows/ledger/README.md`).
            return {"Crashed", "Completed"}
        return {"Crashed", "Running"} if self.may_be_reported_late else {"Crashed"}


ALL = [
    Case(via, phase, event)
    for via in ("script", "serve", "worker")
    for phase in PHASES
    for event in EVENTS
    # A worker's flow run has no terminal to send Ctrl-C from.
    if event != "SIGINT" or via == "script"
]
# Each event with each way to start, at the phase that shows most.
ALWAYS = {
    "script-waiting-cancel",
    "script-in_flight-SIGTERM",
    "script-waiting-SIGKILL",
    "serve-waiting-SIGTERM",
    "serve-in_flight-SIGKILL",
    "worker-waiting-cancel",
    "worker-waiting-SIGTERM",
    "worker-waiting-SIGKILL",
}
# Each event at each phase, with each way to start that has it. Ctrl-C and SIGTERM are the same to our code, so they
# alternate at the phases after the trigger.
SAMPLED = {
    "script": {
        "before": ("SIGINT",),
        "in_flight": ("SIGINT", "SIGTERM"),
        "lost": ("SIGTERM",),
        "waiting": ("cancel", "SIGINT", "SIGKILL"),
        "archiving": ("SIGTERM",),
        "awaiting_retry": ("cancel", "SIGINT"),
        "pausing": ("SIGINT",),
        "retry_in_flight": ("SIGTERM",),
    },
    "serve": {
        "before": ("SIGTERM",),
        "in_flight": ("SIGKILL",),
        "lost": ("SIGKILL",),
        "waiting": ("SIGTERM",),
        "archiving": ("cancel",),
        "awaiting_retry": (),
        "pausing": ("cancel",),
        "retry_in_flight": ("SIGKILL",),
    },
    "worker": {
        "before": ("cancel", "SIGKILL"),
        "in_flight": ("cancel",),
        "lost": ("cancel",),
        "waiting": ("cancel", "SIGTERM", "SIGKILL"),
        "archiving": ("SIGKILL",),
        "awaiting_retry": ("SIGKILL",),
        "pausing": ("SIGKILL",),
        "retry_in_flight": ("cancel",),
    },
}


def cases() -> list[Any]:
    found = []
    for case in ALL:
        is_sampled = case.event in SAMPLED[case.via][case.phase]
        found.append(case_of(case, always=str(case) in ALWAYS, sampled=is_sampled))
    return found


def launch(bench: Bench, case: Case) -> Launched:
    """Start a flow run and wait until it reaches the case's phase."""
    bolt = bench.bolt()
    simulator = bolt.simulator
    seconds = {"archiving": 0.5, "awaiting_retry": 0.5}.get(case.phase, FOREVER)
    bolt.add(seconds=seconds, return_code=1 if case.phase == "awaiting_retry" else 0)
    parameters: dict[str, Any] = {}
    if case.phase in {"pausing", "retry_in_flight"}:
        parameters = {"retries": 1, "retry_delay_seconds": 60.0 if case.phase == "pausing" else 0.0}
        first = SimulatedCommand("dbt run", duration_seconds=0.5, return_code=(1, 0))
        simulator.update_schedule("daily", commands=[first, SimulatedCommand("dbt test", FOREVER)])
    # Long enough for the event to come first on any machine. A script notices a cancel only after the read.
    hang = 12 if case.event == "cancel" and case.via == "script" else 60
    if case.phase == "before":
        simulator.inject(faults.Hang(hang, operation="boltScheduleName"))
    elif case.phase == "in_flight":
        simulator.inject(faults.Hang(5, operation="triggerBoltRun", after_acting=True))
    elif case.phase == "lost":
        simulator.inject(faults.Hang(hang, operation="triggerBoltRun", after_acting=True, then="cut"))
    elif case.phase == "retry_in_flight":
        simulator.inject(faults.Hang(5, operation="retryBoltRun", after_acting=True))
    elif case.phase == "archiving":
        simulator.inject(faults.Hang(hang, operation="boltCommand"))
    flow = "retried" if case.phase == "awaiting_retry" else "run_schedule"
    run = bench.start(flow, bolt, via=case.via, **parameters)
    if case.phase == "awaiting_retry":
        run.reach_state("AwaitingRetry")
    elif case.phase == "pausing":
        wait_until(
            lambda: "; retry 1 of 1 in 60 s" in decisions_of(run), "the wait before the retry", every=0.5
        )
    else:
        awaited, times = {
            "before": ("boltScheduleName", 1),
            "in_flight": ("triggerBoltRun", 1),
            "lost": ("triggerBoltRun", 1),
            "waiting": ("boltRunStatus", 2),
            "archiving": ("boltCommand", 1),
            "retry_in_flight": ("retryBoltRun", 1),
        }[case.phase]
        run.reach(lambda s: s.count(awaited) >= times)
    return run


def decisions_of(run: Launched) -> str:
    """The decision log in the flow run's labels so far."""
    from paradime_flows.ledger.record import read_records

    return " ".join(sentence for record in read_records(run.flow_run) for _, sentence in record.notes)


def play(bench: Bench, case: Case) -> Launched:
    """Start a flow run, send the event at its phase, and wait for its end."""
    run = launch(bench, case)
    if case.event == "cancel":
        run.cancel()
    else:
        run.send(SIGNALS[case.event])
    if case.is_left_alone or case.may_be_reported_late:
        run.process_gone()
    else:
        run.ended()
        run.bolt_at_rest(case.limit_seconds)
    return run


@pytest.mark.guarantee(
    "Cancelled in Prefect",
    "A flow run is cancelled in the UI, by the API or by `prefect flow-run cancel`; it runs under "
    "`serve`, a worker or in a script",
    prefect="Cancelled",
    bolt="CANCELED",
    result="Nothing to do",
)
@pytest.mark.guarantee(
    "Signals, kills, clocks",
    "SIGTERM or Ctrl-C reaches the flow run's process",
    prefect="Crashed",
    bolt="CANCELED",
    result="`CancelledError` or `KeyboardInterrupt`. If a SIGTERM comes while a Bolt run that has ended is archived, "
    "the Bolt run keeps its state, and the flow run may end as usual",
)
@pytest.mark.guarantee(
    "Signals, kills, clocks",
    "SIGKILL ends the flow run's process under a worker or `serve` (a flow of your own needs the hook)",
    prefect="Crashed",
    bolt="CANCELED by the hook",
    result="Nothing to do",
)
@pytest.mark.parametrize("case", cases())
def test_bolt_has_exactly_the_expected_runs(
    case: Case, outcomes: dict[Case, Future[Launched]], record_figures
) -> None:
    """No run is started twice, and none continues without an owner; a killed script's run continues until the sweep.

    Traps 1, 3, 5, 6, 8, 10.
    """
    run = outcomes[case].result()
    flow_run = run.flow_run
    details = f"{flow_run.state!r}; labels {flow_run.labels}; log:\n{run.logs()}"
    assert run.bolt.states() == case.bolt_states, details
    sent = run.bolt.simulator.count("triggerBoltRun") + run.bolt.simulator.count("retryBoltRun")
    assert sent == len(case.bolt_states), details
    assert flow_run.state.name in case.prefect_states, details
    labels_are_sound(flow_run)
    if case.is_left_alone:
        swept = sweep_at_once(run)
        if "RUNNING" in case.bolt_states:
            assert [entry.flow_run_id for entry in swept] == [flow_run.id], swept
            assert run.flow_run.state.is_crashed()
    left_over = run.bolt.simulator.active_runs()
    record_figures(
        "Real processes: each event at each phase",
        runs=run.bolt.states(),
        left_over=left_over,
        kills=int(case.event != "cancel"),
    )
    assert not left_over, details
