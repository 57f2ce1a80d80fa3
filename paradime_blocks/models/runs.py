"""Models of Bolt runs and their commands."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from paradime_blocks.models.dates import BoltDate
from paradime_blocks.models.reply import IfReadable, Reply, Text, readable, with_count
from paradime_blocks.models.states import BoltRunState

# In this time, dbt prints a few megabytes at most.
_SHORT_RUN_SECONDS = 60.0
RUN_PAGE = "https://app.paradime.io/bolt/run_id/{run_id}"


def run_url(run_id: int) -> str:
    """Return the URL of a Bolt run's page in Paradime."""
    return RUN_PAGE.format(run_id=run_id)


class BoltResource(Reply):
    """A file that a command wrote, for instance `target/manifest.json`."""

    id: int
    path: Text


class BoltCommand(Reply):
    """One command of a run in `boltRunStatus`, which lists only commands that have started."""

    id: int
    command: Text
    start_dttm: BoltDate = None
    end_dttm: BoltDate = None
    stdout: Text = Field(default="", repr=False)
    stderr: Text = Field(default="", repr=False)
    return_code: IfReadable[int] = None

    @property
    def failed(self) -> bool:
        """Whether the command ended with a return code other than 0."""
        return self.return_code not in (None, 0)

    @property
    def has_ended(self) -> bool:
        """Whether the command has ended."""
        return self.return_code is not None or self.end_dttm is not None

    @property
    def duration_seconds(self) -> float | None:
        """How long the command took, in seconds; None while it runs."""
        if self.start_dttm is None or self.end_dttm is None:
            return None
        return (self.end_dttm - self.start_dttm).total_seconds()


class BoltCommandDetail(BoltCommand):
    """One command with its files and its run, from the query `boltCommand`. The query returns no command id."""

    schedule_run_id: IfReadable[int] = None
    resources: Annotated[list[BoltResource], readable(BoltResource)] = Field(default_factory=list)
    ok: IfReadable[bool] = None


class BoltRunStatus(Reply):
    """The state and the commands of a Bolt run.

    Attributes:
        state: The state of the run.
        commands: The commands that have started.
        reported_state: The unknown state that Bolt reports, if `state` was derived from the commands; otherwise None.
    """

    ok: bool | None = None
    state: BoltRunState
    reported_state: BoltRunState | None = None
    commands: Annotated[list[BoltCommand], readable(BoltCommand)] = Field(default_factory=list)

    @property
    def failing_command(self) -> BoltCommand | None:
        """The command that made the run fail: the last command that failed. None if no command failed.

        With `continueOnError` a run continues after a failed command, so the first failure is not the cause. If the
        run failed or was cancelled and no command has a return code other than 0, the result is the last command
        without a return code. A command with return code 0 is never the cause: Bolt itself may have failed.
        """
        failed = [command for command in self.commands if command.failed]
        if not failed and self._ended_badly:
            failed = [command for command in self.commands if command.return_code is None]
        return failed[-1] if failed else None

    @property
    def unfinished_command(self) -> BoltCommand | None:
        """The last command, if it has no return code: it is running, or it was stopped when the run ended."""
        last = self.commands[-1] if self.commands else None
        return last if last is not None and last.return_code is None else None

    @property
    def decisive_command(self) -> BoltCommand | None:
        """The command to show to a person when the run did not succeed.

        If the run was cancelled, the result is the command that was running at that time, even if another command had
        failed before. Otherwise the result is the command that failed. If no command failed, the result is the command
        that was stopped when the run ended.
        """
        if self.state == BoltRunState.CANCELED:
            return self.unfinished_command or self.failing_command
        return self.failing_command or self.unfinished_command

    @property
    def first_failed_command(self) -> BoltCommand | None:
        """The command at which a retry must start: the first that failed or was stopped, otherwise the last command.

        With `continueOnError` the run continued after this command, and its failure may have affected later commands.
        """
        codes = (None, 0) if not self._ended_badly else (0,)
        unfinished = (command for command in self.commands if command.return_code not in codes)
        return next(unfinished, self.commands[-1] if self.commands and self._ended_badly else None)

    @property
    def _ended_badly(self) -> bool:
        return self.state in BoltRunState.FAILURES or self.state == BoltRunState.CANCELED

    @property
    def started_at(self) -> datetime | None:
        """The time at which the first command began."""
        return min((c.start_dttm for c in self.commands if c.start_dttm), default=None)

    @property
    def ended_at(self) -> datetime | None:
        """The time at which the last command ended; None if the run has not ended."""
        if not self.state.is_terminal:
            return None
        return max((c.end_dttm for c in self.commands if c.end_dttm), default=None)

    @property
    def is_idle(self) -> bool:
        """Whether commands have begun, and all of them have ended."""
        return bool(self.commands) and all(command.has_ended for command in self.commands)

    @property
    def has_short_output(self) -> bool:
        """Whether the run has ended, and took so little time that the output of all its commands fits in one reply."""
        if self.started_at is None or self.ended_at is None:
            return False
        return (self.ended_at - self.started_at).total_seconds() <= _SHORT_RUN_SECONDS


class BoltGitInfo(Reply):
    """The branch, the commit and the pull request that a run has checked out."""

    branch: IfReadable[str] = None
    commit_hash: IfReadable[str] = None
    pull_request_id: Any = None


class BoltRunRecord(Reply):
    """A run, as the query `listBoltRuns` returns it."""

    id: int
    state: Annotated[BoltRunState, BeforeValidator(lambda value: value or "UNKNOWN")]
    actor: IfReadable[str] = None
    actor_email: IfReadable[str] = None
    start_dttm: BoltDate = None
    end_dttm: BoltDate = None
    parent_schedule_run_id: int | None = None
    git_info: BoltGitInfo | None = None


class BoltRunPage(Reply):
    """One page of a schedule's runs, newest first.

    Attributes:
        runs: The runs that can be read.
        received: The number of runs that Bolt sent in this page.
    """

    ok: bool | None = None
    runs: Annotated[list[BoltRunRecord], readable(BoltRunRecord, at_least_one=True)] = Field(
        default_factory=list
    )
    received: int = 0

    @model_validator(mode="before")
    @classmethod
    def _count(cls, values: Any) -> Any:
        return with_count(values, "runs")
