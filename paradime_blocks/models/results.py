"""What a run amounts to, for its caller."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, computed_field

from paradime_blocks.models.dbt import BoltDbtResult
from paradime_blocks.models.runs import BoltCommand, BoltRunStatus, run_url
from paradime_blocks.models.states import BoltRunState

if TYPE_CHECKING:
    from collections.abc import Iterable


class BoltLatestArtifact(BaseModel):
    """Where a schedule's newest file of a path is."""

    run_id: int
    command_id: int
    resource_id: int
    path: str


class BoltCommandSummary(BaseModel):
    """A command in a `BoltRunResult`: without its log, which may be long and is archived."""

    id: int
    command: str
    return_code: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @classmethod
    def of(cls, command: BoltCommand) -> BoltCommandSummary:
        """Sum up a command."""
        return cls(
            id=command.id,
            command=command.command,
            return_code=command.return_code,
            started_at=command.start_dttm,
            ended_at=command.end_dttm,
        )


class BoltResourceSummary(BaseModel):
    """A resource in a `BoltRunResult`: by id, since its signed URL expires."""

    id: int
    path: str
    command_id: int


class BoltAttempt(BaseModel):
    """One Bolt run among those that it took to reach the result."""

    run_id: int
    state: BoltRunState
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def url(self) -> str:
        """The attempt's page in Paradime."""
        return run_url(self.run_id)


class BoltRunResult(BaseModel):
    """What a finished run amounts to; JSON-serialisable.

    Attributes:
        run_id: The Bolt run (the last one, if it took several).
        schedule_name: The schedule, if it is known: Bolt's API does not return it for a run.
        state: The state in which the run ended.
        url: The run's page in Paradime.
        started_at: When the first command began, in UTC.
        ended_at: When the last command ended, in UTC.
        commands: The run's commands, without their logs.
        resources: The files that the commands left behind.
        attempts: The runs that it took, oldest first; more than one after retries.
        differs: How the run differs from what was asked for, as a sentence: where another's was waited for instead.
        dbt: What dbt did in the run; empty if no command left dbt's files.

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
        """Return what is known of one run, whatever its state.

        Args:
            run_id: The run.
            status: Its status when last seen, its secrets redacted; None if it was not seen.
            schedule_name: Its schedule, if it is known.
            state: Its state, where no status tells it.
            resources: The files that its commands left behind.
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
