"""The flows' parameters: what each means, what the form in Prefect's UI says of it, and what is refused.

A flow that takes one of the groups below takes each of its options as a keyword argument of its own:
`prefect_api/signatures.py` makes signature and docstring from the types, descriptions and defaults here.
"""

# No postponed annotations here: they are read when a flow's module is imported.
from typing import Annotated

from prefect.filesystems import WritableFileSystem
from pydantic import AfterValidator, Field, WithJsonSchema
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
from paradime_flows.forms import form_group
from paradime_flows.retry_policy import check_pattern

# A listing of artifacts in Prefect returns all their data, so that a few large ones would make every page slow.
LOG_LIMIT_BYTES = 1_000_000

NonRetryableErrors = list[
    Annotated[str, AfterValidator(check_pattern), WithJsonSchema({"type": "string", "minLength": 1})]
]
ScheduleParameter = NonEmpty | BoltSchedule
CredentialsParameter = ParadimeCredentials | NonEmpty | None
RunId = Annotated[int, Field(ge=1, le=2**31 - 1)]
PageSize = Annotated[int, Field(ge=1, le=1000)]
Offset = Annotated[int, Field(ge=0, le=2**31 - 1)]
Retries = Annotated[int, Field(ge=0, le=20)]
DelaySeconds = Annotated[float, Field(ge=0, le=86_400)]
LogBytes = Annotated[int, Field(ge=1_000, le=50_000_000)]
StorageParameter = NonEmpty | WritableFileSystem | None
StoragePatterns = Annotated[list[NonEmpty], Field(min_length=1)]


class RetryOptions(TypedDict, total=False):
    """Whether a run that failed is retried in Bolt."""

    retries: Annotated[
        Retries, Doc("How often a run that failed is retried from the command that failed."), Default(0)
    ]


class ConflictOptions(TypedDict, total=False):
    """What to do when the schedule runs already."""

    on_already_running: Annotated[
        OnAlreadyRunning,
        Doc(
            "What to do when the schedule runs already. wait: until it ends, then trigger; attach: wait for that run "
            "instead; attach_if_same: the same, but fail if its commands or branch are not those asked for; fail; "
            "skip; replace: cancel it, then trigger."
        ),
        Default("wait"),
    ]


class ArchiveOptions(TypedDict, total=False):
    """What is archived of a run."""

    log_limit_bytes: Annotated[
        LogBytes,
        Doc("How much of a command's log an artifact holds, in bytes. Of a longer one: head and tail."),
        Default(LOG_LIMIT_BYTES),
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
            "Which resources to store, as patterns of their path or name. Empty: manifest, run results and sources."
        ),
    ]
    assets: Annotated[
        bool,
        Doc(
            "Whether to report dbt's models, seeds and snapshots to Prefect as assets, each time that this runs."
        ),
        Default(False),  # noqa: FBT003 - the one value that it holds
    ]


class LogOptions(TypedDict, total=False):
    """What is logged of a run while it runs."""

    live_logs: Annotated[
        LiveLogsMode,
        Doc(
            "How much of each command's output is logged here while it runs. all; head_and_tail: its first and last "
            "100 lines; off: none, and then the progress within a command is not shown either."
        ),
        Default("all"),
    ]


class ShownOptions(LogOptions, ArchiveOptions, total=False):
    """What is shown of a run while it runs, and archived after it."""


class SafetyOptions(TypedDict, total=False):
    """What happens to a run when something goes wrong around it."""

    on_timeout: Annotated[
        Policy,
        Doc("Whether the time limit cancels the run in Bolt or leaves it running."),
        Default("cancel"),
    ]
    on_interrupt: Annotated[
        Policy,
        Doc(
            "Whether an interrupt of the process (SIGTERM, Ctrl-C) or Prefect's own time limit cancels the run in "
            "Bolt or leaves it running. A cancel in Prefect always cancels."
        ),
        Default("cancel"),
    ]
    on_crash: Annotated[
        Policy,
        Doc(
            "Whether a crash of the process cancels the run in Bolt or leaves it running. Choose leave where crashed "
            "flow runs are retried: the retry then resumes the run."
        ),
        Default("cancel"),
    ]
    one_at_a_time: Annotated[
        bool,
        Doc(
            "Whether to hold a concurrency slot of the schedule in Prefect, so that no two flow runs trigger it at "
            "once: the next one waits as long as on_already_running and timeout_seconds allow."
        ),
        Default(True),  # noqa: FBT003 - the one value that it holds
    ]


class GuardOptions(SafetyOptions, OutageOptions, total=False):
    """What happens to a run when something goes wrong around it, and how long an outage or a cancel may take."""


class RetryDetails(TypedDict, total=False):
    """How a run that failed is retried in Bolt."""

    retry_delay_seconds: Annotated[
        DelaySeconds, Doc("The wait before each retry, in seconds."), Default(30.0)
    ]
    non_retryable_errors: Annotated[
        NonRetryableErrors | None,
        Doc(
            "Regular expressions. A failure whose log or dbt error matches one is not retried. Empty: those of "
            "failures that stay until a person changes something, such as bad credentials and compilation errors. "
            "An empty list: every failure is retried."
        ),
    ]


class RetriedRunDetails(PollOptions, RetryDetails, total=False):
    """What few runs need: polling and retries."""


class RunDetails(TriggerDetails, RetriedRunDetails, total=False):
    """What few runs need: polling, retries, and rare options of a trigger."""


class RetriedRunOptions(
    TimeoutOptions, RetryOptions, ConflictOptions, ShownOptions, GuardOptions, RetriedRunDetails, total=False
):
    """All options of a run that is waited for and archived, whatever began it."""


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
    """All options of a run that is triggered, waited for and archived."""


class PipelineOptions(PollOptions, ShownOptions, GuardOptions, total=False):
    """The options that a pipeline hands on to each of its steps."""


# The boxes of the forms. In Python, each of their fields is a keyword argument by itself.
LogsAndArchive = form_group("LogsAndArchive", "Logs and archive", ShownOptions, module=__name__)
Safety = form_group("Safety", "Safety", GuardOptions, module=__name__)
Advanced = form_group("Advanced", "Advanced", RunDetails, module=__name__)
AdvancedRetry = form_group("AdvancedRetry", "Advanced", RetriedRunDetails, module=__name__)
