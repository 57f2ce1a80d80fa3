"""Stores what only this process knows about the flow runs that it executes; everything else is in Prefect.

The data of a flow run is deleted when its execution here has ended: no code can use it any more (Prefect's context of
it is gone, also in tasks and threads that run longer), and its hooks had time to finish. The tokens of executions stay,
because an execution that lost its flow run to another process must not take it back.
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

from paradime_flows.prefect_api.timing import times

if TYPE_CHECKING:
    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.signals import SignalCount


@dataclass
class Supervised:
    """What this process knows about one flow run.

    Attributes:
        executions: The token of each execution, by the time when it began here.
        signals: The signals of each execution, by its token.
        credentials: Credentials that were passed in code, by endpoint and workspace; blocks can be loaded again.
        claimed: The intents that resumed the intent of an earlier attempt, by that intent's key and the execution's
            token, and which tasks called them. Two tasks with the same request each resume a run of their own.
        taken_over: The same for intents of other flow runs, by flow run and key.
        began: When the time of a Bolt run began to count, by the monotonic clock; by execution, endpoint and run.
        cancel_seen: Whether its cancel was seen once, while an operation was under way.
        alive_for: The outermost flow run above it, while a thread sends heartbeats for it.
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
        """Note one more context that uses this data."""
        self._contexts = [each for each in self._contexts if each() is not None]
        if not any(each() is context for each in self._contexts):
            self._contexts.append(weakref.ref(context))

    def has_ended(self) -> bool:
        """Whether its execution here has ended, and its hooks had time to finish."""
        if self.alive_for is not None or any(each() is not None for each in self._contexts):
            self._over_since = None
            return False
        if self._over_since is None:
            self._over_since = time.monotonic()
        return time.monotonic() - self._over_since >= times().hooks_seconds

    def end(self) -> None:
        """Stop counting signals for it."""
        for count in self.signals.values():
            count.end()


class Supervisor:
    """The supervisor of a process.

    Attributes:
        tokens: The tokens of this process's executions that were written to Prefect, by flow run.
    """

    def __init__(self) -> None:
        self.tokens: dict[UUID, set[str]] = {}
        self._flow_runs: dict[UUID | None, Supervised] = {None: Supervised()}
        self._lock = threading.RLock()

    def of(self, flow_run_id: UUID | None) -> Supervised:
        """Return the data of a flow run, which the caller may change; None stands for code outside of flow runs."""
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
        """Note that an intent takes over another one. Only one intent in this process may do so.

        Args:
            left: The flow run and key of the intent that is taken over.
            flow_run_id: The flow run that takes it over.
            key: The key of its intent.

        Returns:
            Whether no other intent has taken it over.
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
    """Start with a new supervisor, as a new process does. For tests, so that none sees another's flow runs."""
    global _supervisor  # noqa: PLW0603 - there is one in a process
    _supervisor.end()
    _supervisor = Supervisor()
