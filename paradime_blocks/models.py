"""What Bolt answers, typed.

Field names are the API's in snake case. Fields that this package does not know are kept; states that it does
not know are kept too and taken for unfinished. The API gives dates as text in UTC without a zone
(`facts.md`: an inference from the vendor's own clients); here they are timezone-aware. One that cannot be read
is None, and what stood there is kept beside it, as `next_run_at_text` is beside `next_run_at`.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, computed_field, model_validator
from pydantic.alias_generators import to_camel

from paradime_blocks.text.rendering import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

# A state is part of messages, labels and titles, and what Bolt may call one is not known.
_STATE_CHARACTERS = 60
RUN_PAGE = "https://app.paradime.io/bolt/run_id/{run_id}"


def run_url(run_id: int) -> str:
    """Return the page of a run for a person."""
    return RUN_PAGE.format(run_id=run_id)


class BoltRunState(str, Enum):
    """The state of a Bolt run.

    A state that is not listed becomes a member of its own name, so that nothing is lost; it is in none of the
    sets, so that nobody takes it for an end.

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
        if name in cls.__members__:
            return cls.__members__[name]
        unknown = str.__new__(cls, name)
        unknown._name_ = name
        unknown._value_ = name
        return unknown

    def __str__(self) -> str:
        return str(self.value)

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


# Ten digits are seconds from 2001 to 2286, thirteen are milliseconds; eight would be a day without dashes.
_EPOCH = re.compile(r"\d{9,13}(?:\.\d+)?")
_LEAST_MILLISECONDS = 1e11


def parse_bolt_date(value: object) -> object:
    """Read a date: as Bolt writes it, in ISO 8601, RFC 1123, or as seconds or milliseconds since 1970.

    Empty or unreadable text is no date rather than an error: it must not stop a wait, and no decision hangs on
    one.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float, datetime)):
        return None
    try:
        return _in_utc(value) if isinstance(value, datetime) else _read_date(value)
    except (ValueError, OverflowError, OSError):
        return None


def _read_date(value: str | float) -> datetime | None:
    if not isinstance(value, str):
        return _of_epoch(float(value))
    text = value.strip()
    if _EPOCH.fullmatch(text):
        return _of_epoch(float(text))
    return _in_utc(
        parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(_for_python_310(text))
    )


def _of_epoch(number: float) -> datetime | None:
    # An unset time of some languages is 0.
    if number <= 0:
        return None
    seconds = number / 1000 if number >= _LEAST_MILLISECONDS else number
    return datetime.fromtimestamp(seconds, timezone.utc)


def _for_python_310(text: str) -> str:
    """Return a date as Python 3.10 reads it: without "Z", with a colon in the zone, with six digits of fraction."""
    if text.endswith(("Z", "z")):
        text = f"{text[:-1]}+00:00"
    if ":" in text:
        text = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text)
    head, dot, rest = text.partition(".")
    if dot:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{head}.{rest[:digits][:6].ljust(6, '0')}{rest[digits:]}"
    return text


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


BoltDate = Annotated["datetime | None", BeforeValidator(parse_bolt_date)]
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]


def _empty_for_none(value: object) -> object:
    return [] if value is None else value


class _Reply(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="allow",
        frozen=True,
        # What is wrong with a reply stands in tracebacks, and so in logs; what it says must not.
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _keep_what_is_no_date(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        unread = {}
        for name, field in cls.model_fields.items():
            if any(getattr(each, "func", None) is parse_bolt_date for each in field.metadata):
                value = values.get(field.alias or name, values.get(name))
                if value not in (None, "") and parse_bolt_date(value) is None:
                    unread[f"{name}_text"] = value
        return {**unread, **values}


class BoltResource(_Reply):
    """A file that a command left behind, for instance `target/manifest.json`."""

    id: int
    path: Text


class BoltCommand(_Reply):
    """One command of a run, as `boltRunStatus` lists it; one that has not started is not listed."""

    id: int
    command: Text
    start_dttm: BoltDate = None
    end_dttm: BoltDate = None
    stdout: Text = Field(default="", repr=False)
    stderr: Text = Field(default="", repr=False)
    return_code: int | None = None

    @property
    def failed(self) -> bool:
        """Whether the command ended with a return code other than 0."""
        return self.return_code not in (None, 0)

    @property
    def duration_seconds(self) -> float | None:
        """How long the command took, in seconds; None while it runs."""
        if self.start_dttm is None or self.end_dttm is None:
            return None
        return (self.end_dttm - self.start_dttm).total_seconds()


class BoltCommandDetail(BoltCommand):
    """One command with its resources and its run, as `boltCommand` gives it (which has no id of its own)."""

    schedule_run_id: int | None = None
    resources: Annotated[list[BoltResource], BeforeValidator(_empty_for_none)] = Field(default_factory=list)
    ok: bool | None = None


class BoltRunStatus(_Reply):
    """State and commands of a run."""

    ok: bool | None = None
    state: BoltRunState
    commands: Annotated[list[BoltCommand], BeforeValidator(_empty_for_none)] = Field(default_factory=list)

    @property
    def failing_command(self) -> BoltCommand | None:
        """The command that ended the run badly: the last that failed; None if none did.

        With `continueOnError` a command may fail and the run go on, so the first failure is not the cause. Of a
        run that ended badly without a return code other than 0, it is the last command that was broken off. One
        that ended with 0 is never to blame: Bolt itself may have failed.
        """
        failed = [command for command in self.commands if command.failed]
        if not failed and self._ended_badly:
            failed = [command for command in self.commands if command.return_code is None]
        return failed[-1] if failed else None

    @property
    def unfinished_command(self) -> BoltCommand | None:
        """The last command if it has no return code: it is running, or the run's end broke it off."""
        last = self.commands[-1] if self.commands else None
        return last if last is not None and last.return_code is None else None

    @property
    def decisive_command(self) -> BoltCommand | None:
        """The command that a person asks for when the run did not end well.

        Of a run that was cancelled, what it was at, whatever failed before; else what failed, or what has no
        return code because the run's end broke it off.
        """
        if self.state == BoltRunState.CANCELED:
            return self.unfinished_command or self.failing_command
        return self.failing_command or self.unfinished_command

    @property
    def first_failed_command(self) -> BoltCommand | None:
        """The command from which a retry must start: the first that failed or was broken off, or else the last.

        With `continueOnError` the run went on after it, and what came later may have been spoilt by it.
        """
        codes = (None, 0) if not self._ended_badly else (0,)
        unfinished = (command for command in self.commands if command.return_code not in codes)
        return next(unfinished, self.commands[-1] if self.commands and self._ended_badly else None)

    @property
    def _ended_badly(self) -> bool:
        return self.state in BoltRunState.FAILURES or self.state == BoltRunState.CANCELED

    @property
    def started_at(self) -> datetime | None:
        """When the first command began."""
        return min((c.start_dttm for c in self.commands if c.start_dttm), default=None)

    @property
    def ended_at(self) -> datetime | None:
        """When the last command ended; None while the run goes on."""
        if not self.state.is_terminal:
            return None
        return max((c.end_dttm for c in self.commands if c.end_dttm), default=None)


class BoltTurboCi(_Reply):
    """A schedule's Turbo CI settings."""

    enabled: bool | None = None
    deferred_schedule_name: str | None = None
    successful_run_only: bool | None = None


class BoltDeferredSchedule(BoltTurboCi):
    """The schedule that another one defers to."""


class BoltScheduleSummary(_Reply):
    """A schedule as `listBoltSchedules` lists it."""

    name: Text
    schedule: str | None = None
    owner: str | None = None
    last_run_at: BoltDate = None
    last_run_state: str | None = None
    next_run_at: BoltDate = None
    id: int | None = None
    uuid: str | None = None
    source: str | None = None
    turbo_ci: BoltTurboCi | None = None
    deferred_schedule: BoltDeferredSchedule | None = None
    commands: Annotated[list[Text], BeforeValidator(_empty_for_none)] = Field(default_factory=list)
    git_branch: str | None = None
    slack_on: Any = None
    slack_notify: Any = None
    email_on: Any = None
    email_notify: Any = None
    slug: str | None = None
    suspended: bool | None = None


class BoltSchedulePage(_Reply):
    """One page of schedules."""

    schedules: Annotated[list[BoltScheduleSummary], BeforeValidator(_empty_for_none)] = Field(
        default_factory=list
    )
    total_count: int | None = None


class BoltScheduleDetail(_Reply):
    """One schedule as `boltScheduleName` gives it."""

    ok: bool | None = None
    latest_run_id: int | None = None
    commands: Annotated[list[Text], BeforeValidator(_empty_for_none)] = Field(default_factory=list)
    owner: str | None = None
    schedule: str | None = None
    uuid: str | None = None
    source: str | None = None
    suspended: bool | None = None


class BoltGitInfo(_Reply):
    """What a run checked out."""

    branch: str | None = None
    commit_hash: str | None = None
    pull_request_id: Any = None


class BoltRunRecord(_Reply):
    """A run as `listBoltRuns` lists it."""

    id: int
    state: BoltRunState
    actor: str | None = None
    actor_email: str | None = None
    start_dttm: BoltDate = None
    end_dttm: BoltDate = None
    parent_schedule_run_id: int | None = None
    git_info: BoltGitInfo | None = None


class BoltRunPage(_Reply):
    """One page of a schedule's runs, newest first."""

    ok: bool | None = None
    runs: Annotated[list[BoltRunRecord], BeforeValidator(_empty_for_none)] = Field(default_factory=list)


class BoltLogLine(_Reply):
    """A piece of a command's log; it carries its own newline."""

    stream: Annotated[str, BeforeValidator(lambda value: value or "STDOUT")] = "STDOUT"
    line: Text = ""


class BoltLogPage(_Reply):
    """The log of a command since a cursor."""

    lines: Annotated[list[BoltLogLine], BeforeValidator(_empty_for_none)] = Field(default_factory=list)
    cursor: str | None = None
    finished: bool = False


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
        schedule_name: The schedule, if it is known: Bolt does not tell it of a run.
        state: The state in which the run ended.
        url: The run's page in Paradime.
        started_at: When the first command began, in UTC.
        ended_at: When the last command ended, in UTC.
        commands: The run's commands, without their logs.
        resources: The files that the commands left behind.
        attempts: The runs that it took, oldest first; more than one after retries.

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
