"""What to do when the run of a schedule fails, is interrupted or conflicts with another."""

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
    """What to do when a run fails, is interrupted or conflicts with another.

    Attributes:
        retries: How often a failed run is retried from its failure.
        retry_delay_seconds: The wait before each retry, in seconds.
        non_retryable_errors: Regular expressions; a failure whose log or dbt error matches one is not retried.
        on_already_running: What to do if the schedule is already running.
        on_timeout: What the time limit does to the Bolt run.
        on_interrupt: What an interrupt does to it, if nobody has cancelled the flow run.
        on_crash: What a crash of the flow run's process does to it.
        leave: Whether the flow run stops tracking the Bolt run once it has started.
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

    @classmethod
    async def of(cls, options: RetriedRunOptions) -> RunPolicies:
        """Return the policies that a flow's options give.

        Raises:
            BoltRequestError: The block for storage cannot be used.
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
