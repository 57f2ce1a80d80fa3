"""Prefect blocks for Paradime Bolt, and the typed client beneath them."""

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
from paradime_blocks.models import BoltRunResult, BoltRunState
from paradime_blocks.run import BoltRun
from paradime_blocks.schedule import BoltSchedule

__all__ = [
    "BoltAlreadyRunning",
    "BoltAuthError",
    "BoltCancelUnconfirmed",
    "BoltClient",
    "BoltError",
    "BoltPipelineFailed",
    "BoltRequestError",
    "BoltRun",
    "BoltRunCanceled",
    "BoltRunError",
    "BoltRunFailed",
    "BoltRunResult",
    "BoltRunSkipped",
    "BoltRunState",
    "BoltRunTimedOut",
    "BoltSchedule",
    "BoltTriggerUnknown",
    "BoltUnavailable",
    "BoltUnsupported",
    "CredentialsCheck",
    "ParadimeCredentials",
]
