"""The flows' parameters: what the Prefect UI's form explains, and what it refuses."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from paradime_blocks.credentials import ParadimeCredentials
from paradime_blocks.schedule import LONGEST_TIMEOUT_SECONDS, BoltSchedule

NonEmpty = Annotated[str, Field(min_length=1, pattern=r"\S")]
ScheduleParameter = NonEmpty | BoltSchedule
CredentialsParameter = ParadimeCredentials | NonEmpty | None
RunId = Annotated[int, Field(ge=1, le=2**31 - 1)]
Commands = Annotated[list[NonEmpty], Field(min_length=1)]
TimeoutSeconds = Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT_SECONDS)]
PollIntervalSeconds = Annotated[float, Field(ge=0.5, le=3600)]
OutageSeconds = Annotated[float, Field(ge=0, le=LONGEST_TIMEOUT_SECONDS)]
GraceSeconds = Annotated[float, Field(gt=0, le=3600)]
Retries = Annotated[int, Field(ge=0, le=20)]
DelaySeconds = Annotated[float, Field(ge=0, le=86_400)]
LogBytes = Annotated[int, Field(ge=1_000, le=50_000_000)]
