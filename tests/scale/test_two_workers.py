"""Two workers and a Prefect server on PostgreSQL share the work; one worker is killed, and one is stopped.

    make test-scale            # 60 flow runs of 20 schedules at once
    RUNS=12 SCHEDULES=4 make test-scale

It prints what the work has cost.
"""

from __future__ import annotations

import os
import resource
import signal
import statistics
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from support.processes import deploy, wait_until

from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_flows.ledger import read_records
from paradime_flows.run_schedule import run_schedule
from paradime_flows.sweep_orphans import sweep_orphans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from local_server import LocalPrefectServer
    from prefect.client.schemas.objects import FlowRun
    from support.processes import Processes

    from paradime_blocks import ParadimeCredentials

RUNS, SCHEDULES = int(os.environ.get("RUNS", "60")), int(os.environ.get("SCHEDULES", "20"))
# So many processes of a worker at once. The flow runs of one schedule wait for each other.
LIMIT = int(os.environ.get("LIMIT", "10"))
RUN_SECONDS = 10.0
# A lost flow run holds its schedule for a minute; a busy machine needs ten seconds to start a process.
MOST_SECONDS = 300.0 + 20.0 * RUNS
_OVER = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture
def bolt() -> Iterator[BoltSimulator]:
    with BoltSimulator() as simulator:
        for n in range(SCHEDULES):
            command = SimulatedCommand("dbt build", duration_seconds=RUN_SECONDS, resources={})
            simulator.add_schedule(f"schedule-{n}", commands=[command], setup_commands=False)
        yield simulator


@pytest.mark.exhaustive
@pytest.mark.timeout(MOST_SECONDS + 600)
def test_every_bolt_run_ends_where_it_should(
    prefect_server: LocalPrefectServer, processes: Processes, bolt: BoltSimulator, capsys: Any
) -> None:
    """No flow run has two Bolt runs, none is left, and the lost flow runs' Bolt runs are cancelled by the sweeper."""
    from support.credentials import credentials_for

    pool = f"scale-{uuid4().hex[:8]}"
    env = bolt.environment()
    workers = [_worker(processes, pool, env) for _ in range(2)]
    deployment_id = deploy(run_schedule, pool, work_pool=pool)
    began = time.monotonic()
    with get_client(sync_client=True) as client:
        ids = [
            client.create_flow_run_from_deployment(
                deployment_id, parameters={"schedule_name": f"schedule-{n % SCHEDULES}"}
            ).id
            for n in range(RUNS)
        ]
    _until(lambda: len(bolt.runs()) >= RUNS // 4, "a quarter of the Bolt runs")
    workers[0].kill()  # its flow runs go on without it
    _until(lambda: len(bolt.runs()) >= RUNS // 3, "a third of the Bolt runs")
    workers[1].send(signal.SIGTERM)  # it takes its flow runs with it
    workers[1].wait()
    _worker(processes, pool, env)
    _settle(ids, credentials_for(bolt))
    took = time.monotonic() - began
    flow_runs = _read(ids)
    lines = _cost(flow_runs, bolt, took)
    with capsys.disabled():
        print("", *lines, sep="\n")  # noqa: T201 - the figures are what one wants to know
    assert not bolt.active_runs()
    tracked = [record.run_id for one in flow_runs for record in read_records(one) if record.run_id]
    assert sorted(tracked) == sorted(run.id for run in bolt.runs()), "a Bolt run of nobody, or of two"
    completed = [one for one in flow_runs if one.state is not None and one.state.is_completed()]
    assert len(completed) >= RUNS - 2 * LIMIT, "more flow runs are lost than the two workers had claimed"
    for one in flow_runs:
        states = [bolt.run(record.run_id).state for record in read_records(one) if record.run_id]
        assert states == ["SUCCESS"] if one in completed else states in ([], ["CANCELED"], ["SUCCESS"]), (
            one,
            states,
        )


def _worker(processes: Processes, pool: str, env: dict[str, str]) -> Any:
    worker = processes.start(
        *(sys.executable, "-m", "prefect", "worker", "start"),
        *("--type", "process", "--pool", pool, "--limit", str(LIMIT)),
        name="worker",
        env=env,
    )
    worker.wait_for_output("started!")
    return worker


def _until(condition: Callable[[], object], what: str) -> None:
    wait_until(condition, what, within=MOST_SECONDS, every=0.5)


def _read(ids: list[UUID]) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=ids))
        return client.read_flow_runs(flow_run_filter=wanted, limit=200)


def _settle(ids: list[UUID], credentials: ParadimeCredentials) -> None:
    """Sweep, as the deployed sweeper does, until every flow run is over. A worker was lost with runs it had claimed."""
    swept_at = 0.0

    def over() -> bool:
        nonlocal swept_at
        states = Counter(str(one.state.type.value) for one in _read(ids) if one.state)
        if time.monotonic() - swept_at > 30:
            sweep_orphans(credentials, older_than_seconds=60)
            swept_at = time.monotonic()
        # A flow run that a lost worker had claimed, and that had not begun, stays as it is. It has no Bolt run.
        return "SCHEDULED" not in states and not any(_may_go_on(one) for one in _read(ids))

    wait_until(over, "the end of all flow runs", within=MOST_SECONDS, every=5)


def _may_go_on(flow_run: FlowRun) -> bool:
    """Whether a flow run has a record that the sweeper will end, or has begun so late that it may still write one."""
    if flow_run.state is None or flow_run.state.type.value in _OVER:
        return False
    young = time.time() - flow_run.state.timestamp.timestamp() < 120
    return young or bool(read_records(flow_run))


def _cost(flow_runs: list[FlowRun], bolt: BoltSimulator, took: float) -> list[str]:
    states = Counter(str(one.state.name) for one in flow_runs if one.state)
    lags = []
    for one in flow_runs:
        for record in read_records(one):
            run = bolt.run(record.run_id) if record.run_id else None
            if run is not None and run.ended_at and one.end_time and one.state and one.state.is_completed():
                lags.append((one.end_time - run.ended_at).total_seconds())
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    requests = Counter(name for request in bolt.requests for name in request.operations)
    lag = f"median {statistics.median(lags or [0]):.1f} s, longest {max(lags, default=0):.1f} s"
    return [
        f"{len(flow_runs)} flow runs of {SCHEDULES} schedules took {took:.0f} s: {dict(states)}",
        f"Bolt runs: {dict(Counter(run.state for run in bolt.runs()))}",
        f"requests to Bolt: {sum(requests.values())}, {dict(requests.most_common(4))}",
        f"from the end in Bolt to the end in Prefect: {lag}",
        f"processor time of the processes that have ended: {spent.ru_utime + spent.ru_stime:.0f} s",
    ]
