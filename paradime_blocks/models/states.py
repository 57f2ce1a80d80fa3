"""The states of a run."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from paradime_blocks.text.rendering import one_line

# A state is part of messages, labels and titles, and what Bolt may call one is not known.
_STATE_CHARACTERS = 60
# Other spellings of an end.
_SPELLINGS = {
    "CANCELLED": "CANCELED",
    "FAILURE": "FAILED",
    "TIMED_OUT": "FAILED",
    "TIMEOUT": "FAILED",
    "SUCCEEDED": "SUCCESS",
}


class BoltRunState(str, Enum):
    """The state of a Bolt run.

    A state that is not listed becomes a member of its own name, so that nothing is lost; it is in none of the
    sets, so that nobody takes it for an end. `CANCELLED`, `FAILURE`, `TIMED_OUT`, `TIMEOUT` and `SUCCEEDED` are other
    spellings of listed ones.

    Attributes:
        TERMINAL: The run has ended.
        FAILURES: The run has ended badly by itself.

    Example:
        ```python
        from paradime_blocks import BoltRunState

        assert BoltRunState("SUCCESS").is_terminal
        assert not BoltRunState("POLISHING").is_terminal
        ```
    """

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    ERROR = "ERROR"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    SKIPPED = "SKIPPED"

    TERMINAL: ClassVar[frozenset[BoltRunState]]
    FAILURES: ClassVar[frozenset[BoltRunState]]

    @classmethod
    def _missing_(cls, value: object) -> BoltRunState | None:
        if not isinstance(value, str) or not value.strip():
            return None
        # What has nothing to show is still a state, and no end.
        name = one_line(value.upper(), _STATE_CHARACTERS) or "UNKNOWN"
        name = _SPELLINGS.get(name, name)
        if name in cls.__members__:
            return cls.__members__[name]
        unknown = str.__new__(cls, name)
        unknown._name_ = name
        unknown._value_ = name
        return unknown

    def __str__(self) -> str:
        return str(self.value)

    @property
    def is_known(self) -> bool:
        """Whether this package knows what the state means."""
        return self.value in BoltRunState.__members__

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended."""
        return self in BoltRunState.TERMINAL


BoltRunState.TERMINAL = frozenset(
    {
        BoltRunState.SUCCESS,
        BoltRunState.ERROR,
        BoltRunState.FAILED,
        BoltRunState.CANCELED,
        BoltRunState.SKIPPED,
    }
)
BoltRunState.FAILURES = frozenset({BoltRunState.ERROR, BoltRunState.FAILED})
