"""Stores what only this process knows about the flow runs that it executes. Everything else is stored in Prefect.

The data of a flow run is deleted after its execution in this process has ended and its hooks had time to finish. The
execution has ended when no task and no thread has Prefect's context of the flow run any more. The tokens stay: they
show that an execution has lost its flow run to another process, so it cannot claim it again.
"""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.context import FlowRunContext

from paradime_flows.time_limits import times

if TYPE_CHECKING:
    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.signals import SignalCount


@dataclass
class Supervised:
    """What this process knows about one flow run.

    Attributes:
        executions: The token of each execution. The key is the time at which that execution began in this process.
        signals: The signals of each execution. The key is the execution's token.
        credentials: Credentials that were passed in code. The key is their endpoint and workspace. Saved credentials
            are not here, because their block can be loaded again.
        claimed: The intents that resumed an intent of an earlier attempt, each with the tasks that called it. The key
            is the key of the earlier intent and the token of the execution. So two tasks with the same request each
            resume a Bolt run of their own.
        taken_over: The intents that took over an intent of another flow run. The key is that other flow run and the
            key of its intent.
        began: The time of the monotonic clock from which the time limit of a Bolt run counts. The key is the
            execution, the endpoint and the Bolt run.
        cancel_seen: Whether a cancel of the flow run was seen once, while an operation was under way.
        alive_for: While a thread sends heartbeats for the flow run: its outermost parent, or the flow run itself if it
            has no parent.
    """

    executions: dict[datetime, str] = field(default_factory=dict)
    signals: dict[str, SignalCount] = field(default_factory=dict)
    credentials: dict[tuple[str, str | None], ParadimeCredentials] = field(default_factory=dict)
    claimed: dict[tuple[str, str], tuple[str, Any]] = field(default_factory=dict)
    taken_over: dict[tuple[UUID, str], str] = field(default_factory=dict)
    began: dict[tuple[str, str, int], float] = field(default_factory=dict)
    cancel_seen: bool = False
    alive_for: UUID | None = None
    _contexts: list[weakref.ref[FlowRunContext]] = field(default_factory=list)
    _over_since: float | None = None

    def note_context(self, context: FlowRunContext) -> None:
        """Note that a context uses this data."""
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

    def end(self) -> None:
        """Stop counting signals for the flow run."""
        for count in self.signals.values():
            count.end()


class Supervisor:
    """The supervisor of a process.

    Attributes:
        tokens: The tokens of this process's executions that were written to Prefect. The key is the flow run.
    """

    def __init__(self) -> None:
        self.tokens: dict[UUID, set[str]] = {}
        self._flow_runs: dict[UUID | None, Supervised] = {None: Supervised()}
        self._lock = threading.RLock()

    def of(self, flow_run_id: UUID | None) -> Supervised:
        """Return the data of a flow run. The caller may change the data. None stands for code outside of flow runs."""
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
        """Return the data of all flow runs."""
        with self._lock:
            return list(self._flow_runs.values())

    def _forget_what_has_ended(self) -> None:
        ended = [each for each, known in self._flow_runs.items() if each is not None and known.has_ended()]
        for flow_run_id in ended:
            self._flow_runs.pop(flow_run_id).end()

    def take_over(self, left: tuple[UUID, str], flow_run_id: UUID, key: str) -> bool:
        """Note that an intent takes over an old intent. In this process, only one intent may take over an old intent.

        Args:
            left: The flow run and the key of the old intent.
            flow_run_id: The flow run that takes over the old intent.
            key: The key of the new intent.

        Returns:
            Whether the new intent may take over the old one: true if no other intent has done so.
        """
        with self._lock:
            known = self.of(flow_run_id)
            if any(left in each.taken_over for each in self.all() if each is not known):
                return False
            return known.taken_over.setdefault(left, key) == key

    def end(self) -> None:
        """Stop counting signals."""
        for known in self.all():
            known.end()


_supervisor = Supervisor()


def the_supervisor() -> Supervisor:
    """Return the supervisor of this process."""
    return _supervisor


def start_new_supervisor() -> None:
    """Start with a new supervisor, as a new process does. Tests call this, so that no test sees other flow runs."""
    global _supervisor  # noqa: PLW0603 - there is one in a process
    _supervisor.end()
    _supervisor = Supervisor()
