"""Stores the data about flow runs that only the process that executes them needs. Other data is stored in Prefect.

The data of the flow runs that were used last is kept. Each heartbeat and each read uses the data of its flow run. The
leases stay: they show that an execution has lost its flow run to another process, so it cannot claim it again.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import TaskRun

    from paradime_blocks import ParadimeCredentials
    from paradime_flows.prefect_api.client import OpenClient
    from paradime_flows.prefect_api.observer import Observer
    from paradime_flows.prefect_api.shared_reads import SharedReads

FLOW_RUNS_KEPT: Final = 1000


@dataclass
class Supervised:
    """The data that this process keeps about one flow run."""

    # The token of each execution. The key is the time at which that execution began in this process.
    executions: dict[datetime, str] = field(default_factory=dict)
    # From when on signals count for each execution, on the monotonic clock. The key is the execution's token.
    signals_since: dict[str, float] = field(default_factory=dict)
    # The credentials that were passed in code. The key is their endpoint and workspace. The credentials of a saved
    # block are not kept here, because the block can be loaded again.
    credentials: dict[tuple[str, str | None], ParadimeCredentials] = field(default_factory=dict)
    # Who resumes each intent of the flow run: the key of the new intent, and the attempts in which it was made. So two
    # tasks with the same request resume two different Bolt runs.
    claimed: dict[str, tuple[str, str]] = field(default_factory=dict)
    # Whether this process sends heartbeats for the flow run.
    is_alive: bool = False
    # The parents, from the flow run upwards; None until they were read. `calls` are the task runs that represent the
    # flow run and its parents in their callers. The outermost parent has no caller, and so no task run.
    parents: list[UUID] | None = None
    calls: list[TaskRun] = field(default_factory=list)
    # The attempts in which the flow run was called (`paradime_flows.ledger.retried_parents`).
    attempts: str = ""


class Supervisor:
    """Keeps the data of all flow runs that this process executes."""

    def __init__(self) -> None:
        # The lease that the newest of this process's executions has taken on each flow run.
        self.leases: dict[UUID, Any] = {}
        # The name of this process when it cleans up a flow run that it does not execute.
        self.settler = uuid4().hex
        # The Prefect client of each event loop, for each address of Prefect, and the reads that each client shares.
        self.clients: dict[tuple[asyncio.AbstractEventLoop, str | None], OpenClient] = {}
        self.reads: weakref.WeakKeyDictionary[PrefectClient, SharedReads] = weakref.WeakKeyDictionary()
        self.observer: Observer | None = None
        self._flow_runs: dict[UUID | None, Supervised] = {}
        self._lock = threading.Lock()

    def of(self, flow_run_id: UUID | None) -> Supervised:
        """Return the data of a flow run, which the caller may change. None stands for code outside of flow runs."""
        with self._lock:
            # The dictionary is ordered: the flow run that was used last is at its end.
            found = self._flow_runs[flow_run_id] = self._flow_runs.pop(flow_run_id, Supervised())
            if len(self._flow_runs) > FLOW_RUNS_KEPT:
                # A flow run that this process still executes is kept.
                for each, known in self._flow_runs.items():
                    if not known.is_alive and known is not found:
                        del self._flow_runs[each]
                        break
            return found

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
