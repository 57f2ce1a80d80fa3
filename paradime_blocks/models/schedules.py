"""Schedules."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from paradime_blocks.models.dates import BoltDate
from paradime_blocks.models.reply import Reply, Text, empty_for_none


class BoltTurboCi(Reply):
    """A schedule's Turbo CI settings."""

    enabled: bool | None = None
    deferred_schedule_name: str | None = None
    successful_run_only: bool | None = None


class BoltDeferredSchedule(BoltTurboCi):
    """The schedule that another one defers to."""


class BoltScheduleSummary(Reply):
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
    commands: Annotated[list[Text], BeforeValidator(empty_for_none)] = Field(default_factory=list)
    git_branch: str | None = None
    slack_on: Any = None
    slack_notify: Any = None
    email_on: Any = None
    email_notify: Any = None
    slug: str | None = None
    suspended: bool | None = None


class BoltSchedulePage(Reply):
    """One page of schedules."""

    schedules: Annotated[list[BoltScheduleSummary], BeforeValidator(empty_for_none)] = Field(
        default_factory=list
    )
    total_count: int | None = None


class BoltScheduleDetail(Reply):
    """One schedule as `boltScheduleName` gives it."""

    ok: bool | None = None
    latest_run_id: int | None = None
    commands: Annotated[list[Text], BeforeValidator(empty_for_none)] = Field(default_factory=list)
    owner: str | None = None
    schedule: str | None = None
    uuid: str | None = None
    source: str | None = None
    suspended: bool | None = None
