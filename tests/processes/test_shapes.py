"""Flows of users: tasks awaited, called, submitted and mapped, subflows, Prefect's own time limits."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from support.bench import HOOK_PROCESS_SECONDS, LIMIT_SECONDS, Bench, Launched, case_of, labels_are_sound

from paradime_blocks.testing import faults

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}
TWO_SCHEDULES = {"mapped", "gathered", "in_users_tasks", "in_threads", "subflows_in_tasks"}
LIMITED = ("limited_flow", "limited_sync_flow", "limited_task", "limited_submitted_task", "limited_trigger")
ALWAYS = {"called_tasks-serve-cancel"}
SAMPLED = {
    "awaited_tasks": {"script-cancel"},
    "called_tasks": {"serve-cancel"},
    "sync_flow": {"script-SIGTERM"},
    "submitted_async": {"script-SIGTERM"},
    "submitted_sync": {"serve-cancel"},
    "mapped": {"worker-cancel"},
    "gathered": {"script-SIGINT"},
    "in_users_tasks": {"script-SIGTERM", "serve-SIGTERM"},
    "in_threads": {"script-SIGINT"},
    "subflows_in_tasks": {"script-SIGTERM", "worker-cancel"},
    "parent": {"worker-cancel", "worker-SIGKILL"},
    "triggered_then_busy": {"worker-SIGKILL"},
}
# Without our hook on them, no code runs after a kill of the process.
WITHOUT_HOOK = {"sync_flow", "gathered"}


@dataclass(frozen=True)
class Case:
    flow: str
    via: str
    event: str

    @property
    def limit_seconds(self) -> float:
        hook = self.via == "worker" and self.event == "SIGKILL"
        return HOOK_PROCESS_SECONDS if hook else LIMIT_SECONDS

    def __str__(self) -> str:
        return f"{self.flow}-{self.via}-{self.event}"

    @property
    def prefect_states(self) -> set[str]:
        if self.via == "script" and self.event == "cancel":
            # A flow run that is being cancelled can only end as Cancelled. A user's flow that gets an exception for it
            # proposes Failed. The server writes Cancelled 300 s later.
            return {"Cancelling", "Cancelled"}
        return {
            "cancel": {"Cancelled"},
            "limit": {"TimedOut", "Failed"},
        }.get(self.event, {"Crashed"})


def cases() -> list[Any]:
    found = []
    for flow, sampled in SAMPLED.items():
        for via in ("script", "serve", "worker"):
            for event in ("cancel", *SIGNALS):
                killed = event == "SIGKILL" and (via == "script" or flow in WITHOUT_HOOK)
                unheard = flow == "triggered_then_busy" and via == "script" and event == "cancel"
                if killed or unheard or (event == "SIGINT" and via != "script"):
                    continue
                case = Case(flow, via, event)
                is_sampled = f"{via}-{event}" in sampled
                found.append(case_of(case, always=str(case) in ALWAYS, sampled=is_sampled))
    for flow in LIMITED:
        is_sampled = flow not in {"limited_sync_flow", "limited_submitted_task"}
        found.append(case_of(Case(flow, "script", "limit"), always=False, sampled=is_sampled))
    return found


def play(bench: Bench, case: Case) -> Launched:
    """Start a flow run, send the event while its Bolt run is active, and wait for its end."""
    bolt = bench.bolt()
    bolt.add()
    names: Any = "daily"
    if case.flow in TWO_SCHEDULES:
        bolt.add("hourly")
        names = ["daily", "hourly"]
    if case.flow == "limited_trigger":
        bolt.simulator.inject(faults.Hang(7, operation="triggerBoltRun", after_acting=True))
    run = bench.start(case.flow, bolt, via=case.via, schedule_name=names)
    if case.event != "limit":
        run.reach(lambda s: len(s.active_runs()) == (2 if case.flow in TWO_SCHEDULES else 1))
        if case.flow != "triggered_then_busy":
            run.reach(lambda s: s.count("boltRunStatus") >= 2)
        run.cancel() if case.event == "cancel" else run.send(SIGNALS[case.event])
    if run.process is not None:
        run.process_gone()
    else:
        run.ended()
    run.bolt_at_rest(case.limit_seconds)
    return run


@pytest.mark.guarantee(
    "Flows of your own",
    "Prefect's own `timeout_seconds`, a cancel or a kill ends a flow whose tasks are awaited, "
    "submitted, mapped, called by tasks or threads of your own, or that has sub-flows",
    prefect="Failed, Cancelled or Crashed",
    bolt="CANCELED",
    result="Prefect's error",
)
@pytest.mark.parametrize("case", cases())
def test_the_bolt_runs_of_a_users_flow_are_cancelled_with_it(
    case: Case, outcomes: dict[Case, Future[Launched]], record_figures
) -> None:
    """This holds however the flow calls us, and whatever ends it. (Traps 2, 3, 4, 6, 8.)"""
    run = outcomes[case].result()
    details = f"{run.flow_run.state!r}; labels {run.flow_run.labels}; log:\n{run.logs()}"
    if run.process is not None:
        details += f"\nIt printed:\n{run.process.output}"
    expected = ["CANCELED", "CANCELED"] if case.flow in TWO_SCHEDULES else ["CANCELED"]
    record_figures(
        "Real processes: flows of users",
        runs=run.bolt.states(),
        left_over=run.bolt.simulator.active_runs(),
        kills=int(case.event in SIGNALS),
    )
    assert run.bolt.states() == expected, details
    assert run.flow_run.state.name in case.prefect_states, details
    for flow_run in run.family():
        labels_are_sound(flow_run)


@pytest.mark.guarantee(
    "Flows of your own",
    "A parent flow fails while its sub-flow waits for a run",
    prefect="Failed",
    bolt="CANCELED",
    result="The parent's error",
)
@pytest.mark.full
def test_a_failed_parent_cancels_the_bolt_run_of_its_subflow(bench: Bench, tmp_path: Path) -> None:
    """The subflow's Bolt run has no use once the parent has failed beside it."""
    bolt = bench.bolt()
    bolt.add()
    fail_at = tmp_path / "now"
    run = bench.start("failing_parent", bolt, fail_at=str(fail_at))
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    fail_at.touch()
    assert run.ended().state.name == "Failed"
    run.bolt_at_rest()
    assert bolt.states() == ["CANCELED"]


@pytest.mark.guarantee(
    "Cancelled in Prefect",
    "The flow run is cancelled while a retry by Prefect is waited for",
    prefect="Cancelled. A flow of your own: Failed, when its process wakes for the retry",
    bolt="CANCELED; no second run is started",
    result="A flow of your own: `CancelledRun`",
)
@pytest.mark.full
def test_a_cancel_while_the_parent_awaits_its_retry_starts_no_second_run(bench: Bench) -> None:
    """Trap 5, one level up: Prefect runs the parent's function again although it was cancelled."""
    bolt = bench.bolt()
    bolt.add(seconds=0.5, return_code=1)
    run = bench.start("retried_parent", bolt)
    run.reach_state("AwaitingRetry")
    run.cancel()
    run.process_gone()
    assert bolt.states() == ["FAILED"], run.process.output
