"""The rest of the thirteen traps of Prefect (other files' docstrings name theirs), and Prefect's command line."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from support.bench import HOOK_PROCESS_SECONDS, LIMIT_SECONDS, Bench, labels_are_sound
from support.flaky_proxy import FlakyProxy

from paradime_blocks.testing import faults
from paradime_flows.ledger.phase import Phase
from paradime_flows.ledger.record import read_records

if TYPE_CHECKING:
    from support.prefect_server import LocalPrefectServer

pytestmark = pytest.mark.full


@pytest.mark.guarantee(
    "Signals, kills, clocks",
    "A second signal arrives before the cancel was sent to Bolt",
    prefect="Crashed",
    bolt="CANCELED",
    result="`CancelledError` or `KeyboardInterrupt`. Signals are held back for half a minute at most",
)
@pytest.mark.parametrize(
    "flow, via, signum",
    [
        ("run_schedule", "script", signal.SIGTERM),
        ("sync_flow", "script", signal.SIGINT),
        pytest.param("sync_flow", "script", signal.SIGTERM, marks=pytest.mark.exhaustive),
        pytest.param("awaited_tasks", "script", signal.SIGTERM, marks=pytest.mark.exhaustive),
        pytest.param("awaited_tasks", "script", signal.SIGINT, marks=pytest.mark.exhaustive),
        pytest.param("run_schedule", "script", signal.SIGINT, marks=pytest.mark.exhaustive),
        pytest.param("run_schedule", "worker", signal.SIGTERM, marks=pytest.mark.exhaustive),
    ],
)
def test_a_second_signal_does_not_stop_the_cancel(
    bench: Bench, flow: str, via: str, signum: signal.Signals
) -> None:
    """Trap 9: it would interrupt the clean-up, here during a cancel that never reaches Bolt."""
    bolt = bench.bolt()
    bolt.add()
    bolt.simulator.inject(faults.Hang(5, operation="cancelBoltRun", then="cut"))
    run = bench.start(flow, bolt, via=via)
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    run.send(signum)
    run.reach(lambda s: s.count("cancelBoltRun") >= 1)
    run.send(signum)
    assert bolt.simulator.count("cancelBoltRun") == 1
    assert bolt.states() == ["RUNNING"]
    run.process_gone()
    run.bolt_at_rest()
    assert bolt.states() == ["CANCELED"], run.logs()
    assert run.ended().state.name == "Crashed"


def test_a_signal_during_a_cancel_does_not_make_it_a_crash(bench: Bench) -> None:
    """A runner sends a signal with each cancel, and our watch may have noticed the cancel before."""
    bolt = bench.bolt()
    bolt.add()
    bolt.simulator.inject(faults.Hang(3, operation="cancelBoltRun", then="cut"))
    run = bench.start("run_schedule", bolt)
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    run.cancel()
    run.reach(lambda s: s.count("cancelBoltRun") >= 1)
    run.send(signal.SIGTERM)
    assert bolt.states() == ["RUNNING"]
    run.process_gone()
    run.bolt_at_rest()
    assert bolt.states() == ["CANCELED"], run.logs()
    assert run.ended().state.name == "Cancelled"


@pytest.mark.parametrize(
    "flow", [pytest.param("run_schedule", marks=pytest.mark.exhaustive), "awaited_tasks_unhooked"]
)
def test_a_signal_raised_inside_our_code_is_an_interrupt(bench: Bench, flow: str) -> None:
    """Most signals reach the event loop while it waits, and cancel its tasks; this one is raised inside a task."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start(flow, bolt, program="call_interrupted.py")
    flow_run = run.ended()
    assert flow_run.state.name == "Crashed"
    assert "termination signal" in flow_run.state.message
    run.bolt_at_rest()
    assert bolt.states() == ["CANCELED"], run.process.output


@pytest.mark.parametrize(
    "flow",
    [
        "run_schedule",
        *(pytest.param(flow, marks=pytest.mark.exhaustive) for flow in ("sync_flow", "awaited_tasks")),
    ],
)
def test_a_signal_that_asyncio_swallows_is_noticed(bench: Bench, flow: str) -> None:
    """SIGTERM during a transport's work: asyncio takes Prefect's exception for a broken connection."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start(flow, bolt, program="call_swallowing.py")
    assert run.ended().state.name == "Crashed"
    run.bolt_at_rest()
    assert bolt.states() == ["CANCELED"], run.process.output


def test_the_command_line_cancels(bench: Bench) -> None:
    """`prefect flow-run cancel`, as typed by a person."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start("run_schedule", bolt, via="worker")
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    run.cancel_by_command()
    assert run.ended().state.name == "Cancelled"
    run.bolt_at_rest()
    assert bolt.states() == ["CANCELED"]


def test_the_bolt_run_of_a_killed_process_ends_within_seconds(bench: Bench) -> None:
    """Trap 6: the hook finds the run although its labels are stale; here nothing else is running."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start("run_schedule", bolt, via="worker")
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    run.send(signal.SIGKILL)
    with ThreadPoolExecutor() as beside:
        # For comparison: the time to start a process like the hook's, under the same load.
        start = beside.submit(seconds_to_start_a_process)
        assert run.ended().state.name == "Crashed"
        late = run.bolt_at_rest(HOOK_PROCESS_SECONDS)
        assert bolt.states() == ["CANCELED"]
        assert late <= max(LIMIT_SECONDS, 2 * start.result())


def seconds_to_start_a_process() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import paradime_flows.run_schedule"], check=True)
    return time.monotonic() - began


def test_an_interrupt_leaves_the_run_if_the_policy_says_so(bench: Bench) -> None:
    """`on_interrupt="leave"` applies although Prefect calls the interrupt a crash, whose policy would cancel."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start("run_schedule", bolt, on_interrupt="leave")
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    run.send(signal.SIGTERM)
    assert run.ended().state.name == "Crashed"
    assert bolt.states() == ["RUNNING"], run.process.output
    assert bolt.simulator.count("cancelBoltRun") == 0


def test_a_locked_prefect_database_loses_no_label(bench: Bench, prefect_server: LocalPrefectServer) -> None:
    """Trap 13: Prefect's server answers 503 when its SQLite database is locked; nothing may be lost or doubled then."""
    bolt = bench.bolt()
    bolt.add(seconds=1.0)
    with FlakyProxy(prefect_server.api_url, path_ends_with="/labels", times=3) as proxy:
        run = bench.start("run_schedule", bolt, env={"PREFECT_API_URL": proxy.url})
        assert run.ended().state.name == "Completed"
        assert proxy.refused == 3
    flow_run = run.flow_run
    assert bolt.states() == ["SUCCESS"]
    assert flow_run.labels["paradime.run_id"] == bolt.simulator.runs()[0].id
    (record,) = read_records(flow_run)
    assert record.phase is Phase.REPORTED, record
    labels_are_sound(flow_run)
