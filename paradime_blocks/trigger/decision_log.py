"""The decisions about a Bolt run, as people read them in the run's summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone


@dataclass
class DecisionLog:
    """The decisions about a Bolt run as (ISO date in UTC, sentence), oldest first. `log` gets each new sentence."""

    notes: list[tuple[str, str]] = field(default_factory=list)
    log: Callable[[str], object] | None = None

    def note(self, sentence: str) -> None:
        """Add a decision, unless one of the last four decisions is the same: a repeated decision is logged once."""
        if sentence not in {earlier for _, earlier in self.notes[-4:]}:
            self.notes.append((datetime.now(timezone.utc).isoformat(timespec="seconds"), sentence))
            if self.log is not None:
                self.log(sentence)
