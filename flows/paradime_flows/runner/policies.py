"""What is to be done when the run of a schedule does not go straight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from paradime_flows.ledger.entry import Policy
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.retry_policy import DEFAULT_NON_RETRYABLE_ERRORS

OnAlreadyRunning = Literal["wait", "attach", "fail", "skip", "replace"]


@dataclass(frozen=True)
class RunPolicies:
    """What is to be done when things do not go straight.

    Attributes:
        retries: How often a failed run is retried from its failure.
        retry_delay_seconds: The wait before each retry, in seconds.
        non_retryable_errors: Regular expressions; a failure whose log or dbt error fits one is not retried.
        on_already_running: What to do when the schedule runs already.
        on_timeout: What the time limit does to the Bolt run.
        on_interrupt: What an interrupt without a person's cancel does to it.
        on_crash: What a crash of the flow run's process does to it.
        leave: Whether the Bolt run is left alone as soon as it has been started.
        archive: What to archive of the run, and where.
    """

    retries: int = 0
    retry_delay_seconds: float = 30.0
    non_retryable_errors: tuple[str, ...] = DEFAULT_NON_RETRYABLE_ERRORS
    on_already_running: OnAlreadyRunning = "wait"
    on_timeout: Policy = "cancel"
    on_interrupt: Policy = "cancel"
    on_crash: Policy = "cancel"
    leave: bool = False
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
