"""What is to be triggered, what was known before, and where both are written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from paradime_blocks.client.inputs import trigger_variables

if TYPE_CHECKING:
    from paradime_blocks.client import BoltClient


@dataclass(frozen=True)
class TriggerRequest:
    """What to trigger: a schedule, or the retry of a run.

    Attributes:
        schedule_name: The schedule's name.
        slug: Its slug, in place of its name.
        commands: Commands in place of the schedule's own.
        command_configs: The same with their `continueOnError`, in place of `commands`.
        branch: Branch or commit in place of the schedule's own.
        pr_number: The pull request that the run belongs to.
        reason: Who or what triggers.
        continue_on_error: Whether the run goes on after a command that failed.
        retry_of: A run to retry from its failure, in place of a new run of the schedule.
        retry_everything: Whether the retry runs all commands again.
    """

    schedule_name: str | None = None
    slug: str | None = None
    commands: tuple[str, ...] | None = None
    command_configs: tuple[dict[str, object], ...] | None = None
    branch: str | None = None
    pr_number: int | None = None
    reason: str | None = None
    continue_on_error: bool | None = None
    retry_of: int | None = None
    retry_everything: bool = False

    def __post_init__(self) -> None:
        """Refuse bad input before anything is sent.

        Raises:
            BoltRequestError: Something of it is bad, or does not go together.
        """
        trigger_variables(self.schedule_name, slug=self.slug, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "commands": self.commands,
            "command_configs": self.command_configs,
            "branch": self.branch,
            "pr_number": self.pr_number,
            "reason": self.reason,
            "continue_on_error": self.continue_on_error,
        }

    @property
    def label(self) -> str:
        """The schedule's name or slug, for a person."""
        return self.schedule_name or self.slug or ""

    async def send(self, client: BoltClient) -> int:
        """Send the mutation and return the id of the run that it started."""
        if self.retry_of is not None:
            return await client.retry_bolt_run(self.retry_of, everything=self.retry_everything)
        return await client.trigger_bolt_run(self.schedule_name, slug=self.slug, **self._options())


@dataclass(frozen=True)
class TriggerIntent:
    """What was known when a trigger was about to be sent; enough to look for its run later.

    Attributes:
        latest_run_id: The schedule's latest run before it; 0 for none.
        intended_at: When, in seconds since the epoch, by our own clock.
        commands: The commands that the run is to have, the schedule's own unless others were given.
        branch: Branch or commit that was asked for.
        retry_of: The run that is to be retried.
        bolt_time: When, by Bolt's clock; None if Bolt does not tell it.
    """

    latest_run_id: int
    intended_at: float
    commands: tuple[str, ...] = ()
    branch: str | None = None
    retry_of: int | None = None
    bolt_time: float | None = None


class RunLedger(Protocol):
    """Where intents and run ids are written before and after a trigger, so that other processes find them."""

    async def intend(self, request: TriggerRequest, intent: TriggerIntent) -> None:
        """Write down that a trigger is about to be sent."""

    async def started(self, run_id: int, *, adopted: bool) -> None:
        """Write down which run the trigger started; `adopted` if it was found rather than told."""

    async def withdraw(self) -> None:
        """Write down that the trigger has started nothing, and will not."""

    async def disown(self) -> None:
        """Write down that what the trigger may have started is no longer known for ours: no run of it has been seen.

        What shows itself later may be somebody else's, and is not to be cancelled; but no second is started beside it.
        """

    async def save(self) -> None:
        """Write down that the trigger has failed, and may have started a run all the same."""
