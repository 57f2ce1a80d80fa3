"""A Prefect in memory. What flow runs store in it survives a kill, and nothing else does."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID, uuid4

import prefect.client.orchestration
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.states import Running
from prefect.utilities.annotations import quote

from paradime_blocks.client.connection import Connection
from paradime_flows.prefect_api.labels import LEASE_LABEL_PREFIX, LEDGER_LABEL_PREFIX
from paradime_flows.prefect_api.observer import Observer
from paradime_flows.prefect_api.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect import Task
    from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate, LogCreate
    from prefect.client.schemas.filters import ArtifactFilter, LogFilter
    from typing_extensions import Self

# From a request to the server, and back.
ONE_WAY_SECONDS = 0.005


class Killed(BaseException):
    """The process is dead: nothing that it still tries to do has an effect."""


@dataclass
class Process:
    """The process of a flow run's attempt.

    Attributes:
        dead: Whether it was killed.
        body: Identifies the attempt among those of its flow run.
        writes_left: The number of writes to Prefect before it is killed; None for no limit.
        supervisor: It holds the leases that this process has taken.
    """

    dead: bool = False
    body: str = field(default_factory=lambda: uuid4().hex)
    writes_left: int | None = None
    supervisor: Supervisor = field(default_factory=Supervisor)


process: ContextVar[Process] = ContextVar("process", default=Process())  # noqa: B039 - the one that lives on


def _die_if_dead() -> None:
    if process.get().dead:
        raise Killed


@dataclass(eq=False)
class PrefectInMemory:
    """The server and its client in one: flow runs by id, with labels, tags, states, task runs and artifacts.

    Attributes:
        late_by: The delays of the next writes, in seconds. They arrive even if the process that wrote dies:
            Prefect's client repeats a write after HTTP 503.
        requests: The methods of Prefect's client that were called, in order.
        writers: The process that has written each label of the ledger first.
        written_twice: The labels that another process has written, too. There must be none.
    """

    flow_runs: dict[UUID, FlowRun] = field(default_factory=dict)
    states: dict[UUID, list[State[Any]]] = field(default_factory=dict)
    calls: dict[UUID, UUID] = field(default_factory=dict)
    artifacts: dict[UUID, ArtifactCreate] = field(default_factory=dict)
    logs: list[LogCreate] = field(default_factory=list)
    task_runs: dict[UUID, TaskRun] = field(default_factory=dict)
    late_by: list[float] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    writers: dict[tuple[UUID, str], str] = field(default_factory=dict)
    written_twice: list[str] = field(default_factory=list)
    _landing: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stay open: other code has the same client."""

    @property
    def is_busy(self) -> bool:
        """Whether a write has not arrived yet."""
        return bool(self._landing)

    async def _read(self) -> None:
        _die_if_dead()
        self._count()
        await asyncio.sleep(2 * ONE_WAY_SECONDS)
        _die_if_dead()

    def _count(self) -> None:
        """Note the request: the name of the client's method."""
        self.requests.append(sys._getframe(2).f_code.co_name)

    async def _write(self, land: Callable[[], None]) -> None:
        _die_if_dead()
        self._count()
        seconds = self.late_by.pop(0) if self.late_by else ONE_WAY_SECONDS
        writer = process.get()

        async def arrive() -> None:
            await asyncio.sleep(seconds)
            land()
            if writer.writes_left is not None:
                writer.writes_left -= 1
                writer.dead = writer.dead or writer.writes_left <= 0

        # A request that was sent arrives, even if its sender is killed or cancelled.
        landing = asyncio.get_running_loop().create_task(arrive())
        self._landing.add(landing)
        landing.add_done_callback(self._landing.discard)
        await asyncio.shield(landing)
        _die_if_dead()
        await asyncio.sleep(ONE_WAY_SECONDS)
        _die_if_dead()

    def new_flow_run(self, *, parent: UUID | None = None) -> UUID:
        """Create a flow run. With a parent, it is a subflow, with a task run of the parent for it."""
        flow_run = FlowRun(id=uuid4(), flow_id=uuid4(), name="intent", labels={}, tags=[], run_count=0)
        if parent is not None:
            flow_run.parent_task_run_id = uuid4()
            self.calls[flow_run.parent_task_run_id] = parent
        self.flow_runs[flow_run.id] = flow_run
        self.states[flow_run.id] = []
        return flow_run.id

    def set_state(self, flow_run_id: UUID, kind: StateType, name: str | None = None) -> State[Any]:
        state: State[Any] = State(type=kind, name=name)
        flow_run = self.flow_runs[flow_run_id]
        counts = flow_run.run_count + (kind is StateType.RUNNING)
        self.flow_runs[flow_run_id] = flow_run.model_copy(update={"state": state, "run_count": counts})
        self.states[flow_run_id].append(state)
        return state

    # The methods of Prefect's client that the package uses

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        await self._read()
        return self.flow_runs[flow_run_id].model_copy(deep=True)

    async def read_task_run(self, task_run_id: UUID) -> TaskRun:
        await self._read()
        return self._task_run(task_run_id)

    async def read_task_runs(
        self, *, flow_run_filter: Any, task_run_filter: Any = None, **_: Any
    ) -> list[TaskRun]:
        await self._read()
        wanted = flow_run_filter.id.any_
        if task_run_filter is not None and task_run_filter.state is not None:
            types = task_run_filter.state.type.any_
            runs = self.task_runs.values()
            return [run for run in runs if run.flow_run_id in wanted and run.state_type in types]
        return [self._task_run(call) for call, parent in self.calls.items() if parent in wanted]

    def _task_run(self, task_run_id: UUID) -> TaskRun:
        flow_run_id = self.calls[task_run_id]
        return TaskRun(id=task_run_id, flow_run_id=flow_run_id, task_key="subflow", dynamic_key="0")

    async def read_flow_run_states(self, flow_run_id: UUID) -> list[State[Any]]:
        await self._read()
        return list(self.states[flow_run_id])

    async def read_flow_runs(
        self, *, offset: int = 0, flow_run_filter: Any = None, **_: Any
    ) -> list[FlowRun]:
        await self._read()
        if offset or flow_run_filter.parent_flow_run_id is not None:
            return []
        if flow_run_filter.id is not None:
            found = [self.flow_runs[each] for each in flow_run_filter.id.any_ if each in self.flow_runs]
            return [each.model_copy(deep=True) for each in found]
        if flow_run_filter.state is None:
            tags = set(flow_run_filter.tags.all_)
            return [each.model_copy(deep=True) for each in self.flow_runs.values() if tags <= {*each.tags}]
        wanted = flow_run_filter.state.type.any_
        return [
            each for each in self.flow_runs.values() if each.state is not None and each.state.type in wanted
        ]

    async def update_flow_run_labels(self, flow_run_id: UUID, labels: dict[str, Any]) -> None:
        assert all(isinstance(value, str | int | float | bool) for value in labels.values())
        for name in labels:
            if name.startswith((LEASE_LABEL_PREFIX, LEDGER_LABEL_PREFIX)):
                writer = self.writers.setdefault((flow_run_id, name), process.get().body)
                if writer != process.get().body:
                    self.written_twice.append(name)
        await self._write(lambda: self.flow_runs[flow_run_id].labels.update(labels))

    async def update_flow_run(self, flow_run_id: UUID, *, tags: list[str]) -> None:
        def land() -> None:
            self.flow_runs[flow_run_id].tags[:] = tags

        await self._write(land)

    async def set_flow_run_state(self, flow_run_id: UUID, state: State[Any], **_: Any) -> None:
        await self._write(lambda: self.set_state(flow_run_id, state.type, state.name) and None)

    async def set_task_run_state(self, task_run_id: UUID, state: State[Any], **_: Any) -> None:
        await self._write(lambda: self._move(self.task_runs[task_run_id], state))

    @staticmethod
    def _move(task_run: TaskRun, state: State[Any]) -> None:
        task_run.state, task_run.state_type, task_run.state_name = state, state.type, state.name

    async def run_task(self, task: Task[Any, Any], parameters: dict[str, Any], **_: Any) -> State[Any]:
        """Run a task whose function returns a state. Its states arrive while its process lives."""
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        given = {
            name: value.unwrap() if isinstance(value, quote) else value for name, value in parameters.items()
        }
        task_run = TaskRun(
            id=uuid4(),
            flow_run_id=context.flow_run.id,
            name=str(task.task_run_name).format(**given),
            task_key=task.task_key,
            dynamic_key=uuid4().hex,
            start_time=datetime.now(timezone.utc),
        )
        self._move(task_run, Running())
        if not process.get().dead:
            self.task_runs[task_run.id] = task_run
        with TaskRunContext.model_construct(task=task, task_run=task_run, parameters=parameters):
            state = await task.fn(**given)
        if not process.get().dead:
            self._move(task_run, state)
        return state

    async def create_logs(self, logs: list[LogCreate]) -> None:
        await self._write(lambda: self.logs.extend(logs))

    async def read_logs(self, log_filter: LogFilter, *, limit: int, **_: Any) -> list[LogCreate]:
        await self._read()
        wanted = log_filter.flow_run_id.any_ if log_filter.flow_run_id else []
        of_these = [log for log in self.logs if log.flow_run_id in (wanted or [])]
        return sorted(of_these, key=lambda log: log.timestamp, reverse=True)[:limit]

    async def create_artifact(self, artifact: ArtifactCreate) -> Any:
        artifact_id = uuid4()
        await self._write(lambda: self.artifacts.update({artifact_id: artifact}))
        return SimpleNamespace(id=artifact_id)

    async def read_artifacts(self, artifact_filter: ArtifactFilter, **_: Any) -> list[Any]:
        await self._read()
        assert artifact_filter.key is not None
        keys = artifact_filter.key.any_ or []
        return [
            SimpleNamespace(id=id_, description=each.description, data=each.data)
            for id_, each in reversed(self.artifacts.items())
            if each.key in keys
        ]

    async def update_artifact(self, artifact_id: UUID, artifact: ArtifactUpdate) -> None:
        def land() -> None:
            self.artifacts[artifact_id] = self.artifacts[artifact_id].model_copy(
                update={"data": artifact.data}
            )

        await self._write(land)


@contextmanager
def _observed_in_this_loop(supervisor_of_process: Callable[[], Supervisor]) -> Iterator[None]:
    """Let a process observe its flow runs in a task instead of a thread. The task ends with the process.

    There are no events in memory, so the flow runs are read every few seconds.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def observe(observer: Observer) -> None:
        with suppress(Killed):
            await observer._observe()

    def start(observer: Observer) -> None:
        tasks.add(task := asyncio.get_running_loop().create_task(observe(observer)))
        task.add_done_callback(tasks.discard)

    async def no_stream(_: Observer) -> None:
        await asyncio.sleep(float("inf"))

    # What these modules read once from Prefect, such as the parents, a new process does not know.
    of_process = (
        "prefect_api.observer",
        "prefect_api.flow_runs",
        "prefect_api.shared_reads",
        "ledger.retried_parents",
    )
    with (
        ExitStack() as stack,
        mock.patch.object(Observer, "_start", start),
        mock.patch.object(Observer, "_listen", no_stream),
    ):
        for name in of_process:
            module = sys.modules[f"paradime_flows.{name}"]
            stack.enter_context(mock.patch.object(module, "the_supervisor", supervisor_of_process))
        yield
    for task in tasks:
        if not task.get_loop().is_closed():
            task.cancel()


@contextmanager
def in_place_of_prefect(prefect_in_memory: PrefectInMemory, *, archive: bool = False) -> Iterator[None]:
    """Let the package's flows use it. A dead process can reach neither it nor Bolt.

    Args:
        prefect_in_memory: The server.
        archive: Whether logs and resources are archived; stories of triggers and kills do not need that.
    """

    import paradime_flows.hooks
    import paradime_flows.prefect_api.slots
    import paradime_flows.run_schedule
    import paradime_flows.sweep_orphans

    post = Connection._post

    async def post_if_alive(self: Connection, *arguments: Any, **options: Any) -> Any:
        _die_if_dead()
        return await post(self, *arguments, **options)

    async def no_archive(_: Any) -> None:
        _die_if_dead()

    def current_execution() -> str:
        return process.get().body

    def supervisor_of_process() -> Supervisor:
        return process.get().supervisor

    def keep_alive(_: Any) -> None:
        """Start no thread. The stories set how the sweeper judges later heartbeats."""

    orchestration = prefect.client.orchestration
    with ExitStack() as stack:
        # The client that `get_client` returns, for every module that calls it.
        address = SimpleNamespace(value=lambda: "in memory")
        stack.enter_context(mock.patch.object(orchestration, "PREFECT_API_URL", address))
        client = mock.Mock(return_value=prefect_in_memory)
        stack.enter_context(mock.patch("prefect.task_engine.run_task", prefect_in_memory.run_task))
        stack.enter_context(mock.patch.object(orchestration, "PrefectClient", client))
        clients = sys.modules["paradime_flows.prefect_api.client"]
        in_memory = mock.AsyncMock(return_value=prefect_in_memory)
        stack.enter_context(mock.patch.object(clients, "_client_of_this_loop", in_memory))
        stack.enter_context(mock.patch.object(Connection, "_post", post_if_alive))
        refused = mock.Mock(side_effect=RuntimeError("There are no slots in memory."))
        stack.enter_context(mock.patch.object(paradime_flows.prefect_api.slots, "_take", refused))
        holding = sys.modules["paradime_flows.ledger.store"]
        stack.enter_context(mock.patch.object(holding, "current_execution", current_execution))
        stack.enter_context(mock.patch.object(holding, "the_supervisor", supervisor_of_process))
        stack.enter_context(_observed_in_this_loop(supervisor_of_process))
        if module := sys.modules.get("paradime_flows.runner.begin"):
            stack.enter_context(mock.patch.object(module, "keep_alive", keep_alive))
        if not archive:
            archive_module = sys.modules["paradime_flows.reporting.archive"]
            stack.enter_context(mock.patch.object(archive_module.Archive, "run", no_archive))
        yield
    assert not prefect_in_memory.written_twice
