"""Keeps the faults that have been injected, and chooses the fault that hits a call."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass

from .faults import Fault


@dataclass
class _Active:
    fault: Fault
    seen: int = 0
    used: int = 0

    def fits(self, operations: Collection[str]) -> bool:
        return self.fault.operation is None or self.fault.operation in operations

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.used >= self.fault.times


class FaultBox:
    """The faults that have been injected and can still hit a call."""

    def __init__(self) -> None:
        """Start without faults."""
        self._lock = threading.Lock()
        self._active: list[_Active] = []

    def inject(self, *faults: Fault) -> None:
        """Add faults at the end of the list of injected faults."""
        with self._lock:
            self._active += [_Active(fault) for fault in faults]

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._active = []

    @property
    def pending(self) -> tuple[Fault, ...]:
        """The faults that can still hit a call."""
        with self._lock:
            return tuple(active.fault for active in self._active)

    def take(self, operations: Collection[str]) -> Fault | None:
        """Count a call for each fault that fits the call, and return the first of these faults that is due.

        A fault is due from its `nth` call on. If no fault is due, the result is None.
        """
        with self._lock:
            fitting = [active for active in self._active if active.fits(operations)]
            for active in fitting:
                active.seen += 1
            due = next((active for active in fitting if active.seen >= active.fault.nth), None)
            if due is None:
                return None
            due.used += 1
            self._active = [active for active in self._active if not active.spent]
            return due.fault
