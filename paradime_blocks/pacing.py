"""When to poll a run again: often while its end is likely, and rarely otherwise. This module does no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# In the first minute, the delay grows with the time so far, from the shortest delay to one second. So the end of a run
# is noticed at most one second late.
_FIRST_MINUTE_SECONDS: Final = 60.0
_SHORTEST_DELAY_SECONDS: Final = 0.5
_FIRST_MINUTE_DELAY_SECONDS: Final = 1.0
_FIRST_MINUTE_SHARE: Final = 0.15
# After the first minute, the delay is a share of the time so far. After some minutes, the share is larger. With only
# the larger share, the end of a run of two minutes would be noticed late. With only the smaller share, a run of an hour
# would need more than 200 polls.
_SHARE: Final = 0.02
_SHARE_AFTER_SECONDS: Final = 120.0
_LATER_SHARE: Final = 0.05
# Around the usual end, the delay is a share of the distance from it.
_USUAL_END_DELAY_SECONDS: Final = 2.0
_BEFORE_USUAL_END_SHARE: Final = 0.12
_AFTER_USUAL_END_SHARE: Final = 0.25
# If no command is running, the next command begins within seconds, or the run ends.
_IDLE_SHARE: Final = 0.1


@dataclass(frozen=True)
class Progress:
    """What is known about a run that is waited for.

    Attributes:
        elapsed_seconds: The time since the first poll.
        until_usual_end_seconds: The time until the run ends, if it takes as long as the schedule's runs usually do.
            After the usual end, the number is negative. None if the usual duration is unknown.
        idle_seconds: The time since a poll first showed that all commands that have begun have also ended. None if a
            command is running.
    """

    elapsed_seconds: float
    until_usual_end_seconds: float | None = None
    idle_seconds: float | None = None


def next_poll_delay(
    progress: Progress,
    ceiling_seconds: float,
    remaining_seconds: float | None,
    asked_seconds: float = 0.0,
) -> float:
    """Return how long to sleep before the next poll. The last sleep ends at the deadline.

    Args:
        progress: What is known about the run.
        ceiling_seconds: The longest sleep.
        remaining_seconds: The time until the deadline; None if there is no deadline.
        asked_seconds: The wait that Bolt asked for; it may be longer than the longest sleep.
    """
    delay = min(_usual_delay(progress), ceiling_seconds)
    if progress.idle_seconds is not None:
        delay = min(delay, max(_SHORTEST_DELAY_SECONDS, _IDLE_SHARE * progress.idle_seconds))
    delay = max(delay, asked_seconds)
    return delay if remaining_seconds is None else max(0.0, min(delay, remaining_seconds))


def _usual_delay(progress: Progress) -> float:
    elapsed, until_end = progress.elapsed_seconds, progress.until_usual_end_seconds
    if elapsed < _FIRST_MINUTE_SECONDS:
        return min(_FIRST_MINUTE_DELAY_SECONDS, max(_SHORTEST_DELAY_SECONDS, _FIRST_MINUTE_SHARE * elapsed))
    if until_end is not None:
        share = _BEFORE_USUAL_END_SHARE if until_end > 0 else _AFTER_USUAL_END_SHARE
        return max(_USUAL_END_DELAY_SECONDS, min(_LATER_SHARE * elapsed, share * abs(until_end)))
    return (_SHARE if elapsed < _SHARE_AFTER_SECONDS else _LATER_SHARE) * elapsed
