"""Logs what happens to a Bolt run while a caller waits for the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paradime_blocks.models import BoltCommand, BoltRunState, BoltRunStatus, run_url
from paradime_blocks.models.ends import SETTLING_SECONDS, end_by_commands
from paradime_blocks.text.redaction import Redactor
from paradime_blocks.text.rendering import clean

if TYPE_CHECKING:
    from logging import Logger, LoggerAdapter

    from paradime_blocks.credentials import ParadimeCredentials
    from paradime_blocks.polling import Observation


class RunLog:
    """Logs each change of a Bolt run's state, and the beginning and the end of an outage.

    Args:
        run_id: The id of the run.
        credentials: The credentials; their secrets are removed from the log.
        logger: The logger.
    """

    def __init__(
        self, run_id: int, credentials: ParadimeCredentials, logger: Logger | LoggerAdapter[Any]
    ) -> None:
        self.run_id = run_id
        self.credentials = credentials
        self.logger = logger
        self.state: BoltRunState | None = None
        self._running: BoltCommand | None = None
        self._in_outage = False
        self._warned = ""

    @property
    def running_command(self) -> str | None:
        """The command that was running at the last poll, without secrets."""
        return Redactor.of(self.credentials)(clean(self._running.command)) if self._running else None

    def observe(self, seen: Observation) -> None:
        """Log what is new in an observation."""
        if seen.status is None:
            if not self._in_outage:
                self.logger.warning("Bolt run %s cannot be polled at the moment: %s", self.run_id, seen.error)
            self._in_outage = True
            return
        if self._in_outage:
            self.logger.info("Bolt run %s can be polled again.", self.run_id)
        self._in_outage = False
        self._running = seen.status.unfinished_command
        if seen.status.state != self.state:
            self.state = seen.status.state
            if not self.state.is_terminal:
                self.logger.info("Bolt run %s is %s. %s", self.run_id, self.state, run_url(self.run_id))
        self._warn_of_unknown_state(seen.status)

    def _warn_of_unknown_state(self, status: BoltRunStatus) -> None:
        """Warn if Bolt reports a state that we do not know.

        Warn once when no command is running any more, and once when we count the run as ended.
        """
        end = end_by_commands(status)
        if status.reported_state is not None:
            text = (
                f"Bolt run {self.run_id} is {status.reported_state}, an unknown state. All its commands have ended, "
                f"so the run counts as {status.state}."
            )
        elif end is not None:
            text = (
                f"Bolt run {self.run_id} is {status.state}, an unknown state, and none of its commands is running. "
                f"If this state lasts for {SETTLING_SECONDS / 60:.0f} minutes, the run counts as {end}."
            )
        else:
            return
        if text != self._warned:
            self._warned = text
            self.logger.warning("%s", text)
