"""The states of a Bolt run."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from paradime_blocks.text.rendering import one_line

# Messages, labels and titles contain the state. So an unknown state that Bolt sends is cut to this length.
_STATE_CHARACTERS = 60
# Other spellings of final states; the value is our spelling.
_SPELLINGS = {
    "CANCELLED": "CANCELED",
    "FAILURE": "FAILED",
    "TIMED_OUT": "FAILED",
    "TIMEOUT": "FAILED",
    "SUCCEEDED": "SUCCESS",
}


class BoltRunState(str, Enum):
    """The state of a Bolt run.

    A state that is not listed here is unknown. An unknown state becomes a member that keeps the name from Bolt. An
    unknown state is neither in `TERMINAL` nor in `FAILURES`, so the run does not count as ended. `CANCELLED`,
    `FAILURE`, `TIMED_OUT`, `TIMEOUT` and `SUCCEEDED` are read as the listed states.

    Attributes:
        TERMINAL: The states of a run that has ended.
        FAILURES: The states of a run that has failed.

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
        # A text without visible characters is an unknown state, too.
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
        """Whether a run in this state has ended."""
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
