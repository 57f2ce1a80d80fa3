"""The request to trigger a run, what is known before the trigger is sent, and who stores it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from paradime_blocks.client.inputs import command_text, trigger_variables
from paradime_blocks.options import TriggerOptions, chosen

if TYPE_CHECKING:
    from typing_extensions import Unpack


def fingerprint_of(command: str) -> str:
    """Return a hash of a command. Differences in white space do not change the hash."""
    return hashlib.sha256(" ".join(command.split()).encode(errors="replace")).hexdigest()[:16]


@dataclass(frozen=True)
class TriggerRequest:
    """What to trigger: a new run of a schedule, or the retry of the run `retry_of`.

    A retry runs only what failed, or all commands again if `retry_everything` is true.
    """

    schedule_name: str
    options: TriggerOptions = field(default_factory=TriggerOptions)
    retry_of: int | None = None
    retry_everything: bool = False

    def __post_init__(self) -> None:
        """Raise `BoltRequestError` if the schedule's name or an option is invalid, before anything is sent."""
        trigger_variables(self.schedule_name, **self.options)

    @property
    def commands(self) -> tuple[str, ...] | None:
        """The texts of the commands that replace the schedule's commands, if there are any."""
        given = self.options.get("commands")
        return None if given is None else tuple(command_text(command) for command in given)

    @property
    def branch(self) -> str | None:
        """The git branch or commit that replaces the schedule's branch, if there is one."""
        return self.options.get("branch")

    @property
    def fingerprint(self) -> str:
        """A hash of the request without the option `reason`. The hash does not show the content of the request."""
        asked = {name: value for name, value in self.options.items() if name != "reason"}
        parts = [self.schedule_name, asked, self.retry_of, self.retry_everything]
        text = json.dumps(parts, sort_keys=True, default=lambda command: command.model_dump())
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def with_options(self, **options: Unpack[TriggerOptions]) -> TriggerRequest:
        """Return the same request with other options. The value None removes an option."""
        return replace(self, options=chosen(TriggerOptions, {**self.options, **options}))


@dataclass(frozen=True)
class TriggerIntent:
    """The facts that are known before a trigger is sent. Together with the request, they identify the trigger's run."""

    # The schedule's latest run before the trigger; 0 if the schedule had no run.
    latest_run_id: int
    # The time of the intent by our own clock, in seconds since 1970.
    intended_at: float
    # Only the fingerprints of the commands: many people can read the stored intent, and a command may contain a secret.
    commands: tuple[str, ...] = ()
    # The time of the intent by Bolt's clock; None if Bolt's time is unknown.
    bolt_time: float | None = None


class RunLedger(Protocol):
    """Stores an intent before its trigger, and then the run that was started, or that none will be started."""

    async def intend(self, request: TriggerRequest, intent: TriggerIntent) -> None: ...

    async def started(self, run_id: int) -> None: ...

    async def withdraw(self) -> None: ...
