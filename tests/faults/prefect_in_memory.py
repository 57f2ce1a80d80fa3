"""A Prefect in memory. What flow runs store in it survives a kill, and nothing else does."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID, uuid4

import prefect.client.orchestration
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun

from paradime_blocks.client.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate, LogCreate
    from prefect.client.schemas.filters import LogFilter
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
    """

    dead: bool = False
    body: str = field(default_factory=lambda: uuid4().hex)
    writes_left: int | None = None


process: ContextVar[Process] = ContextVar("process", default=Process())  # noqa: B039 - the one that lives on


def _die_if_dead() -> None:
    if process.get().dead:
        raise Killed


@dataclass
class PrefectInMemory:
    """The server and its client in one: flow runs by id, with labels, tags, states and artifacts.

    Attributes:
        late_by: The delays of the next writes, in seconds. They arrive even if the process that wrote dies:
            Prefect's client repeats a write after HTTP 503.
    """

    flow_runs: dict[UUID, FlowRun] = field(default_factory=dict)
    states: dict[UUID, list[State[Any]]] = field(default_factory=dict)
    calls: dict[UUID, UUID] = field(default_factory=dict)
    artifacts: dict[UUID, ArtifactCreate] = field(default_factory=dict)
    logs: list[LogCreate] = field(default_factory=list)
    late_by: list[float] = field(default_factory=list)
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
        await asyncio.sleep(2 * ONE_WAY_SECONDS)
        _die_if_dead()

    async def _write(self, land: Callable[[], None]) -> None:
        _die_if_dead()
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

    async def read_task_runs(self, *, flow_run_filter: Any, **_: Any) -> list[TaskRun]:
        await self._read()
        wanted = flow_run_filter.id.any_
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
        if flow_run_filter.parent_task_run_id is not None:
            calls = flow_run_filter.parent_task_run_id.any_
            return [each for each in self.flow_runs.values() if each.parent_task_run_id in calls]
        wanted = flow_run_filter.state.type.any_
        return [
            each for each in self.flow_runs.values() if each.state is not None and each.state.type in wanted
        ]

    async def update_flow_run_labels(self, flow_run_id: UUID, labels: dict[str, Any]) -> None:
        assert all(isinstance(value, str | int | float | bool) for value in labels.values())
        await self._write(lambda: self.flow_runs[flow_run_id].labels.update(labels))

    async def update_flow_run(self, flow_run_id: UUID, *, tags: list[str]) -> None:
        def land() -> None:
            self.flow_runs[flow_run_id].tags[:] = tags

        await self._write(land)

    async def set_flow_run_state(self, flow_run_id: UUID, state: State[Any], **_: Any) -> None:
        await self._write(lambda: self.set_state(flow_run_id, state.type, state.name) and None)

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

    async def update_artifact(self, artifact_id: UUID, artifact: ArtifactUpdate) -> None:
        def land() -> None:
            self.artifacts[artifact_id] = self.artifacts[artifact_id].model_copy(
                update={"data": artifact.data}
            )

        await self._write(land)


@contextmanager
def in_place_of_prefect(prefect_in_memory: PrefectInMemory, *, archive: bool = False) -> Iterator[None]:
    """Let the package's flows use it. A dead process can reach neither it nor Bolt.

    Args:
        prefect_in_memory: The server.
        archive: Whether logs and resources are archived; stories of triggers and kills do not need that.
    """
    import paradime_flows.hooks
    import paradime_flows.run_schedule
    import paradime_flows.supervision.heartbeat
    import paradime_flows.sweep_orphans

    post = Connection._post

    async def post_if_alive(self: Connection, *arguments: Any, **options: Any) -> Any:
        _die_if_dead()
        return await post(self, *arguments, **options)

    async def no_archive(_: Any) -> None:
        _die_if_dead()

    def current_execution() -> str:
        return process.get().body

    async def keep_alive(_: Any, flow_run: FlowRun, __: Any) -> None:
        """Write the first heartbeat only. The stories set how the sweeper judges later ones."""
        await paradime_flows.supervision.heartbeat.beat(prefect_in_memory, flow_run.id)  # type: ignore[arg-type]

    orchestration = prefect.client.orchestration
    with ExitStack() as stack:
        # The client that `get_client` returns, for every module that calls it.
        address = SimpleNamespace(value=lambda: "in memory")
        stack.enter_context(mock.patch.object(orchestration, "PREFECT_API_URL", address))
        client = mock.Mock(return_value=prefect_in_memory)
        stack.enter_context(mock.patch.object(orchestration, "PrefectClient", client))
        stack.enter_context(mock.patch.object(Connection, "_post", post_if_alive))
        holding = sys.modules["paradime_flows.ledger.store"]
        stack.enter_context(mock.patch.object(holding, "current_execution", current_execution))
        run_time = sys.modules["paradime_flows.supervision.time_left"]
        stack.enter_context(mock.patch.object(run_time, "current_execution", current_execution))
        for name in ("runner.begin", "run_pipeline"):
            if module := sys.modules.get(f"paradime_flows.{name}"):
                stack.enter_context(mock.patch.object(module, "keep_alive", keep_alive))
        if not archive:
            archive_module = sys.modules["paradime_flows.reporting.archive"]
            stack.enter_context(mock.patch.object(archive_module.Archive, "run", no_archive))
        yield
