"""The parameters of the flows: their types, their defaults, and their descriptions in the form of Prefect's UI.

If a flow takes one of the groups below, each option of the group is a keyword argument of the flow.
`prefect_api/signatures.py` makes the flow's signature and docstring from this module.
"""

# This module has no postponed annotations, because the annotations are read when a flow's module is imported.
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
    WaitOptions,
)
from paradime_flows.choices import LiveLogsMode, OnAlreadyRunning, OnInterrupt, Policy, WaitMode
from paradime_flows.form_groups import SavedBlock, form_group
from paradime_flows.retry_policy import check_pattern

# When Prefect lists artifacts, Prefect returns the data of each artifact. A few large artifacts would make every list
# slow.
LOG_LIMIT_BYTES = 1_000_000
LINK_LIMIT = 200

NonRetryableErrors = list[
    Annotated[str, AfterValidator(check_pattern), WithJsonSchema({"type": "string", "minLength": 1})]
]
ScheduleParameter = NonEmpty | Annotated[BoltSchedule, SavedBlock()]
CredentialsParameter = Annotated[ParadimeCredentials, SavedBlock()] | NonEmpty | None
RunId = Annotated[int, Field(ge=1, le=2**31 - 1)]
CommandId = Annotated[int, Field(ge=1, le=2**31 - 1)]
PageSize = Annotated[int, Field(ge=1, le=1000)]
CommandIndex = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Offset = Annotated[int, Field(ge=0, le=2**31 - 1)]
Retries = Annotated[int, Field(ge=0, le=20)]
DelaySeconds = Annotated[float, Field(ge=0, le=86_400)]
LinkLimit = Annotated[int, Field(ge=0, le=2_000)]
NodeCount = Annotated[int, Field(ge=0, le=200)]
LogBytes = Annotated[int, Field(ge=1_000, le=50_000_000)]
# A form cannot show a block picker for the storage, because no block has this type itself. Blocks have types that are
# derived from this type.
StorageParameter = NonEmpty | SkipJsonSchema[WritableFileSystem] | None
StoragePatterns = Annotated[list[NonEmpty], Field(min_length=1)]


class RetryOptions(TypedDict, total=False):
    """How often a failed Bolt run is retried."""

    retries: Annotated[
        Retries, Doc("How often a failed Bolt run is retried, each time from the failed command."), Default(0)
    ]


class ConflictOptions(TypedDict, total=False):
    """What the flow does when the schedule is already running."""

    on_already_running: Annotated[
        OnAlreadyRunning,
        Doc(
            "What the flow does when the schedule is already running. wait: wait until the other Bolt run ends, then "
            "trigger; attach: wait for the other Bolt run instead; attach_if_same: attach, but fail if the other Bolt "
            "run has other commands or another branch; fail: raise an error; skip: trigger nothing; "
            "replace: cancel the other Bolt run, then trigger."
        ),
        Default("wait"),
    ]


class ArchiveOptions(TypedDict, total=False):
    """What the flow archives of a Bolt run."""

    log_limit_bytes: Annotated[
        LogBytes,
        Doc(
            "The largest size of a command's log in an artifact, in bytes. A longer log is cut in the middle."
        ),
        Default(LOG_LIMIT_BYTES),
    ]
    link_limit: Annotated[
        LinkLimit,
        Doc(
            "The largest number of files that get a link. dbt's files and stored files come first. 0: no links."
        ),
        Default(LINK_LIMIT),
    ]
    storage: Annotated[
        StorageParameter,
        Doc(
            "The file system block that stores the Bolt run's files and long logs, such as "
            "local-file-system/archive. If empty, the flow stores only artifacts."
        ),
    ]
    storage_patterns: Annotated[
        StoragePatterns | None,
        Doc(
            "Patterns for the path or the name of the files to store. If empty, the flow stores dbt's manifest, "
            "run results and source freshness."
        ),
    ]
    assets: Annotated[
        bool,
        Doc("Whether the flow reports the built models, seeds and snapshots to Prefect as assets."),
        Default(False),  # noqa: FBT003 - a default has no other argument
    ]
    node_task_runs: Annotated[
        NodeCount,
        Doc(
            "How many dbt nodes are task runs in the timeline after the run: failed first, then slowest. 0: none."
        ),
        Default(0),
    ]


class TaskRunOptions(TypedDict, total=False):
    """Which task runs the timeline has."""

    command_task_runs: Annotated[
        bool,
        Doc("Whether each Bolt command is a task run in the timeline, with its log and its outcome."),
        Default(True),  # noqa: FBT003 - a default has no other argument
    ]


class LogOptions(TaskRunOptions, total=False):
    """What is shown of a run while it runs."""

    live_logs: Annotated[
        LiveLogsMode,
        Doc(
            "How much of a command's output the flow run logs while the command is running. all: all lines; "
            "head_and_tail: the first and last 100 lines; off: no lines, and the progress counts only ended commands."
        ),
        Default("all"),
    ]


class ArchiveRunOptions(TaskRunOptions, ArchiveOptions, total=False):
    """What is shown and archived of a run that is not waited for."""


class WatchOptions(WaitOptions, LogOptions, total=False):
    """How to wait for a run, and what is shown of it meanwhile."""


class ShownOptions(LogOptions, ArchiveOptions, total=False):
    """What the flow run logs while the Bolt run is running, and what the flow archives afterwards."""


class SafetyOptions(TypedDict, total=False):
    """What happens to the Bolt run when a time limit is reached, or when the flow run is interrupted or crashes."""

    on_timeout: Annotated[
        Policy,
        Doc("Whether the Bolt run is cancelled or left running when timeout_seconds has passed."),
        Default("cancel"),
    ]
    on_interrupt: Annotated[
        OnInterrupt,
        Doc(
            "Whether the Bolt run is cancelled or left running when the process is interrupted (SIGTERM, Ctrl-C) or "
            "Prefect's own time limit is reached. auto: leave if Prefect runs the flow run again after a SIGTERM "
            "(PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR is reschedule or relinquish), or else cancel. A cancel of the "
            "flow run in Prefect always cancels the Bolt run."
        ),
        Default("auto"),
    ]
    on_crash: Annotated[
        Policy,
        Doc(
            "Whether the Bolt run is cancelled or left running when the process crashes. Choose leave if crashed "
            "flow runs are retried: the retry then resumes the Bolt run."
        ),
        Default("cancel"),
    ]
    one_at_a_time: Annotated[
        bool,
        Doc(
            "Whether flow runs for the same schedule take turns. Each flow run holds a concurrency slot in Prefect, "
            "so that two flow runs do not trigger the schedule at the same time. How long the next flow run waits "
            "depends on on_already_running and timeout_seconds."
        ),
        Default(True),  # noqa: FBT003 - a default has no other argument
    ]


class GuardOptions(SafetyOptions, OutageOptions, total=False):
    """What happens to the Bolt run when the flow run stops early, and how long an outage or a cancel may take."""


class StepGuardOptions(GuardOptions, total=False):
    """What happens to the Bolt runs when the flow run stops early. timeout_seconds is a field of each step, above."""


class RetryDetails(TypedDict, total=False):
    """How a failed Bolt run is retried."""

    retry_delay_seconds: Annotated[
        DelaySeconds, Doc("The wait before each retry, in seconds."), Default(30.0)
    ]
    non_retryable_errors: Annotated[
        NonRetryableErrors | None,
        Doc(
            "Leave it empty for the default list, which has the errors that a person has to fix, such as bad "
            "credentials and compilation errors. Or write a list of regular expressions: a failed Bolt run is not "
            "retried if its log or a dbt error matches one of them. In Python, [] retries every failed Bolt run."
        ),
    ]


class RetriedRunDetails(PollOptions, RetryDetails, total=False):
    """Options that few users need to change: polling and retries."""


class SuspendOptions(TypedDict, total=False):
    """How the flow run waits for the Bolt run."""

    wait: Annotated[
        WaitMode,
        Doc(
            "How the flow run waits for a Bolt run that takes longer than a minute. hold: in its process; suspend: "
            "without a process. A suspended flow run needs the deployment of watch-runs, or the webhook receiver, "
            "which resume it when the Bolt run has ended. Only a flow run of a deployment can be suspended."
        ),
        Default("hold"),
    ]


class RunDetails(SuspendOptions, TriggerDetails, RetriedRunDetails, total=False):
    """Options that few users need to change: the kind of wait, polling, retries, and rare options of a trigger."""


class RetriedRunOptions(
    TimeoutOptions, RetryOptions, ConflictOptions, ShownOptions, GuardOptions, RetriedRunDetails, total=False
):
    """All options of a flow that retries a Bolt run, waits for the new Bolt run and archives it."""


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
    """All options of a flow that triggers a Bolt run, waits for the Bolt run and archives it."""


class PipelineOptions(PollOptions, ShownOptions, StepGuardOptions, total=False):
    """The options that a pipeline passes to each of its steps."""


# The boxes of the forms. In Python, each field of a box is a keyword argument of the flow.
LogsAndArchive = form_group("LogsAndArchive", "Logs and archive", ShownOptions, module=__name__)
Safety = form_group("Safety", "Safety", GuardOptions, module=__name__)
StepSafety = form_group("StepSafety", "Safety", StepGuardOptions, module=__name__)
Advanced = form_group("Advanced", "Advanced", RunDetails, module=__name__)
AdvancedRetry = form_group("AdvancedRetry", "Advanced", RetriedRunDetails, module=__name__)
