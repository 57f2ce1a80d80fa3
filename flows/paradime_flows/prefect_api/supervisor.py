"""Stores the data about flow runs that only the process that executes them needs. Other data is stored in Prefect.

The data of a flow run is deleted after its execution in this process has ended and its hooks had time to finish. The
execution has ended when no task and no thread has Prefect's context of the flow run any more. The leases stay: they
show that an execution has lost its flow run to another process, so it cannot claim it again.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from prefect.context import FlowRunContext

from paradime_flows.time_limits import times

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import TaskRun

    from paradime_blocks import ParadimeCredentials
    from paradime_flows.prefect_api.client import OpenClient
    from paradime_flows.prefect_api.observer import Observer
    from paradime_flows.prefect_api.shared_reads import SharedReads


@dataclass
class Supervised:
    """The data that this process keeps about one flow run.

    Attributes:
        executions: The token of each execution. The key is the time at which that execution began in this process.
        signals_since: From when on signals count for each execution, on the monotonic clock. The key is the execution's
            token.
        credentials: The credentials that were passed in code. The key is the endpoint and the workspace of the
            credentials. The credentials of a saved block are not kept here, because the block can be loaded again.
        claimed: The key of each intent that resumed an intent of an earlier attempt, and the tasks that called the new
            intent. The dictionary key is the key of the earlier intent and the token of the execution. So two tasks
            with the same request resume two different Bolt runs.
        taken_over: The key of each intent that took over an intent of another flow run. The dictionary key is the id
            of the other flow run and the key of the other intent.
        cancel_seen: Whether this process has already seen a cancel of the flow run while an operation was under way.
        alive_for: The id of the flow run's outermost parent while this process sends heartbeats, or else None.
            If the flow run has no parent, this is the id of the flow run itself.
        parents: The ids of the parents, from the flow run upwards; None until they were read.
        calls: The task runs that represent the flow run and its parents in their callers, from the flow run upwards.
            The outermost parent has no caller, and so no task run.
        call_numbers: The numbers of each call that tasks of the flow run have made (`Supervisor.number_call`). The key
            is the flow run that was called.
        call_groups: The members that were counted so far, each with its number. The key is the surroundings in which
            the members were counted.
    """

    executions: dict[datetime, str] = field(default_factory=dict)
    signals_since: dict[str, float] = field(default_factory=dict)
    credentials: dict[tuple[str, str | None], ParadimeCredentials] = field(default_factory=dict)
    claimed: dict[tuple[str, str], tuple[str, Any]] = field(default_factory=dict)
    taken_over: dict[tuple[UUID, str], str] = field(default_factory=dict)
    cancel_seen: bool = False
    alive_for: UUID | None = None
    parents: list[UUID] | None = None
    calls: list[TaskRun] = field(default_factory=list)
    call_numbers: dict[UUID, tuple[int, ...]] = field(default_factory=dict)
    call_groups: dict[Hashable, dict[Hashable, int]] = field(default_factory=dict)
    _contexts: list[weakref.ref[FlowRunContext]] = field(default_factory=list)
    _over_since: float | None = None

    def note_context(self, context: FlowRunContext) -> None:
        """Remember that a context of the flow run uses this data."""
        self._contexts = [each for each in self._contexts if each() is not None]
        if not any(each() is context for each in self._contexts):
            self._contexts.append(weakref.ref(context))

    def has_ended(self) -> bool:
        """Whether the flow run's execution in this process has ended and its hooks had time to finish."""
        if self.alive_for is not None or any(each() is not None for each in self._contexts):
            self._over_since = None
            return False
        if self._over_since is None:
            self._over_since = time.monotonic()
        return time.monotonic() - self._over_since >= times().hooks_seconds


class Supervisor:
    """Keeps the data of all flow runs that this process executes.

    Attributes:
        leases: The leases that this process's executions have taken. The key is the flow run.
        settler: The name of this process when it cleans up a flow run that it does not execute.
        clients: The Prefect client of each event loop, for each address of Prefect.
        reads: The reads of flow runs that each Prefect client shares.
        observer: Observes the flow runs of this process; None until it is needed.
    """

    def __init__(self) -> None:
        self.leases: dict[UUID, set[Any]] = {}
        self.settler = uuid4().hex
        self.clients: dict[tuple[asyncio.AbstractEventLoop, str | None], OpenClient] = {}
        self.reads: weakref.WeakKeyDictionary[PrefectClient, SharedReads] = weakref.WeakKeyDictionary()
        self.observer: Observer | None = None
        self._flow_runs: dict[UUID | None, Supervised] = {None: Supervised()}
        self._lock = threading.RLock()

    def of(self, flow_run_id: UUID | None) -> Supervised:
        """Return the data of a flow run. The caller may change the data.

        The id None stands for code outside of flow runs.
        """
        context = FlowRunContext.get()
        with self._lock:
            if flow_run_id not in self._flow_runs:
                self._forget_what_has_ended()
                self._flow_runs[flow_run_id] = Supervised()
            found = self._flow_runs[flow_run_id]
            if context is not None and context.flow_run is not None and context.flow_run.id == flow_run_id:
                found.note_context(context)
            return found

    def all(self) -> list[Supervised]:
        """Return the data of all flow runs of this process."""
        with self._lock:
            return list(self._flow_runs.values())

    def _forget_what_has_ended(self) -> None:
        ended = [each for each, known in self._flow_runs.items() if each is not None and known.has_ended()]
        for flow_run_id in ended:
            del self._flow_runs[flow_run_id]

    def take_over(self, left: tuple[UUID, str], flow_run_id: UUID, key: str) -> bool:
        """Reserve an old intent for one new intent. In this process, only one new intent may take over an old intent.

        Args:
            left: The id of the old intent's flow run, and the key of the old intent.
            flow_run_id: The id of the new intent's flow run.
            key: The key of the new intent.

        Returns:
            Whether the new intent may take over the old intent. False if another intent has already taken over the old
            intent.
        """
        with self._lock:
            known = self.of(flow_run_id)
            if any(left in each.taken_over for each in self.all() if each is not known):
                return False
            return known.taken_over.setdefault(left, key) == key

    def number_call(
        self, flow_run_id: UUID, called: UUID, levels: Sequence[tuple[Hashable, Hashable]]
    ) -> tuple[int, ...]:
        """Return the number of a task's call among equal calls, and of each task around the call among equal tasks.

        Args:
            flow_run_id: The flow run of the tasks.
            called: The flow run that was called.
            levels: For each number, the surroundings in which to count, and the member to count. The order is from the
                outside to the inside.
        """
        with self._lock:
            known = self.of(flow_run_id)
            if called not in known.call_numbers:
                groups = [(known.call_groups.setdefault(around, {}), member) for around, member in levels]
                known.call_numbers[called] = tuple(
                    group.setdefault(member, len(group)) for group, member in groups
                )
            return known.call_numbers[called]

    def end(self) -> None:
        """Stop observing all flow runs."""
        if self.observer is not None:
            self.observer.end()


_supervisor = Supervisor()


def the_supervisor() -> Supervisor:
    """Return the supervisor of this process."""
    return _supervisor


def start_new_supervisor() -> None:
    """Replace the supervisor by a new one without data, so that a test does not see other tests' flow runs."""
    global _supervisor
    _supervisor.end()
    # The clients belong to their event loops.
    clients, _supervisor = _supervisor.clients, Supervisor()
    _supervisor.clients = clients
