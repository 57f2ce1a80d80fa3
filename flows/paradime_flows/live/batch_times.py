"""Decides when the waiting lines of a live log are sent to Prefect: soon at first, more rarely as the run continues.

Each batch costs two requests to Prefect, so a command that prints all the time would cost sixty requests a minute.
"""

from __future__ import annotations

import time
from typing import Final

from paradime_flows.prefect_api import times

# The lines wait at most for this part of the time since the run's first line.
_PART: Final = 0.1


class BatchTimes:
    """The times of the batches of one Bolt run."""

    def __init__(self) -> None:
        self._began_at = self._due = time.monotonic()

    def is_due(self) -> bool:
        """Return whether all lines that wait are to be sent now. If so, the next lines wait for a while."""
        now = time.monotonic()
        if now < self._due:
            return False
        waits = max(times().log_batch_seconds, _PART * (now - self._began_at))
        self._due = now + min(waits, times().log_longest_batch_seconds)
        return True
