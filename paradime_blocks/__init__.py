"""Prefect blocks for Paradime Bolt, and the typed client that they use."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient
else:

    def __getattr__(name: str) -> object:
        # The client is imported only when it is needed, as in `paradime_blocks.client`.
        if name == "BoltClient":
            from paradime_blocks.client import BoltClient  # noqa: PLC0415

            return BoltClient
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)


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
