"""What to do when a Bolt run fails, is interrupted, or conflicts with another Bolt run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paradime_flows.choices import OnAlreadyRunning, Policy
from paradime_flows.parameters import RetriedRunOptions
from paradime_flows.prefect_api import filled
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.retry_policy import DEFAULT_NON_RETRYABLE_ERRORS


@dataclass(frozen=True)
class RunPolicies:
    """What to do when a Bolt run fails, is interrupted, or conflicts with another Bolt run.

    Attributes:
        retries: How often a failed Bolt run is retried from its failed command.
        retry_delay_seconds: The wait before each retry, in seconds.
        non_retryable_errors: Regular expressions. If the log or a dbt error of a failed Bolt run matches one of them,
            the run is not retried.
        on_already_running: What to do if the schedule is already running.
        on_timeout: What happens to the Bolt run when the time limit is reached.
        on_interrupt: What happens to the Bolt run when the flow run is interrupted, if nobody has cancelled it.
        on_crash: What happens to the Bolt run when the flow run's process crashes.
        leave: Whether the flow run stops tracking the Bolt run as soon as the Bolt run has started.
        archive: What is archived of the Bolt run, and where.
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

    @classmethod
    async def of(cls, options: RetriedRunOptions) -> RunPolicies:
        """Return the policies from the options of a flow.

        Raises:
            BoltRequestError: The Prefect block for the storage cannot be used.
        """
        given: dict[str, Any] = filled(RetriedRunOptions, options)
        patterns = given["non_retryable_errors"]
        return cls(
            retries=given["retries"],
            retry_delay_seconds=given["retry_delay_seconds"],
            non_retryable_errors=DEFAULT_NON_RETRYABLE_ERRORS if patterns is None else tuple(patterns),
            on_already_running=given["on_already_running"],
            on_timeout=given["on_timeout"],
            on_interrupt=given["on_interrupt"],
            on_crash=given["on_crash"],
            archive=await ArchiveSettings.resolve(options),
        )
