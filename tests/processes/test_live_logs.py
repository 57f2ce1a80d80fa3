"""Live logs of a flow run whose process is killed outright, and which is retried in another process."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from support.processes import wait_until

from paradime_blocks.testing import SimulatedCommand

if TYPE_CHECKING:
    from support.bench import Bench, Launched

pytestmark = [pytest.mark.e2e, pytest.mark.processes]


def lines_of(run: Launched) -> list[str]:
    """The command's lines in the flow run's log, in the order of the records."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.flow_run.id]))
    with get_client(sync_client=True) as client:
        found = sorted(client.read_logs(wanted, limit=200), key=lambda log: log.timestamp)
    lines = [line for log in found for line in log.message.split("\n")]
    return [line for line in lines if line.startswith("line ")]


def test_a_killed_process_loses_no_line_and_repeats_one_batch_at_most(bench: Bench) -> None:
    """SIGKILL in the middle, then a retry in a new process: all lines are there, in order."""
    bolt = bench.bolt()
    stdout = "".join(f"line {n}\n" for n in range(3000))
    command = SimulatedCommand("dbt run", duration_seconds=30, stdout=stdout)
    bolt.simulator.add_schedule("daily", commands=[command], setup_commands=False)
    run = bench.start("run_schedule", bolt, via="worker", on_crash="leave")
    wait_until(lambda: len(lines_of(run)) > 300, "the first lines in the flow run's log", every=0.2)
    run.send(signal.SIGKILL)
    assert run.ended().state.name == "Crashed"
    before = lines_of(run)
    assert before == stdout.splitlines()[: len(before)]
    run.retry()
    run.reach_state("Completed")
    after = lines_of(run)
    repeated = len(after) - 3000
    # One look's worth, if the process died between the post and the label.
    assert 0 <= repeated <= 200
    assert list(dict.fromkeys(after)) == stdout.splitlines()
    assert len(bolt.simulator.runs()) == 1
