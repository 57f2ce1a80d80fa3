"""The rules that a file of automations can have, and the automations that Prefect gets for these rules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

from prefect.events.actions import RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from typing_extensions import Self

from paradime_blocks import BoltRequestError
from paradime_blocks.options import NonEmpty
from paradime_blocks.text.reasons import reasons
from paradime_flows.automations.messages import BODIES, SUBJECTS
from paradime_flows.events import SOURCE_STALE, TEST_FAILED, RunEvent

# The beginning of the names of this package's automations. Automations with other names are never changed.
NAME_PREFIX: Final = "paradime: "
_RUN_DEPLOYMENT: Final = "run-schedule/bolt"

On = Literal["failed", "canceled", "skipped", "completed", "overdue", "source-stale", "test-failed"]
_EVENTS: Final[Mapping[str, str]] = {
    "failed": RunEvent.FAILED.value,
    "canceled": RunEvent.CANCELED.value,
    "skipped": RunEvent.SKIPPED.value,
    "completed": RunEvent.COMPLETED.value,
    "overdue": RunEvent.OVERDUE.value,
    "source-stale": SOURCE_STALE,
    "test-failed": TEST_FAILED,
}


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Notify(_Rule):
    """Send a message through a notification block of Prefect.

    Attributes:
        block: The block, as `type/name`: `slack-webhook/data-team`, `ms-teams-webhook/…`, `sendgrid-email/…`.
        on: The events that send the message.
        schedules: The schedules. If the list is empty, the rule is for all schedules whose runs have events.
    """

    block: NonEmpty = Field(pattern=r"^[^/]+/[^/]+$")
    on: list[On] = Field(default=["failed"], min_length=1)
    schedules: list[NonEmpty] = Field(default_factory=list)


class Start(_Rule):
    """Start a schedule in Prefect after a run of another schedule has ended. It does not matter who started that run.

    Attributes:
        schedule: The schedule to start.
        after: The other schedule, as the label `schedule` of its events names it.
        on: How the run of the other schedule must have ended.
        deployment: The deployment that runs the schedule, as `flow/deployment`.
        parameters: Further parameters of the deployment.
    """

    schedule: NonEmpty
    after: NonEmpty
    on: Literal["completed", "failed", "canceled", "skipped"] = "completed"
    deployment: NonEmpty = Field(default=_RUN_DEPLOYMENT, pattern=r"^[^/]+/[^/]+$")
    parameters: dict[str, Any] = Field(default_factory=dict)


class Rules(_Rule):
    """All rules of a file."""

    notify: list[Notify] = Field(default_factory=list)
    start: list[Start] = Field(default_factory=list)

    @model_validator(mode="after")
    def _no_circle(self) -> Self:
        for rule in self.start:
            if rule.schedule == rule.after:
                msg = f"Schedule {rule.schedule!r} would start itself again and again."
                raise ValueError(msg)
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read the file of automations.

        Args:
            path: The path of the YAML file.

        Raises:
            BoltRequestError: The file cannot be read, or is not valid; the message says why.
        """
        guidance = "No automation was changed."
        try:
            data = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
            return cls.model_validate(data or {})
        except (OSError, YAMLError) as error:
            raise BoltRequestError(f"{path} cannot be read: {error}", guidance=guidance) from error
        except ValidationError as error:
            raise BoltRequestError(f"{path} is not valid: {reasons(error)}", guidance=guidance) from None

    @property
    def blocks(self) -> set[str]:
        """The notification blocks that the rules need."""
        return {rule.block for rule in self.notify}

    @property
    def deployments(self) -> set[str]:
        """The deployments that the rules need."""
        return {rule.deployment for rule in self.start}

    def automations(
        self, blocks: Mapping[str, UUID], deployments: Mapping[str, UUID]
    ) -> list[AutomationCore]:
        """Return the automations for Prefect.

        Args:
            blocks: The id of each notification block.
            deployments: The id of each deployment.
        """
        found = [
            _notification(rule, on, blocks[rule.block])
            for rule in self.notify
            for on in dict.fromkeys(rule.on)
        ]
        found += [_start(rule, deployments[rule.deployment]) for rule in self.start]
        return [*{each.name: each for each in found}.values()]


def _notification(rule: Notify, on: str, block_id: UUID) -> AutomationCore:
    of = f" of {', '.join(rule.schedules)}" if rule.schedules else ""
    return AutomationCore(
        name=f"{NAME_PREFIX}{rule.block} on {on}{of}",
        description=f"Sends a message when the event {_EVENTS[on]}{of} arrives.",
        trigger=_trigger(_EVENTS[on], rule.schedules),
        actions=[SendNotification(block_document_id=block_id, subject=SUBJECTS[on], body=BODIES[on])],
    )


def _start(rule: Start, deployment_id: UUID) -> AutomationCore:
    return AutomationCore(
        name=f"{NAME_PREFIX}start {rule.schedule} after {rule.after} {rule.on}",
        description=f"Starts {rule.deployment} for {rule.schedule} when a run of {rule.after} ends as {rule.on}.",
        trigger=_trigger(_EVENTS[rule.on], [rule.after]),
        actions=[
            RunDeployment(
                source="selected",
                deployment_id=deployment_id,
                parameters={"schedule_name": rule.schedule, **rule.parameters},
            )
        ],
    )


def _trigger(event: str, schedules: list[str]) -> EventTrigger:
    match: dict[str, Any] = {"prefect.resource.id": f"{event.rpartition('.')[0]}.*"}
    if schedules:
        match["schedule"] = schedules
    return EventTrigger(
        expect={event},
        match=match,
        # Each run triggers the automation by itself. So two runs that end together send two messages.
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )
