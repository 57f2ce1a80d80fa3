"""The decision trail of a run: what was sent, what was unclear, what was done and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

_LAST = 4


@dataclass
class Trail:
    """Decisions in the order in which they were taken.

    Attributes:
        notes: The decisions, each as (ISO date in UTC, sentence).
        tell: Called with each new sentence, for a log.
    """

    notes: list[tuple[str, str]] = field(default_factory=list)
    tell: Callable[[str], object] | None = None

    def note(self, sentence: str) -> None:
        """Add a decision and tell it, unless it was one of the last already: what goes on and on is told once."""
        if sentence in {told for _, told in self.notes[-_LAST:]}:
            return
        self.notes.append((datetime.now(timezone.utc).isoformat(timespec="seconds"), sentence))
        if self.tell is not None:
            self.tell(sentence)
