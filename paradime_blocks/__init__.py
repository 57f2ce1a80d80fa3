"""Prefect blocks for Paradime Bolt, and the typed client that they use."""

from paradime_blocks.client import BoltClient
from paradime_blocks.credentials import ParadimeCredentials
from paradime_blocks.credentials_check import CredentialsCheck
from paradime_blocks.errors import (
    BoltAlreadyRunning,
    BoltAuthError,
    BoltCancelUnconfirmed,
    BoltError,
    BoltPipelineFailed,
    BoltRequestError,
    BoltRunCanceled,
    BoltRunError,
    BoltRunFailed,
    BoltRunSkipped,
    BoltRunTimedOut,
    BoltTriggerUnknown,
    BoltUnavailable,
    BoltUnsupported,
)
from paradime_blocks.models import (
    BoltAttempt,
    BoltCommand,
    BoltCommandDetail,
    BoltDbtResult,
    BoltLogPage,
    BoltResourceSummary,
    BoltRunRecord,
    BoltRunResult,
    BoltRunState,
    BoltRunStatus,
    BoltScheduleDetail,
    BoltScheduleSummary,
)
from paradime_blocks.run import BoltRun
from paradime_blocks.schedule import BoltSchedule

__all__ = [
    "BoltAlreadyRunning",
    "BoltAttempt",
    "BoltAuthError",
    "BoltCancelUnconfirmed",
    "BoltClient",
    "BoltCommand",
    "BoltCommandDetail",
    "BoltDbtResult",
    "BoltError",
    "BoltLogPage",
    "BoltPipelineFailed",
    "BoltRequestError",
    "BoltResourceSummary",
    "BoltRun",
    "BoltRunCanceled",
    "BoltRunError",
    "BoltRunFailed",
    "BoltRunRecord",
    "BoltRunResult",
    "BoltRunSkipped",
    "BoltRunState",
    "BoltRunStatus",
    "BoltRunTimedOut",
    "BoltSchedule",
    "BoltScheduleDetail",
    "BoltScheduleSummary",
    "BoltTriggerUnknown",
    "BoltUnavailable",
    "BoltUnsupported",
    "CredentialsCheck",
    "ParadimeCredentials",
]
