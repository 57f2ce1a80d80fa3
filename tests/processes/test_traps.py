"""What is left of the thirteen traps of Prefect (the other files' docstrings name theirs), and its command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from support.bench import HOOK_PROCESS_SECONDS, LIMIT_SECONDS, Bench, labels_are_sound
from support.flaky_proxy import FlakyProxy

if TYPE_CHECKING:
    from support.prefect_server import LocalPrefectServer

pytestmark = [pytest.mark.e2e, pytest.mark.processes]


@pytest.mark.parametrize("first, second", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)])
def test_a_second_signal_does_not_save_the_run_from_its_cancel(bench: Bench, first, second) -> None:
    """Trap 9: the second signal breaks off whatever the clean-up awaits; the cancel has been sent by then."""
    bolt = bench.bolt()
    bolt.add()
    bolt.simulator.update_schedule("daily", cancel_seconds=3.0)
    run = bench.start("run_schedule", bolt)
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    run.send(first)
    run.reach(lambda s: s.count("cancelBoltRun") >= 1)
    run.send(second)
    run.process_gone()
    run.bolt_at_rest()
    assert bolt.states() == ["CANCELED"], run.process.output


@pytest.mark.parametrize("flow", ["run_schedule", "sync_flow", "awaited_tasks"])
def test_a_signal_that_asyncio_swallows_is_heard_all_the_same(bench: Bench, flow: str) -> None:
    """SIGTERM in the midst of a transport's work: Prefect's exception for it is taken for a broken connection."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start(flow, bolt, program="call_swallowing.py")
    assert run.ended().state.name == "Crashed"
    run.bolt_at_rest()
    assert bolt.states() == ["CANCELED"], run.process.output


def test_the_command_line_cancels(bench: Bench) -> None:
    """`prefect flow-run cancel`, as a person types it."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start("run_schedule", bolt, via="worker")
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    run.cancel_by_command()
    assert run.ended().state.name == "Cancelled"
    run.bolt_at_rest()
    assert bolt.states() == ["CANCELED"]


def test_a_killed_process_has_its_bolt_run_ended_within_seconds(bench: Bench) -> None:
    """Trap 6: the hook finds the run although the labels that it is handed are stale; here with nothing beside it."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start("run_schedule", bolt, via="worker")
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    run.send(signal.SIGKILL)
    assert run.ended().state.name == "Crashed"
    late = run.bolt_at_rest(HOOK_PROCESS_SECONDS)
    assert bolt.states() == ["CANCELED"]
    # Ten seconds; more only where just to start such a process takes long.
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import paradime_flows.run_schedule"], check=True)
    assert late <= max(LIMIT_SECONDS, 2 * (time.monotonic() - began))


def test_an_interrupt_leaves_the_run_where_it_is_told_to(bench: Bench) -> None:
    """`on_interrupt="leave"` holds although Prefect calls the interrupt a crash, which would cancel."""
    bolt = bench.bolt()
    bolt.add()
    run = bench.start("run_schedule", bolt, on_interrupt="leave")
    run.reach(lambda s: s.count("boltRunStatus") >= 2)
    run.send(signal.SIGTERM)
    assert run.ended().state.name == "Crashed"
    assert bolt.states() == ["RUNNING"], run.process.output
    assert bolt.simulator.count("cancelBoltRun") == 0


def test_a_locked_prefect_database_costs_no_label(bench: Bench, prefect_server: LocalPrefectServer) -> None:
    """Trap 13: Prefect's server answers 503 when its SQLite database is locked; then nothing may be lost or doubled."""
    bolt = bench.bolt()
    bolt.add(seconds=1.0)
    with FlakyProxy(prefect_server.api_url, path_ends_with="/labels", times=3) as proxy:
        run = bench.start("run_schedule", bolt, env={"PREFECT_API_URL": proxy.url})
        assert run.ended().state.name == "Completed"
        assert proxy.refused == 3
    flow_run = run.flow_run
    assert bolt.states() == ["SUCCESS"]
    assert flow_run.labels["paradime.run_id"] == bolt.simulator.runs()[0].id
    ownership = json.loads(flow_run.labels["paradime.bolt.run"])
    assert ownership["closed"], ownership
    labels_are_sound(flow_run)
