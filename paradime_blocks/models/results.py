"""The result of a Bolt run, for the flow's caller."""

from __future__ import annotations

from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field, computed_field

from paradime_blocks.models.dbt import BoltDbtResult
from paradime_blocks.models.runs import BoltCommand, BoltRunRecord, BoltRunStatus, run_url
from paradime_blocks.models.states import BoltRunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# The median of fewer runs has no meaning.
_LEAST_RUNS: Final = 3


class BoltLatestArtifact(BaseModel):
    """The place of a schedule's newest file with a given path: the ids of its run, command and resource."""

    run_id: int
    command_id: int
    resource_id: int
    path: str


class BoltCommandSummary(BaseModel):
    """A command in a `BoltRunResult`, without its log, which may be long."""

    id: int
    command: str
    return_code: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @classmethod
    def of(cls, command: BoltCommand) -> BoltCommandSummary:
        """Return the summary of a command."""
        return cls(
            id=command.id,
            command=command.command,
            return_code=command.return_code,
            started_at=command.start_dttm,
            ended_at=command.end_dttm,
        )


class BoltResourceSummary(BaseModel):
    """A file in a `BoltRunResult`, with the file's id, but without a signed URL, since the URL expires."""

    id: int
    path: str
    command_id: int


class BoltAttempt(BaseModel):
    """One of the Bolt runs that led to the result: the first run, or a retry of it."""

    run_id: int
    state: BoltRunState
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def url(self) -> str:
        """The URL of the Bolt run's page in Paradime."""
        return run_url(self.run_id)


class BoltUsualDuration(BaseModel):
    """How long a schedule's runs usually take.

    Attributes:
        seconds: The median duration of the schedule's newest runs that succeeded, without retries and without this run.
        runs: The number of runs from which the median was calculated.
        difference_seconds: How much longer than the median this run took; negative if this run was faster. None if this
            run has not ended, or is a retry: a retry does only a part of the work.
    """

    seconds: float
    runs: int
    difference_seconds: float | None = None

    @classmethod
    def of(cls, runs: Sequence[BoltRunRecord], run_id: int) -> BoltUsualDuration | None:
        """Compare a run with the other runs of its schedule.

        Args:
            runs: The schedule's newest runs, as `listBoltRuns` lists them.
            run_id: The run to compare.

        Returns:
            The usual duration; None if fewer than three other runs can be used.
        """
        known = {run.id: seconds for run in runs if (seconds := _whole_run_seconds(run)) is not None}
        own = known.pop(run_id, None)
        others = [known[run.id] for run in runs if run.id in known and run.state == BoltRunState.SUCCESS]
        if len(others) < _LEAST_RUNS:
            return None
        usual = median(others)
        return cls(seconds=usual, runs=len(others), difference_seconds=None if own is None else own - usual)


def _whole_run_seconds(run: BoltRunRecord) -> float | None:
    """Return how long a run took, in seconds; None if the run has not ended or is a retry."""
    if not run.state.is_terminal or run.parent_schedule_run_id is not None:
        return None
    if run.start_dttm is None or run.end_dttm is None:
        return None
    return (run.end_dttm - run.start_dttm).total_seconds()


class BoltRunResult(BaseModel):
    """The result of a Bolt run. The result can be written as JSON.

    Attributes:
        run_id: The id of the Bolt run; after retries, the id of the last Bolt run.
        schedule_name: The name of the run's schedule, if it is known. Bolt's API does not return the schedule of a run.
        state: The state in which the run ended.
        url: The URL of the run's page in Paradime.
        started_at: The time at which the first command began, in UTC.
        ended_at: The time at which the last command ended, in UTC.
        commands: The run's commands, without their logs.
        resources: The files that the commands wrote.
        attempts: The Bolt runs that led to the result, oldest first. After a retry, there are several Bolt runs.
        differs: How the run differs from what the flow asked for, as a sentence, if the flow waited for a run that
            another client had started. None in all other cases.
        dbt: dbt's results in the run; empty if no command wrote dbt's files.
        usual_duration: How long the schedule's runs usually take, and how much longer this run took. None if the
            backend cannot list runs, or there are too few runs.

    Example:
        ```python
        from paradime_blocks import BoltRunResult, BoltRunState

        result = BoltRunResult(
            run_id=76035, state=BoltRunState.SUCCESS, url="https://app.paradime.io/bolt/run_id/76035"
        )
        assert result.state in BoltRunState.TERMINAL
        assert BoltRunResult.model_validate_json(result.model_dump_json()) == result
        ```
    """

    run_id: int
    schedule_name: str | None = None
    state: BoltRunState
    url: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    commands: list[BoltCommandSummary] = Field(default_factory=list)
    resources: list[BoltResourceSummary] = Field(default_factory=list)
    attempts: list[BoltAttempt] = Field(default_factory=list)
    differs: str | None = None
    dbt: BoltDbtResult = Field(default_factory=BoltDbtResult)
    usual_duration: BoltUsualDuration | None = None

    @classmethod
    def of(
        cls,
        run_id: int,
        status: BoltRunStatus | None,
        *,
        schedule_name: str | None = None,
        state: BoltRunState | None = None,
        resources: Iterable[BoltResourceSummary] = (),
    ) -> BoltRunResult:
        """Return the result of one run, in any state.

        Args:
            run_id: The id of the run.
            status: The last known status of the run, without secrets; None if no status is known.
            schedule_name: The run's schedule, if it is known.
            state: The run's state, if `status` is None.
            resources: The files that the run's commands wrote.
        """
        seen = state or BoltRunState("UNKNOWN") if status is None else status.state
        started, ended = (None, None) if status is None else (status.started_at, status.ended_at)
        return cls(
            run_id=run_id,
            schedule_name=schedule_name,
            state=seen,
            url=run_url(run_id),
            started_at=started,
            ended_at=ended,
            commands=[BoltCommandSummary.of(command) for command in status.commands] if status else [],
            resources=list(resources),
            attempts=[BoltAttempt(run_id=run_id, state=seen, started_at=started, ended_at=ended)],
        )
