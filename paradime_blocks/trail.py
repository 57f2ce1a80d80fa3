"""The decision trail of a run: what was sent, what was unclear, what was done and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone


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
        """Add a decision and tell it."""
        self.notes.append((datetime.now(timezone.utc).isoformat(timespec="seconds"), sentence))
        if self.tell is not None:
            self.tell(sentence)

    def to_json(self) -> str:
        """Return the trail as text, to be kept where only text can be."""
        return json.dumps(self.notes)

    @classmethod
    def from_json(cls, text: object) -> Trail:
        """Read a trail back; one that cannot be read is empty, since it only serves people."""
        try:
            notes = [(str(at), str(sentence)) for at, sentence in json.loads(str(text))]
        except ValueError:
            notes = []
        return cls(notes)
