"""What to do when a Bolt run fails, is interrupted, or conflicts with another Bolt run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from paradime_flows.choices import OnAlreadyRunning, OnInterrupt, Policy
from paradime_flows.parameters import RetriedRunOptions
from paradime_flows.prefect_api import filled
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.retry_policy import DEFAULT_NON_RETRYABLE_ERRORS


@dataclass(frozen=True)
class RunPolicies:
    """The attributes mean the same as the parameters of `run_schedule`.

    With `leave`, the flow run stops tracking the Bolt run when it has started. From then on, nothing cancels it.
    """

    retries: int = 0
    retry_delay_seconds: float = 30.0
    non_retryable_errors: tuple[str, ...] = DEFAULT_NON_RETRYABLE_ERRORS
    on_already_running: OnAlreadyRunning = "wait"
    on_timeout: Policy = "cancel"
    on_interrupt: OnInterrupt = "auto"
    on_crash: Policy = "cancel"
    leave: bool = False
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)

    @classmethod
    async def of(cls, options: RetriedRunOptions) -> RunPolicies:
        """Return the policies that the options of a flow contain."""
        given: dict[str, Any] = filled(RetriedRunOptions, options)
        chosen = {each.name: given[each.name] for each in fields(cls) if each.name in given}
        if (patterns := chosen.pop("non_retryable_errors")) is not None:
            chosen["non_retryable_errors"] = tuple(patterns)
        return cls(**chosen, archive=await ArchiveSettings.resolve(options))
