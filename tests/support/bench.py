"""Flow runs in their own processes, each with its own Bolt: start them, disturb them, and check them.

A flow run starts as a script, through `serve` or through a worker. All three look the same to a test.
Each has its own `BoltSimulator`, so that many can run at once and a fault hits the intended flow run.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.processes import ConditionNotMetError, Processes, wait_until

from paradime_blocks.testing import BoltSimulator, SimulatedCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from support.processes import TestProcess

PROGRAMS = Path(__file__).parent.parent / "processes" / "programs"
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(PROGRAMS), *filter(None, [os.environ.get("PYTHONPATH")])])}
SERVED = (
    "run_schedule",
    "retried",
    "awaited_tasks",
    "called_tasks",
    "submitted_async",
    "submitted_sync",
    "sync_flow",
    "mapped",
    "in_users_tasks",
    "in_threads",
    "subflows_in_tasks",
    "gathered",
    "parent",
    "triggered_then_busy",
)
SHARED_POOL = "bench"
# A Bolt run must end within this time after its flow run.
LIMIT_SECONDS = 10.0
# After a SIGKILL, a worker starts a process for the hook. It imports Prefect while everything else runs.
HOOK_PROCESS_SECONDS = 90.0
FOREVER = float("inf")


class Bench:
    """Starts flow runs. The shared worker and `serve` program start when they are first needed.

    Args:
        folder: For the output of the processes.
        env: The environment of a process that uses the Prefect server.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.processes = Processes(folder, {**env, **ENVIRONMENT})
        self._lock = threading.RLock()
        self._deployments: dict[tuple[str, str], uuid.UUID] = {}
        self._serve: TestProcess | None = None
        self._worker: TestProcess | None = None
        self.bolts: list[Bolt] = []

    def close(self) -> None:
        self.processes.stop_all()
        for bolt in self.bolts:
            bolt.simulator.stop()

    def bolt(self, **options: Any) -> Bolt:
        """A Bolt with a credentials block for it."""
        simulator = BoltSimulator(**options).start()
        bolt = Bolt(simulator, _save_credentials(simulator))
        self.bolts.append(bolt)
        return bolt

    def worker(self, pool: str, **options: Any) -> TestProcess:
        return self.processes.worker(pool, **options)

    def shared_pool(self) -> str:
        """The work pool of the shared worker. A test that stops or kills a worker starts its own."""
        with self._lock:
            if self._worker is None:
                self._worker = self.worker(SHARED_POOL)
        return SHARED_POOL

    def serve(self, deployment: str, *names: str) -> TestProcess:
        return self.processes.serve(PROGRAMS / "serve.py", deployment, *names)

    def start(
        self,
        flow: str,
        bolt: Bolt,
        *,
        via: str = "script",
        pool: str | None = None,
        deployment: str | None = None,
        env: Mapping[str, str] | None = None,
        program: str = "call.py",
        **parameters: Any,
    ) -> Launched:
        """Start a run of one of the flows in `process_flows`.

        Args:
            flow: Its name there.
            bolt: The Bolt to trigger; the schedule is `daily` unless the parameters name another.
            via: A script, the shared `serve` program or the shared worker.
            pool: The test's own work pool.
            deployment: A deployment served by the test's own `serve` program.
            env: Further environment variables for a script.
            program: The script that calls the flow.
            parameters: The flow's parameters.
        """
        parameters = {"schedule_name": "daily", **parameters}
        if flow in {"run_schedule", "retried"}:
            parameters.setdefault("poll_interval_seconds", 0.5)
        tag = f"case-{uuid.uuid4().hex[:12]}"
        if via == "script":
            environment = {**bolt.simulator.environment(), **(env or {})}
            process = self.processes.script(
                PROGRAMS / program, flow, tag, json.dumps(parameters), env=environment
            )
            return Launched(tag, bolt, process=process, bench=self)
        parameters.setdefault("credentials", bolt.credentials)
        deployment_id = self._deployment(flow, via, pool, deployment)
        with _client() as client:
            client.create_flow_run_from_deployment(deployment_id, parameters=parameters, tags=[tag])
        return Launched(tag, bolt, process=None, bench=self)

    def _deployment(self, flow: str, via: str, pool: str | None, deployment: str | None) -> uuid.UUID:
        with self._lock:
            if via == "worker":
                pool = pool or self.shared_pool()
                name = f"{pool}-{flow}"
                if (flow, name) not in self._deployments:
                    self._deployments[flow, name] = _deploy(flow, name, pool)
                return self._deployments[flow, name]
            if deployment is None:
                deployment = "served"
                if self._serve is None:
                    self._serve = self.serve(deployment, *SERVED)
            name = f"{deployment}-{flow}"
            if (flow, name) not in self._deployments:
                self._deployments[flow, name] = _find_deployment(name)
            return self._deployments[flow, name]


@dataclass(frozen=True)
class Bolt:
    """A simulated Bolt and the name of the block that holds its credentials."""

    simulator: BoltSimulator
    credentials: str

    def add(self, name: str = "daily", *, seconds: float = FOREVER, return_code: Any = 0) -> None:
        """Add a schedule of one command with this duration and this result."""
        command = SimulatedCommand("dbt run", duration_seconds=seconds, return_code=return_code)
        self.simulator.add_schedule(name, commands=[command], setup_commands=False)

    def states(self) -> list[str]:
        return [run.state for run in self.simulator.runs()]


@dataclass
class Launched:
    """A flow run that has been started."""

    tag: str
    bolt: Bolt
    process: TestProcess | None
    bench: Bench
    struck_at: float = field(default=0.0)

    def find(self) -> Any:
        """The flow run; None while there is none. Subflows have its tag too."""
        with _client() as client:
            from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

            found = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[self.tag]))
            )
        return next((run for run in found if run.parent_task_run_id is None), None)

    def family(self) -> list[Any]:
        """The flow run and its subflows."""
        with _client() as client:
            from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

            run = self.flow_run
            children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
            return [run, *client.read_flow_runs(flow_run_filter=children)]

    @property
    def flow_run(self) -> Any:
        """The flow run as it is now; wait until there is one."""

        def found_or_over() -> Any:
            return self.find() or (self.process is not None and not self.process.running)

        found = wait_until(found_or_over, f"the flow run tagged {self.tag}", every=0.5)
        if found is True:
            raise AssertionError(f"There was no flow run: {self.process and self.process.output}")
        return found

    def reach(self, condition: Callable[[BoltSimulator], object]) -> None:
        """Wait until Bolt shows it; if a script ends before that, report its output."""

        def reached_or_over() -> bool:
            over = self.process is not None and not self.process.running
            return bool(condition(self.bolt.simulator)) or over

        wait_until(reached_or_over, f"the flow run tagged {self.tag} to get as far as it should", every=0.05)
        if not condition(self.bolt.simulator):
            raise AssertionError(f"It ended before: {self.process and self.process.output}")

    def reach_state(self, name: str) -> None:
        wait_until(
            lambda: self.flow_run.state.name == name,
            f"state {name} of the flow run tagged {self.tag}",
            every=0.3,
        )

    @property
    def pids(self) -> list[int]:
        """The processes that run the flow, without those of its hooks."""
        if self.process is not None:
            return [self.process.pid] if self.process.running else []
        return flow_processes(self.flow_run.id)

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to the flow run's process."""
        self.struck_at = time.time()
        pids = wait_until(lambda: self.pids, "a process that runs the flow")
        for pid in pids:
            os.kill(pid, signum)

    def cancel(self) -> None:
        """Cancel as the UI's button and `prefect flow-run cancel` do."""
        from prefect.states import Cancelling

        self.struck_at = time.time()
        with _client() as client:
            client.set_flow_run_state(self.flow_run.id, Cancelling())

    def cancel_by_command(self) -> None:
        self.struck_at = time.time()
        command = self.bench.processes.prefect("flow-run", "cancel", str(self.flow_run.id))
        assert command.wait() == 0, command.output

    def retry(self) -> None:
        """Retry as `prefect flow-run retry` does for a run of a deployment, and wait until the retry has begun.

        After a crash, the worker reports the crash, runs the hooks, and reports the crash again. A retry before the
        second report would be reported as crashed, and a second retry would run at the same time as the first.
        So after a crash, this works for a flow run of a worker only.
        """
        from prefect.states import Scheduled

        before = self.flow_run
        if before.state.is_crashed():
            wait_until(
                lambda: self._executions() >= before.run_count,
                f"the worker's end of the flow run tagged {self.tag}",
                every=0.5,
            )
        with _client() as client:
            client.set_flow_run_state(before.id, Scheduled(message="Retried by a test"), force=True)
        wait_until(
            lambda: self.flow_run.run_count > before.run_count,
            f"the retry of the flow run tagged {self.tag}",
            every=0.3,
        )

    def _executions(self) -> int:
        """How many times a worker has executed the flow run and is done with it."""
        from prefect.events.filters import EventFilter, EventNameFilter, EventRelatedFilter

        wanted = EventFilter(
            event=EventNameFilter(name=["prefect.worker.executed-flow-run"]),
            related=EventRelatedFilter(id=[f"prefect.flow-run.{self.flow_run.id}"]),
        )
        with _client() as client:
            return len(client.read_events(wanted, limit=50).events)

    def suspend(self) -> None:
        """Suspend as the UI's button and the API do."""
        from prefect.flow_runs import suspend_flow_run

        suspend_flow_run(flow_run_id=self.flow_run.id, timeout=600)

    def resume(self) -> None:
        with _client() as client:
            client.resume_flow_run(self.flow_run.id)

    def ended(self) -> Any:
        """Wait until Prefect and the processes are done with the flow run; return it."""

        seen: Any = None

        def over() -> bool:
            nonlocal seen
            seen = self.find()
            return seen is not None and seen.state.is_final() and not self.pids

        try:
            wait_until(over, f"the end of the flow run tagged {self.tag}", within=90, every=0.3)
        except ConditionNotMetError as error:
            output = self.process.output if self.process else ""
            raise ConditionNotMetError(
                f"{error}; it is {seen and seen.state!r}; processes {self.pids}; {output}; {self.logs()}"
            ) from None
        return seen

    def process_gone(self) -> None:
        wait_until(lambda: not self.pids, "the end of the flow run's processes", every=0.2)

    def bolt_at_rest(self, within: float = LIMIT_SECONDS) -> float:
        """Check that no Bolt run is active soon after the flow run ended; return the delay of the last one."""
        ended = self.flow_run.end_time
        wait_until(
            lambda: not self.bolt.simulator.active_runs(),
            f"the end of the Bolt run; {self.flow_run.state!r}",
            within=within,
        )
        runs = self.bolt.simulator.runs()
        late = max(((run.ended_at - ended).total_seconds() for run in runs if ended), default=0.0)
        assert late <= within, f"a Bolt run ended {late:.1f} s after the flow run"
        return late

    def task_runs(self) -> list[Any]:
        """The task runs of the flow run, in the order in which they began."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        with _client() as client:
            found = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[self.flow_run.id]))
            )
        return sorted(found, key=lambda one: str(one.start_time))

    def logs(self) -> str:
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        ids = [run.id for run in self.family()]
        with _client() as client:
            found = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=ids)), limit=200)
        return "\n".join(log.message for log in found)


def case_of(case: Any, *, always: bool, sampled: bool) -> Any:
    """A case as a parameter: for every test run, for the longer one, or for the complete one."""
    marks = [] if always else [pytest.mark.full if sampled else pytest.mark.exhaustive]
    return pytest.param(case, id=str(case), marks=marks)


def flow_processes(flow_run_id: uuid.UUID) -> list[int]:
    """The processes that a runner or a worker started for a flow run, without those of its hooks."""
    wanted = f"PREFECT__FLOW_RUN_ID={flow_run_id}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended, or belongs to another user
            continue
        if b"hook" not in arguments and arguments != [b""]:
            found.append(int(folder.name))
    return found


def labels_are_sound(flow_run: Any) -> None:
    """Trap 10: a label that is not a scalar breaks Prefect's reads of the flow run."""
    for name, value in flow_run.labels.items():
        assert isinstance(value, (str, int, float, bool)), f"label {name} is {value!r}"


def _client() -> Any:
    from prefect.client.orchestration import get_client

    for _ in range(5):
        # httpx reads the environment, where pytest sets and deletes the name of the current test.
        with suppress(KeyError):
            return get_client(sync_client=True)
    return get_client(sync_client=True)


def _save_credentials(simulator: BoltSimulator) -> str:
    from support.credentials import credentials_for

    name = f"bolt-{uuid.uuid4().hex[:12]}"
    credentials_for(simulator).save(name)
    return name


def _deploy(flow: str, name: str, pool: str) -> uuid.UUID:
    """Deploy one of `process_flows` as prefect.yaml does: a flow of an importable module."""
    import sys

    from prefect.deployments.runner import RunnerDeployment

    if str(PROGRAMS) not in sys.path:
        sys.path.append(str(PROGRAMS))
    deployment = RunnerDeployment.from_entrypoint(f"process_flows.{flow}", name, work_pool_name=pool)
    deployment.entrypoint = f"process_flows.{flow}"
    return deployment.apply()


def _find_deployment(name: str) -> uuid.UUID:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    with _client() as client:
        wanted = DeploymentFilter(name=DeploymentFilterName(any_=[name]))
        return wait_until(lambda: client.read_deployments(deployment_filter=wanted), f"deployment {name}")[
            0
        ].id
