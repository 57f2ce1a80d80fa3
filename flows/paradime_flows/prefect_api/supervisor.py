"""What this process alone knows of the flow runs that it executes, with a beginning and an end.

All else stands in Prefect. What is known of a flow run goes when its execution here has ended: when nobody can ask
for it any more (Prefect's context of it is gone, also in tasks and threads that outlive the body) and its hooks have
had their time. The tokens of executions stay: who has lost a flow run to another process must not take it back.
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
    """What this process knows of one flow run.

    Attributes:
        executions: The token of each execution, by when it began here.
        signals: What each execution has heard of signals, by its token.
        credentials: Credentials that were given in code, by endpoint and workspace; blocks can be loaded anew.
        claimed: Which intent has resumed what an earlier attempt left, by that one's key and the execution's token;
            and what was called by which tasks. Of two tasks that ask for the same, each resumes a run of its own.
        taken_over: The same of what other flow runs had left, by flow run and key.
        began: When the time of a Bolt run began to count, by the monotonic clock; by execution, endpoint and run.
        cancel_seen: Whether its cancel has been seen once, while it had something under way.
        alive_for: The flow run above it that nobody called, while a thread gives signs of life for it.
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
        """Take note of one more that can ask for it."""
        self._contexts = [each for each in self._contexts if each() is not None]
        if not any(each() is context for each in self._contexts):
            self._contexts.append(weakref.ref(context))

    def has_ended(self) -> bool:
        """Whether its execution here has ended, and its hooks have had their time."""
        if self.alive_for is not None or any(each() is not None for each in self._contexts):
            self._over_since = None
            return False
        if self._over_since is None:
            self._over_since = time.monotonic()
        return time.monotonic() - self._over_since >= times().hooks_seconds

    def end(self) -> None:
        """Count no signals for it any longer."""
        for count in self.signals.values():
            count.end()


class Supervisor:
    """The supervisor of a process.

    Attributes:
        tokens: Of the executions of this process, by flow run: those that have been written to Prefect.
    """

    def __init__(self) -> None:
        self.tokens: dict[UUID, set[str]] = {}
        self._flow_runs: dict[UUID | None, Supervised] = {None: Supervised()}
        self._lock = threading.RLock()

    def of(self, flow_run_id: UUID | None) -> Supervised:
        """Return what is known of a flow run, to be added to; None for what is outside of any."""
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
        """Return what is known of every flow run."""
        with self._lock:
            return list(self._flow_runs.values())

    def _forget_what_has_ended(self) -> None:
        ended = [each for each, known in self._flow_runs.items() if each is not None and known.has_ended()]
        for flow_run_id in ended:
            self._flow_runs.pop(flow_run_id).end()

    def take_over(self, left: tuple[UUID, str], flow_run_id: UUID, key: str) -> bool:
        """Take note that an intent takes over what another one has left; of several in this process, one does.

        Args:
            left: That one's flow run and key.
            flow_run_id: The flow run that takes it over.
            key: Its intent's key.

        Returns:
            Whether no other does.
        """
        with self._lock:
            known = self.of(flow_run_id)
            if any(left in each.taken_over for each in self.all() if each is not known):
                return False
            return known.taken_over.setdefault(left, key) == key

    def end(self) -> None:
        """Count no signals any longer."""
        for known in self.all():
            known.end()


_supervisor = Supervisor()


def the_supervisor() -> Supervisor:
    """Return the supervisor of this process."""
    return _supervisor


def begin_anew() -> None:
    """Begin as a new process does: for tests, of which none is to know of another's flow runs."""
    global _supervisor  # noqa: PLW0603 - there is one in a process
    _supervisor.end()
    _supervisor = Supervisor()
