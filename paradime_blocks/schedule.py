"""The `BoltSchedule` block: a schedule, how to run it, and how long to wait for its runs."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from prefect.blocks.abstract import JobBlock
from pydantic import Field, ValidationInfo, field_validator

from paradime_blocks.branding import DOCUMENTATION_URL, LOGO_URL
from paradime_blocks.client.inputs import check_commands, check_text
from paradime_blocks.credentials import ParadimeCredentials
from paradime_blocks.errors import BoltAlreadyRunning, BoltError
from paradime_blocks.models import BoltRunResult
from paradime_blocks.options import LONGEST_TIMEOUT_SECONDS, Plain, TriggerOptions, chosen
from paradime_blocks.polling import (
    CANCEL_GRACE_SECONDS,
    MAX_OUTAGE_SECONDS,
    POLL_INTERVAL_SECONDS,
    TIMEOUT_SECONDS,
)
from paradime_blocks.run import BoltRun
from paradime_blocks.signals import INTERRUPTS, signals_held_off, to_the_end
from paradime_blocks.sync import sync_form
from paradime_blocks.trigger.decision_log import DecisionLog
from paradime_blocks.trigger.request import RunLedger, TriggerIntent, TriggerRequest
from paradime_blocks.trigger.send import Trigger

if TYPE_CHECKING:
    from typing_extensions import Unpack

_WHILE_IT_RUNS = (
    "Wait for the running Bolt run with attach(run_id).wait_for_completion(), or trigger the schedule again when that "
    "Bolt run has ended. The flow run_schedule can do both for you: see its option on_already_running."
)
# This pattern is for Prefect's server, which knows the schema but not the validators. The pattern is not a constraint
# of the field, so that an error has the message of a validator.
_ONE_LINE: dict[str, Any] = {"pattern": r"^[^\x00-\x1f\x7f]*$"}


class MemoryLedger:
    """A ledger for a caller without a flow run. The ledger keeps the Bolt run's id in memory and stores nothing."""

    run_id: int | None = None

    async def intend(self, request: TriggerRequest, intent: TriggerIntent) -> None:
        """Store nothing."""

    async def started(self, run_id: int) -> None:
        """Keep the run's id, so that the run can be cancelled if the caller is interrupted."""
        self.run_id = run_id

    async def withdraw(self) -> None:
        """Store nothing."""


class BoltSchedule(JobBlock[BoltRunResult]):
    """A Bolt schedule, ready to be triggered.

    Args:
        credentials: The credentials of the schedule's workspace.
        schedule_name: The schedule's name as Paradime shows it, or its slug.
        commands: Commands that replace the schedule's commands in Bolt.
        branch: A git branch or commit that replaces the schedule's branch in Bolt.
        timeout_seconds: How long a run may take, in seconds from its trigger.
        poll_interval_seconds: The longest time between two polls of a run, in seconds.
        max_outage_seconds: How long Bolt may be unreachable before the wait fails, in seconds.
        cancel_grace_seconds: How long a run may take to end after a cancel, in seconds.

    Raises:
        pydantic.ValidationError: A field is invalid; the message says what to type.

    Example:
        Load a saved schedule and run it:
        ```python
        from paradime_blocks import BoltSchedule

        run = BoltSchedule.load("BLOCK_NAME").trigger()
        run.wait_for_completion()
        result = run.fetch_result()
        ```
    """

    _block_type_name = "Bolt Schedule"
    _block_type_slug = "bolt-schedule"
    _logo_url = LOGO_URL  # type: ignore[assignment]
    _documentation_url = DOCUMENTATION_URL  # type: ignore[assignment]
    _description = (
        "A Paradime Bolt schedule: what to run with which credentials, and how long to wait for its runs."
    )

    model_config: ClassVar[Any] = {"hide_input_in_errors": True}

    credentials: ParadimeCredentials = Field(
        default=..., title="Credentials", description="The credentials of the schedule's Paradime workspace."
    )
    schedule_name: str = Field(
        default=...,
        title="Schedule name",
        description="The schedule's name as Paradime shows it, or its slug.",
        examples=["daily"],
        json_schema_extra=_ONE_LINE,
    )
    commands: Plain[list[str]] = Field(
        default=None,
        title="Commands",
        description="Commands that replace the schedule's commands. If empty, the schedule's commands are used.",
        examples=[["dbt run", "dbt test"]],
    )
    branch: Plain[str] = Field(
        default=None,
        title="Branch or commit",
        description="A git branch or commit that replaces the schedule's branch. If empty, that branch is used.",
        json_schema_extra=_ONE_LINE,
    )
    timeout_seconds: float = Field(
        default=TIMEOUT_SECONDS,
        gt=0,
        le=LONGEST_TIMEOUT_SECONDS,
        title="Time limit",
        description="How long a run may take, in seconds from its trigger, before it is cancelled. At most 14 days.",
    )
    poll_interval_seconds: float = Field(
        default=POLL_INTERVAL_SECONDS,
        ge=0.5,
        le=3600,
        title="Poll interval",
        description="The longest time between two polls of a run, in seconds. New runs are polled more often.",
    )
    max_outage_seconds: float = Field(
        default=MAX_OUTAGE_SECONDS,
        ge=0,
        le=LONGEST_TIMEOUT_SECONDS,
        title="Longest outage",
        description=(
            "How long Bolt may be unreachable before the wait for a run fails, in seconds. At most 14 days."
        ),
    )
    cancel_grace_seconds: float = Field(
        default=CANCEL_GRACE_SECONDS,
        gt=0,
        le=3600,
        title="Cancel grace",
        description="How long a run may take to end after a cancel, in seconds.",
    )

    @field_validator("branch", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        # Prefect's form sends an empty text for an empty field.
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("schedule_name", "branch")
    @classmethod
    def _text_is_valid(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else _as_value_error(check_text, info.field_name, value, "daily")

    @field_validator("commands")
    @classmethod
    def _commands_are_fit(cls, value: list[str] | None) -> list[str] | None:
        return None if value is None or not value else _as_value_error(check_commands, value)

    def request(
        self,
        *,
        retry_of: int | None = None,
        retry_everything: bool = False,
        **options: Unpack[TriggerOptions],
    ) -> TriggerRequest:
        """Return the request for a trigger of this schedule.

        Args:
            retry_of: The id of a Bolt run to retry. None means a new run of the schedule.
            retry_everything: True if the retry runs all commands again; False if it runs only what failed.
            options: Options that are added to the block's options, or replace them. `TriggerOptions` describes each
                option.

        Raises:
            BoltRequestError: An option is invalid; nothing was sent.
        """
        given: dict[str, Any] = {"commands": self.commands or None, "branch": self.branch}
        given.update(chosen(TriggerOptions, options))
        return TriggerRequest(
            self.schedule_name,
            chosen(TriggerOptions, given),
            retry_of=retry_of,
            retry_everything=retry_everything,
        )

    async def atrigger(
        self,
        *,
        request: TriggerRequest | None = None,
        ledger: RunLedger | None = None,
        decision_log: DecisionLog | None = None,
        **options: Unpack[TriggerOptions],
    ) -> BoltRun:
        """Trigger at most one run.

        The run's id is only in the handle that this method returns. To store the id outside this process, use the flow
        `run_schedule`. If the caller is interrupted during the trigger, the run is cancelled.

        Args:
            request: What to trigger. By default, this is what the method `request` returns.
            ledger: Stores the intent and the run id. By default, nothing is stored.
            decision_log: Keeps the decisions about the trigger. By default, decisions are only written to the Python
                log.
            options: Options that are added to the block's options, or replace them. `TriggerOptions` describes each
                option.

        Returns:
            The handle of the run. The handle cancels the run at the time limit, and if the wait is interrupted.

        Raises:
            BoltAlreadyRunning: The schedule is already running.
            BoltTriggerUnknown: The answer to the trigger was lost, and it is unknown whether a run started.
            BoltError: The trigger failed. The trigger cannot have started a run, or a search in Bolt found no new run.
        """
        memory = MemoryLedger()
        try:
            async with self.credentials.get_client() as client:
                run_id = await Trigger(
                    client,
                    request or self.request(**options),
                    ledger or memory,
                    (decision_log or DecisionLog(log=logging.getLogger(__name__).info)).note,
                    max_outage_seconds=self.max_outage_seconds,
                ).run()
        except BoltAlreadyRunning as error:
            # The flows have a parameter for this case, but the block does not. So the error says what to do instead.
            raise error.with_facts(guidance=_WHILE_IT_RUNS, schedule_name=self.schedule_name) from error
        except INTERRUPTS:
            if memory.run_id is not None:
                with signals_held_off(), suppress(BoltError):
                    await to_the_end(self.attach(memory.run_id).acancel())
            raise
        return self.attach(run_id, owned=True)

    def attach(self, run_id: int, *, owned: bool = False) -> BoltRun:
        """Return the handle of an existing run.

        Args:
            run_id: The id of the run.
            owned: Whether to cancel the run if a time limit or an interrupt ends the wait for the run.
        """
        return BoltRun(
            run_id=run_id,
            credentials=self.credentials,
            schedule_name=self.schedule_name,
            cancel_on_timeout=owned,
            cancel_on_interrupt=owned,
            timeout_seconds=self.timeout_seconds,
            poll_interval_seconds=self.poll_interval_seconds,
            max_outage_seconds=self.max_outage_seconds,
            cancel_grace_seconds=self.cancel_grace_seconds,
        )

    trigger = sync_form(atrigger)  # type: ignore[arg-type, pydantic-field]


def _as_value_error(check: Any, *arguments: Any) -> Any:
    """Call a check of the client in a pydantic validator. Pydantic expects a ValueError instead of a BoltError."""
    try:
        return check(*arguments)
    except BoltError as error:
        raise ValueError(str(error)) from None
