"""The flows' parameters: what the Prefect UI's form explains, and what it refuses."""

from __future__ import annotations

from typing import Annotated

from prefect.filesystems import WritableFileSystem
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from paradime_blocks.client.inputs import is_one_line
from paradime_blocks.credentials import ParadimeCredentials
from paradime_blocks.schedule import LONGEST_TIMEOUT_SECONDS, BoltSchedule
from paradime_flows.retry_policy import check_pattern

# What the form refuses by itself; the validators below say the same of a call, in words.
_ONE_LINE = {
    "type": "string",
    "minLength": 1,
    "pattern": r"^[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f\s][^\x00-\x1f\x7f]*$",
}


def _one_line(text: str) -> str:
    if not text.strip():
        msg = "it is blank: type some text, or leave it out"
        raise ValueError(msg)
    if not is_one_line(text):
        msg = "it holds a line break or another control character: type it again, on one line"
        raise ValueError(msg)
    return text


NonEmpty = Annotated[str, Field(min_length=1), AfterValidator(_one_line), WithJsonSchema(_ONE_LINE)]
NonRetryableErrors = list[
    Annotated[str, AfterValidator(check_pattern), WithJsonSchema({"type": "string", "minLength": 1})]
]
ScheduleParameter = NonEmpty | BoltSchedule
CredentialsParameter = ParadimeCredentials | NonEmpty | None
RunId = Annotated[int, Field(ge=1, le=2**31 - 1)]
Commands = Annotated[list[NonEmpty], Field(min_length=1)]
PageSize = Annotated[int, Field(ge=1, le=1000)]
Offset = Annotated[int, Field(ge=0, le=2**31 - 1)]
PullRequest = Annotated[int, Field(ge=1, le=2**31 - 1)]
TimeoutSeconds = Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT_SECONDS)]
PollIntervalSeconds = Annotated[float, Field(ge=0.5, le=3600)]
OutageSeconds = Annotated[float, Field(ge=0, le=LONGEST_TIMEOUT_SECONDS)]
GraceSeconds = Annotated[float, Field(gt=0, le=3600)]
Retries = Annotated[int, Field(ge=0, le=20)]
DelaySeconds = Annotated[float, Field(ge=0, le=86_400)]
LogBytes = Annotated[int, Field(ge=1_000, le=50_000_000)]
StorageParameter = WritableFileSystem | NonEmpty | None
StoragePatterns = Annotated[list[NonEmpty], Field(min_length=1)]


class CommandConfig(BaseModel):
    """A command of a run, and whether the run goes on when it fails."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    command: NonEmpty = Field(default=..., description="The command, such as `dbt test`.")
    continue_on_error: bool | None = Field(
        default=None,
        alias="continueOnError",
        description="Whether the run goes on when the command fails. Empty: as the schedule says.",
    )

    def sent(self) -> dict[str, object]:
        """Return it as Bolt takes it."""
        return self.model_dump(by_alias=True, exclude_none=True)


CommandConfigs = Annotated[list[CommandConfig], Field(min_length=1)]
