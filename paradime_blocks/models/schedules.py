"""Models of Bolt schedules."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from paradime_blocks.models.dates import BoltDate
from paradime_blocks.models.reply import (
    IfReadable,
    Reply,
    Text,
    empty_for_none,
    readable,
    with_count,
)


class BoltTurboCi(Reply):
    """A schedule's Turbo CI settings."""

    enabled: IfReadable[bool] = None
    deferred_schedule_name: IfReadable[str] = None
    successful_run_only: IfReadable[bool] = None


class BoltDeferredSchedule(BoltTurboCi):
    """The schedule to which another schedule defers, and the settings of this deferral."""


class BoltScheduleSummary(Reply):
    """A schedule, as the query `listBoltSchedules` returns it."""

    name: Text
    schedule: IfReadable[str] = None
    owner: IfReadable[str] = None
    last_run_at: BoltDate = None
    last_run_state: IfReadable[str] = None
    next_run_at: BoltDate = None
    id: IfReadable[int] = None
    uuid: IfReadable[str] = None
    source: IfReadable[str] = None
    turbo_ci: IfReadable[BoltTurboCi] = None
    deferred_schedule: IfReadable[BoltDeferredSchedule] = None
    commands: Annotated[list[Text], BeforeValidator(empty_for_none)] = Field(default_factory=list)
    git_branch: IfReadable[str] = None
    slack_on: Any = None
    slack_notify: Any = None
    email_on: Any = None
    email_notify: Any = None
    slug: IfReadable[str] = None
    suspended: IfReadable[bool] = None


class BoltSchedulePage(Reply):
    """One page of schedules.

    Attributes:
        schedules: The schedules that can be read.
        total_count: The number of schedules on all pages.
        received: The number of schedules that Bolt sent in this page.
    """

    schedules: Annotated[list[BoltScheduleSummary], readable(BoltScheduleSummary, at_least_one=True)] = Field(
        default_factory=list
    )
    total_count: IfReadable[int] = None
    received: int = 0

    @model_validator(mode="before")
    @classmethod
    def _count(cls, values: Any) -> Any:
        return with_count(values, "schedules")


class BoltScheduleDetail(Reply):
    """One schedule, as the query `boltScheduleName` returns it."""

    ok: bool | None = None
    latest_run_id: int | None = None
    commands: Annotated[list[Text], BeforeValidator(empty_for_none)] = Field(default_factory=list)
    owner: IfReadable[str] = None
    schedule: IfReadable[str] = None
    uuid: IfReadable[str] = None
    source: IfReadable[str] = None
    suspended: IfReadable[bool] = None
