"""Live logs of a flow run that is killed with SIGKILL and retried in another process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.bench import PROGRAMS, Bench, Launched
from support.processes import wait_until

from paradime_blocks.testing import SimulatedCommand

if TYPE_CHECKING:
    from support.bench import Bolt

pytestmark = pytest.mark.full

# Python imports a module of this name when it starts: the process kills itself once, at its second post of output.
KILLS_ITSELF = """
import os, signal
from pathlib import Path
from prefect.client.orchestration import PrefectClient

done, when, posts = Path(os.environ["KILL_DONE"]), os.environ["KILL_WHEN"], []
post = PrefectClient.create_logs

def kill_if(now):
    if now == when and len(posts) == 2 and not done.exists():
        done.touch()
        os.kill(os.getpid(), signal.SIGKILL)

async def create_logs(self, logs):
    logs = list(logs)
    ours = any("line " in getattr(log, "message", "") for log in logs)
    posts.extend([1] * ours)
    kill_if("before the post" if ours else "")
    await post(self, logs)
    kill_if("after the post" if ours else "")

PrefectClient.create_logs = create_logs
"""


def lines_of(run: Launched) -> list[str]:
    """The command's lines in the flow run's log, in the order of the records."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.flow_run.id]))
    with get_client(sync_client=True) as client:
        found = sorted(client.read_logs(wanted, limit=200), key=lambda log: log.timestamp)
    lines = [line for log in found for line in log.message.split("\n")]
    return [line for line in lines if line.startswith("line ")]


def start(bench: Bench, bolt: Bolt, folder: Path, when: str) -> Launched:
    """Start a flow run through the worker; its first process kills itself."""
    from prefect.client.orchestration import get_client

    (folder / "sitecustomize.py").write_text(KILLS_ITSELF)
    env = {
        "PYTHONPATH": os.pathsep.join([str(folder), str(PROGRAMS)]),
        "KILL_DONE": str(folder / "killed"),
        "KILL_WHEN": when,
    }
    # The slot of a killed flow run is released only a minute later (`paradime_flows.runner.slot`).
    parameters = {"on_crash": "leave", "one_at_a_time": False}
    parameters |= {"schedule_name": "daily", "credentials": bolt.credentials, "poll_interval_seconds": 0.5}
    deployment_id = bench._deployment("run_schedule", "worker", None, None)
    tag = f"kill-{bolt.credentials}"
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(
            deployment_id, parameters=parameters, tags=[tag], job_variables={"env": env}
        )
    return Launched(tag, bolt, process=None, bench=bench)


@pytest.mark.parametrize(
    "lacking,when",
    [
        pytest.param((), "after the post", id="cursors-after the post"),
        pytest.param(
            ("boltCommandLogs",),
            "before the post",
            id="whole-output-before the post",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param((), "before the post", id="cursors-before the post", marks=pytest.mark.exhaustive),
        pytest.param(
            ("boltCommandLogs",),
            "after the post",
            id="whole-output-after the post",
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_a_process_killed_around_a_post_loses_and_repeats_no_line(
    bench: Bench, tmp_path: Path, lacking: tuple[str, ...], when: str
) -> None:
    """SIGKILL comes between announcement and post, or between post and label; then a new process starts."""
    bolt = bench.bolt()
    bolt.simulator.lacks(operations=lacking)
    stdout = "".join(f"line {n}\n" for n in range(3000))
    command = SimulatedCommand("dbt run", duration_seconds=30, stdout=stdout)
    bolt.simulator.add_schedule("daily", commands=[command], setup_commands=False)
    run = start(bench, bolt, tmp_path, when)
    assert run.ended().state.name == "Crashed"
    assert (tmp_path / "killed").exists()
    before = wait_until(lambda: lines_of(run), "the first lines in the flow run's log", every=0.2)
    assert before == stdout.splitlines()[: len(before)]
    bolt.simulator.clock.speed = 5
    run.retry()
    run.reach_state("Completed")
    assert lines_of(run) == stdout.splitlines()
    assert len(bolt.simulator.runs()) == 1
