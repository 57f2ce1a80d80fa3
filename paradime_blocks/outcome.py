"""The outcome of a run that has ended: its result, or its error."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from paradime_blocks.client.retry import RetryPolicy, call_with_retries
from paradime_blocks.errors import (
    BoltAuthError,
    BoltError,
    BoltRequestError,
    BoltRunCanceled,
    BoltRunError,
    BoltRunFailed,
    BoltRunSkipped,
    BoltUnavailable,
)
from paradime_blocks.models import (
    BoltResource,
    BoltResourceSummary,
    BoltRunResult,
    BoltRunState,
    BoltRunStatus,
    run_url,
)
from paradime_blocks.polling import POLL_POLICY, Clock, Deadline
from paradime_blocks.text.redaction import Redactor

if TYPE_CHECKING:
    from logging import Logger, LoggerAdapter

    from paradime_blocks.client import BoltClient
    from paradime_blocks.credentials import ParadimeCredentials

T = TypeVar("T")
# The same credentials could read the run before. So a few refusals count as an outage, as during the wait.
_REFUSALS_AT_MOST = 3
# `max_outage_seconds` limits an outage at the end of a run, as it does during the run. So this policy has no limit.
_RESULT_POLICY = RetryPolicy(attempts=sys.maxsize, total_seconds=float("inf"))
_RESOURCES_OUTAGE_SECONDS = 30.0


def facts_of(run_id: int, schedule_name: str | None, state: BoltRunState | None) -> dict[str, Any]:
    """Return the facts that each error about a run has."""
    return {"schedule_name": schedule_name, "run_id": run_id, "state": state, "url": run_url(run_id)}


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        run_id: The id of the run.
        credentials: The credentials of the run's workspace.
        schedule_name: The name of the run's schedule, for messages.
        max_outage_seconds: How long Bolt may be unreachable, in seconds.
        clock: The clock that measures the wait.
        logger: Logs a warning if Bolt does not list the files of a command.
    """

    run_id: int
    credentials: ParadimeCredentials
    schedule_name: str | None
    max_outage_seconds: float
    clock: Clock
    logger: Logger | LoggerAdapter[Any]

    async def fetch(self) -> BoltRunResult:
        """Return the result of a run that succeeded. `BoltRun.afetch_result` lists the errors that are raised."""
        # A single poll fails early. `_patiently` repeats the poll and limits the outage.
        async with (
            self.credentials.get_client(retry_policy=POLL_POLICY) as polling,
            self.credentials.get_client() as client,
        ):
            status = await self._patiently(
                lambda: polling.get_bolt_run(self.run_id, logs=False), self.max_outage_seconds
            )
            error = await self._error_of(client, status)
            if error is not None:
                raise error
            return await self._result_of(polling, status)

    async def _patiently(self, read: Callable[[], Awaitable[T]], outage_seconds: float) -> T:
        outage = Deadline(outage_seconds, self.clock)
        refusals = 0

        def is_worth_another_try(error: BaseException) -> bool:
            nonlocal refusals
            refusals += isinstance(error, (BoltRequestError, BoltAuthError))
            return (
                isinstance(error, (BoltUnavailable, BoltRequestError, BoltAuthError))
                and refusals <= _REFUSALS_AT_MOST
                and not outage.passed
            )

        return await call_with_retries(
            read, _RESULT_POLICY, retry=is_worth_another_try, sleep=self.clock.sleep
        )

    async def _resources_of(self, client: BoltClient, status: BoltRunStatus) -> dict[int, list[BoltResource]]:
        """Return the files of each command. The key is the command's id. If Bolt does not list files, log a warning."""
        command_ids = [command.id for command in status.commands]
        errors: dict[int, BoltError] = {}
        try:
            found = await self._patiently(
                lambda: client.get_bolt_command_resources(command_ids, errors=errors),
                min(_RESOURCES_OUTAGE_SECONDS, self.max_outage_seconds),
            )
        except BoltError as error:
            errors, found = {0: error}, {}
        for missed in errors.values():
            self.logger.warning("The files of Bolt run %s could not be listed: %s", self.run_id, missed)
        return found

    async def _result_of(self, client: BoltClient, status: BoltRunStatus) -> BoltRunResult:
        # The code that reads dbt's files is needed only at the end of a run.
        from paradime_blocks.dbt.digest import not_read  # noqa: PLC0415

        resources = await self._resources_of(client, status)
        # Prefect stores and shows results, and a command may contain a secret: `git clone https://user:token@...`.
        redact = Redactor.of(self.credentials)
        result = BoltRunResult.of(
            self.run_id,
            redact.status(status),
            schedule_name=self.schedule_name,
            resources=[
                BoltResourceSummary(id=resource.id, path=resource.path, command_id=command_id)
                for command_id, found in resources.items()
                for resource in found
            ],
        )
        return result.model_copy(update={"dbt": not_read([each.path for each in result.resources], redact)})

    async def _error_of(self, client: BoltClient, status: BoltRunStatus) -> BoltRunError | None:
        """Return the error for a run that did not succeed; None if the run ended in state SUCCESS."""
        state = status.state
        if state == BoltRunState.SUCCESS:
            return None
        facts = facts_of(self.run_id, self.schedule_name, state)
        if not state.is_terminal:
            return BoltRunError(
                "The Bolt run has not ended yet.", guidance="Wait until the Bolt run has ended.", **facts
            )
        if state == BoltRunState.SKIPPED:
            return BoltRunSkipped("Bolt skipped the run.", **facts)
        command = status.decisive_command
        if command is not None:
            from paradime_blocks.dbt.errors import failure_facts  # noqa: PLC0415 - as above

            facts.update(await failure_facts(client, command, self.credentials))
        if state == BoltRunState.CANCELED:
            return BoltRunCanceled("The Bolt run was cancelled.", **facts)
        if command is None:
            return BoltRunFailed(
                "The Bolt run failed, although none of its commands failed.",
                guidance="Check the reason on the run's page in Paradime.",
                **facts,
            )
        return BoltRunFailed("The Bolt run failed.", **facts)
