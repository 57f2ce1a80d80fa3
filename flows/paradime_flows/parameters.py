"""The flows' parameters: their types, their descriptions in the form of Prefect's UI, and their defaults.

If a flow takes one of the groups below, each option of the group is a keyword argument of the flow.
`prefect_api/signatures.py` makes the flow's signature and docstring from this module.
"""

# This module has no postponed annotations, because they are read when a flow's module is imported.
from typing import Annotated

from prefect.filesystems import WritableFileSystem
from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import Doc, TypedDict

from paradime_blocks import BoltSchedule, ParadimeCredentials
from paradime_blocks.options import (
    Default,
    NonEmpty,
    OutageOptions,
    PollOptions,
    TimeoutOptions,
    TriggerDetails,
    TriggerMain,
)
from paradime_flows.choices import LiveLogsMode, OnAlreadyRunning, Policy
from paradime_flows.form_groups import SavedBlock, form_group
from paradime_flows.retry_policy import check_pattern

# A list of artifacts in Prefect returns the data of all of them. A few large artifacts would make every page slow.
LOG_LIMIT_BYTES = 1_000_000
LINK_LIMIT = 200

NonRetryableErrors = list[
    Annotated[str, AfterValidator(check_pattern), WithJsonSchema({"type": "string", "minLength": 1})]
]
ScheduleParameter = NonEmpty | Annotated[BoltSchedule, SavedBlock()]
CredentialsParameter = Annotated[ParadimeCredentials, SavedBlock()] | NonEmpty | None
RunId = Annotated[int, Field(ge=1, le=2**31 - 1)]
PageSize = Annotated[int, Field(ge=1, le=1000)]
Offset = Annotated[int, Field(ge=0, le=2**31 - 1)]
Retries = Annotated[int, Field(ge=0, le=20)]
DelaySeconds = Annotated[float, Field(ge=0, le=86_400)]
LinkLimit = Annotated[int, Field(ge=0, le=2_000)]
LogBytes = Annotated[int, Field(ge=1_000, le=50_000_000)]
# A form cannot show a block picker for the storage: there are no blocks of this type, only of types derived from it.
StorageParameter = NonEmpty | SkipJsonSchema[WritableFileSystem] | None
StoragePatterns = Annotated[list[NonEmpty], Field(min_length=1)]


class RetryOptions(TypedDict, total=False):
    """Whether a failed run is retried in Bolt."""

    retries: Annotated[
        Retries, Doc("How often a failed run is retried, from the command that failed."), Default(0)
    ]


class ConflictOptions(TypedDict, total=False):
    """What to do when the schedule runs already."""

    on_already_running: Annotated[
        OnAlreadyRunning,
        Doc(
            "What to do when the schedule runs already. wait: wait until it ends, then trigger; attach: wait for that "
            "run instead; attach_if_same: the same, but fail if it runs other commands or another branch; fail; "
            "skip; replace: cancel it, then trigger."
        ),
        Default("wait"),
    ]


class ArchiveOptions(TypedDict, total=False):
    """What is archived of a run."""

    log_limit_bytes: Annotated[
        LogBytes,
        Doc("How much of a command's log an artifact holds, in bytes. A longer log is cut in the middle."),
        Default(LOG_LIMIT_BYTES),
    ]
    link_limit: Annotated[
        LinkLimit,
        Doc("How many of the run's files are linked. dbt's files and stored files come first. 0: none."),
        Default(LINK_LIMIT),
    ]
    storage: Annotated[
        StorageParameter,
        Doc(
            "The file system block that stores resources and long logs, such as local-file-system/archive. "
            "Empty: nothing is stored beyond the artifacts."
        ),
    ]
    storage_patterns: Annotated[
        StoragePatterns | None,
        Doc(
            "Which resources to store, as patterns for their path or name. Empty: manifest, run results and sources."
        ),
    ]
    assets: Annotated[
        bool,
        Doc("Whether each run reports dbt's models, seeds and snapshots to Prefect as assets."),
        Default(False),  # noqa: FBT003 - a default has no other argument
    ]


class LogOptions(TypedDict, total=False):
    """What is logged of a run while it runs."""

    live_logs: Annotated[
        LiveLogsMode,
        Doc(
            "How much of each command's output is logged here while it runs. all; head_and_tail: the first and last "
            "100 lines; off: nothing, and no progress within a command."
        ),
        Default("all"),
    ]


class ShownOptions(LogOptions, ArchiveOptions, total=False):
    """What is shown of a run while it runs, and archived after it."""


class SafetyOptions(TypedDict, total=False):
    """What happens to a run when something around it fails."""

    on_timeout: Annotated[
        Policy,
        Doc("Whether the time limit cancels the run in Bolt or leaves it running."),
        Default("cancel"),
    ]
    on_interrupt: Annotated[
        Policy,
        Doc(
            "Whether an interrupt of the process (SIGTERM, Ctrl-C) or Prefect's own time limit cancels the run in "
            "Bolt or leaves it running. A cancel in Prefect always cancels it."
        ),
        Default("cancel"),
    ]
    on_crash: Annotated[
        Policy,
        Doc(
            "Whether a crash of the process cancels the run in Bolt or leaves it running. Choose leave if crashed "
            "flow runs are retried: the retry then resumes the run."
        ),
        Default("cancel"),
    ]
    one_at_a_time: Annotated[
        bool,
        Doc(
            "Whether flow runs take turns: each one holds a concurrency slot in Prefect, so that no two trigger the "
            "schedule at once. The next one waits as on_already_running and timeout_seconds allow."
        ),
        Default(True),  # noqa: FBT003 - a default has no other argument
    ]


class GuardOptions(SafetyOptions, OutageOptions, total=False):
    """What happens to a run when something around it fails, and how long an outage or a cancel may take."""


class RetryDetails(TypedDict, total=False):
    """How a failed run is retried in Bolt."""

    retry_delay_seconds: Annotated[
        DelaySeconds, Doc("The wait before each retry, in seconds."), Default(30.0)
    ]
    non_retryable_errors: Annotated[
        NonRetryableErrors | None,
        Doc(
            "Regular expressions. A failure whose log or dbt error matches one of them is not retried. Empty: a list "
            "of errors that a person has to fix, such as bad credentials and compilation errors. "
            "An empty list: every failure is retried."
        ),
    ]


class RetriedRunDetails(PollOptions, RetryDetails, total=False):
    """Options that few runs need: polling and retries."""


class RunDetails(TriggerDetails, RetriedRunDetails, total=False):
    """Options that few runs need: polling, retries, and rare options of a trigger."""


class RetriedRunOptions(
    TimeoutOptions, RetryOptions, ConflictOptions, ShownOptions, GuardOptions, RetriedRunDetails, total=False
):
    """All options of a run that the flow waits for and archives."""


class RunOptions(
    TriggerMain,
    TimeoutOptions,
    RetryOptions,
    ConflictOptions,
    ShownOptions,
    GuardOptions,
    RunDetails,
    total=False,
):
    """All options of a run that the flow triggers, waits for and archives."""


class PipelineOptions(PollOptions, ShownOptions, GuardOptions, total=False):
    """The options that a pipeline passes to each of its steps."""


# The boxes of the forms. In Python, each of their fields is a keyword argument.
LogsAndArchive = form_group("LogsAndArchive", "Logs and archive", ShownOptions, module=__name__)
Safety = form_group("Safety", "Safety", GuardOptions, module=__name__)
Advanced = form_group("Advanced", "Advanced", RunDetails, module=__name__)
AdvancedRetry = form_group("AdvancedRetry", "Advanced", RetriedRunDetails, module=__name__)
