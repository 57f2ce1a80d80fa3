"""A Prefect that is a dictionary: what flow runs carry survives in it, and nothing else survives a kill."""

from __future__ import annotations

import sys
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun

from paradime_blocks.connection import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class Killed(BaseException):
    """The process is dead: nothing that it still tries to do happens."""


@dataclass
class Process:
    """What a flow run's body runs in."""

    dead: bool = False
    body: str = field(default_factory=lambda: uuid4().hex)


process: ContextVar[Process] = ContextVar("process", default=Process())  # noqa: B039 - the one that lives on


def _die_if_dead() -> None:
    if process.get().dead:
        raise Killed


@dataclass
class PrefectInMemory:
    """The server: flow runs by id, with labels, tags and states."""

    flow_runs: dict[UUID, FlowRun] = field(default_factory=dict)
    states: dict[UUID, list[State[Any]]] = field(default_factory=dict)

    calls: dict[UUID, UUID] = field(default_factory=dict)

    def new_flow_run(self, *, parent: UUID | None = None) -> UUID:
        """Make a flow run; with a parent, the subflow that a task of the parent's stands for."""
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

    # What the package asks of Prefect's client

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        _die_if_dead()
        return self.flow_runs[flow_run_id].model_copy(deep=True)

    async def read_task_run(self, task_run_id: UUID) -> TaskRun:
        _die_if_dead()
        flow_run_id = self.calls[task_run_id]
        return TaskRun(id=task_run_id, flow_run_id=flow_run_id, task_key="subflow", dynamic_key="0")

    async def read_task_runs(self, *, flow_run_filter: Any, **_: Any) -> list[TaskRun]:
        wanted = flow_run_filter.id.any_
        return [await self.read_task_run(call) for call, parent in self.calls.items() if parent in wanted]

    async def read_flow_run_states(self, flow_run_id: UUID) -> list[State[Any]]:
        _die_if_dead()
        return list(self.states[flow_run_id])

    async def read_flow_runs(
        self, *, offset: int = 0, flow_run_filter: Any = None, **_: Any
    ) -> list[FlowRun]:
        _die_if_dead()
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
        _die_if_dead()
        assert all(isinstance(value, str | int | float | bool) for value in labels.values())
        self.flow_runs[flow_run_id].labels.update(labels)

    async def update_flow_run(self, flow_run_id: UUID, *, tags: list[str]) -> None:
        _die_if_dead()
        self.flow_runs[flow_run_id].tags[:] = tags

    async def set_flow_run_state(self, flow_run_id: UUID, state: State[Any], **_: Any) -> None:
        _die_if_dead()
        self.set_state(flow_run_id, state.type, state.name)

    async def create_artifact(self, *_: Any, **__: Any) -> Any:
        _die_if_dead()
        return mock.Mock(id=uuid4())

    async def update_artifact(self, *_: Any, **__: Any) -> None:
        _die_if_dead()


@contextmanager
def in_place_of_prefect(prefect: PrefectInMemory) -> Iterator[None]:
    """Let the package's flows talk to it, and let a dead process reach neither it nor Bolt."""
    import paradime_flows.hooks
    import paradime_flows.liveness
    import paradime_flows.run_schedule
    import paradime_flows.sweep_orphans

    @asynccontextmanager
    async def get_client(*_: Any, **__: Any) -> AsyncIterator[PrefectInMemory]:
        yield prefect

    post = Connection._post

    async def post_if_alive(self: Connection, *arguments: Any, **options: Any) -> Any:
        _die_if_dead()
        return await post(self, *arguments, **options)

    async def no_archive(_: Any) -> None:
        _die_if_dead()

    def current_body() -> str:
        return process.get().body

    async def keep_alive(_: Any, flow_run: FlowRun, __: Any) -> None:
        """The first sign of life; what later ones are good for, the sweeper's judgement, the stories replace."""
        await paradime_flows.liveness.beat(prefect, flow_run.id)  # type: ignore[arg-type]

    ours = [module for name, module in sys.modules.items() if name.startswith("paradime_flows.")]
    with ExitStack() as stack:
        for module in ours:
            if hasattr(module, "get_client"):
                stack.enter_context(mock.patch.object(module, "get_client", get_client))
        stack.enter_context(mock.patch.object(Connection, "_post", post_if_alive))
        holding = sys.modules["paradime_flows.holding"]
        stack.enter_context(mock.patch.object(holding, "current_body", current_body))
        run_time = sys.modules["paradime_flows.run_time"]
        stack.enter_context(mock.patch.object(run_time, "current_body", current_body))
        for name in ("lifecycle", "run_pipeline"):
            if module := sys.modules.get(f"paradime_flows.{name}"):
                stack.enter_context(mock.patch.object(module, "keep_alive", keep_alive))
        stack.enter_context(
            mock.patch.object(sys.modules["paradime_flows.archive"].Archive, "run", no_archive)
        )
        yield
