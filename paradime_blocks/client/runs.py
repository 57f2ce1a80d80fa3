"""The client's calls about runs: trigger, retry, cancel, read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio

from paradime_blocks.client import operations as ops
from paradime_blocks.client.aliased_reads import AliasedReads, sorted_out
from paradime_blocks.client.inputs import (
    LARGEST_PAGE,
    check_count,
    check_id,
    check_schedule,
    trigger_variables,
)
from paradime_blocks.client.replies import NO_CAPABILITY
from paradime_blocks.client.retry import call_with_retries
from paradime_blocks.errors import BoltAuthError, BoltRequestError, BoltUnsupported
from paradime_blocks.models import (
    BoltRunPage,
    BoltRunRecord,
    BoltRunState,
    BoltRunStatus,
    BoltScheduleDetail,
)
from paradime_blocks.models.ends import settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from typing_extensions import Unpack

    from paradime_blocks.client.shared_polls import SharedPoll
    from paradime_blocks.errors import BoltError
    from paradime_blocks.options import TriggerOptions


class RunCalls(AliasedReads):
    """Calls about runs."""

    async def trigger_bolt_run(self, schedule_name: str, **options: Unpack[TriggerOptions]) -> int:
        """Trigger a run of a schedule. The trigger is sent again only if Bolt cannot have processed it.

        Args:
            schedule_name: The schedule's name or slug.
            options: The options of the trigger. `TriggerOptions` describes each option.

        Returns:
            The id of the run.

        Raises:
            BoltAlreadyRunning: The schedule is already running.
            BoltUnavailable: The answer to the trigger was lost; `may_have_acted` says whether a run may have started.
            BoltRequestError: The input is invalid, or Bolt refused the trigger.
            BoltAuthError: Bolt refused the credentials.
        """
        variables = trigger_variables(schedule_name, **options)
        return await self._new_run(ops.TRIGGER_BOLT_RUN, variables)

    async def retry_bolt_run(self, run_id: int, *, everything: bool = False) -> int:
        """Retry a run by a new run. The request is sent again only if Bolt cannot have processed it.

        Args:
            run_id: The id of the run to retry.
            everything: True to run all commands again; False to run only what failed.

        Returns:
            The id of the new run.

        Raises:
            BoltUnsupported: The backend does not have the operation.
            BoltError: The errors of `trigger_bolt_run`.
        """
        operation = ops.RETRY_ALL_BOLT_RUN if everything else ops.RETRY_BOLT_RUN
        return await self._new_run(operation, {"scheduleRunId": check_id("run_id", run_id)})

    async def retry_bolt_schedule(self, schedule_name: str) -> int:
        """Retry a schedule's latest failed run from the command that failed (Bolt's `retryBoltRunFromFailure`).

        If the backend does not have this operation, the client lists the schedule's runs and retries the newest
        run that failed.

        Args:
            schedule_name: The schedule's name or slug.

        Returns:
            The id of the new run.

        Raises:
            BoltUnsupported: The backend cannot retry runs at all.
            BoltError: The errors of `trigger_bolt_run`.
        """
        variables = {"slug": check_schedule(schedule_name)}
        try:
            return await self._new_run(ops.RETRY_BOLT_RUN_FROM_FAILURE, variables)
        except BoltUnsupported:
            failed = await self.latest_failed_run(schedule_name)
        if failed is None:
            msg = f"Schedule {schedule_name!r} has no failed run to retry."
            raise BoltRequestError(msg, guidance="Trigger the schedule instead.", schedule_name=schedule_name)
        return await self.retry_bolt_run(failed)

    async def latest_failed_run(self, schedule_name: str) -> int | None:
        """Return the newest failed run among a schedule's latest 50 runs; None if none of these runs has failed.

        Args:
            schedule_name: The schedule's name or slug.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        for run in await self.latest_bolt_runs(schedule_name):
            if run.state in BoltRunState.FAILURES:
                return run.id
        return None

    async def latest_bolt_runs(self, schedule_name: str, *, limit: int = 50) -> list[BoltRunRecord]:
        """Return a schedule's newest runs, newest first. If the backend cannot list runs, return only the latest run.

        Args:
            schedule_name: The schedule's name or slug.
            limit: How many runs to return at most, 1 to 1000.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        try:
            return (await self.list_bolt_runs(schedule_name, limit=limit)).runs
        except BoltUnsupported:
            variables = {"scheduleName": check_schedule(schedule_name)}
            detail = await self._read(ops.BOLT_SCHEDULE_NAME, variables, BoltScheduleDetail)
        if not detail.latest_run_id:
            return []
        status = await self.get_bolt_run(detail.latest_run_id, logs=False)
        return [BoltRunRecord(id=detail.latest_run_id, state=status.state)]

    async def cancel_bolt_run(self, run_id: int) -> bool:
        """Ask Bolt to cancel a run. The request is safe to repeat.

        Args:
            run_id: The id of the run.

        Returns:
            Whether Bolt accepted the request. The run may end later: check its state.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        reply = await self._call(ops.CANCEL_BOLT_RUN, {"scheduleRunId": check_id("run_id", run_id)})
        return bool(isinstance(reply, dict) and reply.get("ok"))

    async def get_bolt_run(self, run_id: int, *, logs: bool = True) -> BoltRunStatus:
        """Return the state and the commands of a run (Bolt's `boltRunStatus`).

        If Bolt still reports an unknown state two minutes after the last command has ended, the state is derived from
        the commands. Then `reported_state` is the state that Bolt reports.

        Args:
            run_id: The id of the run.
            logs: Whether to fetch the commands' output, too.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        operation = ops.BOLT_RUN_STATUS if logs else ops.BOLT_RUN_STATE
        status = await self._read(operation, {"runId": check_id("run_id", run_id)}, BoltRunStatus)
        return settled(status, self.bolt_time())

    async def get_bolt_runs(
        self, run_ids: Sequence[int], *, errors: dict[int, BoltError] | None = None
    ) -> dict[int, BoltRunStatus]:
        """Return the state and the commands of several runs, without logs, with as few requests as the backend allows.

        Args:
            run_ids: The ids of the runs.
            errors: Receives the error of each run that Bolt does not return; the key is the run's id. The result does
                not contain such a run. Without `errors`, the first error is raised.

        Returns:
            The status of each run. The key is the run's id.

        Raises:
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        each = [{"runId": check_id("run_id", run_id)} for run_id in run_ids]
        # A caller that gets the errors of single runs can ask for these runs again, so the other runs do not wait.
        replies = await self._read_each(ops.BOLT_RUN_STATE, each, BoltRunStatus, repeat=errors is None)
        found = sorted_out(dict(zip(run_ids, replies, strict=True)), errors)
        now = self.bolt_time()
        return {id_: settled(reply, now) for id_, reply in found.items()}

    def share_polls(
        self,
        run_id: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> AbstractContextManager[SharedPoll]:
        """Share the polls of a run with all other waits of this event loop that use the same settings.

        Args:
            run_id: The id of the run.
            monotonic: The clock of the wait.
            sleep: The sleep of the wait.

        Returns:
            A context manager with the polls of this wait: `poll` returns the status, and `sleep` waits for the next
            poll.
        """
        shared = self._open_connection().polls
        return shared.join(self, run_id, monotonic=monotonic, sleep=sleep)

    async def list_bolt_runs(
        self, schedule_name: str | None, *, offset: int = 0, limit: int = 20
    ) -> BoltRunPage:
        """Return one page of the runs of a schedule, or of all schedules, newest first (Bolt's `listBoltRuns`).

        Args:
            schedule_name: The schedule's name or slug; None for the runs of all schedules of the workspace. A run does
                not say to which schedule it belongs.
            offset: How many runs to skip.
            limit: How many runs to return at most, 1 to 1000.

        Raises:
            BoltUnsupported: The backend does not have the operation.
            BoltError: Bolt refused the request, or sent no usable answer.
        """
        variables: dict[str, Any] = {
            "offset": check_count("offset", offset, least=0),
            "limit": check_count("limit", limit, least=1, most=LARGEST_PAGE),
        }
        if schedule_name is not None:
            variables["slug"] = check_schedule(schedule_name)
        return await self._read(ops.LIST_BOLT_RUNS, variables, BoltRunPage)

    async def may_trigger(self) -> bool | None:
        """Ask Bolt whether the key may trigger and cancel. Bolt executes nothing for this question.

        The client sends a mutation that would cancel a run that cannot exist. `@skip` leaves out the mutation's only
        field. If the key may only read, some servers refuse any mutation. Other servers have nothing to execute, so
        they do not refuse this mutation.

        Returns:
            False if Bolt refused the mutation because the key may only read; None if it is unknown whether the key may
            trigger.

        Raises:
            BoltUnavailable: Bolt sent no usable answer.
        """
        operation = ops.CANCEL_BOLT_RUN
        # `__typename` in the reply proves that Bolt answered. Ids begin at 1, so even a server that ignores `@skip`
        # cancels nothing.
        document = "mutation MayTrigger { __typename cancelBoltRun(scheduleRunId: 0) @skip(if: true) { ok } }"
        connection = self._open_connection()
        try:
            await call_with_retries(
                lambda: connection.send_document(operation, document, {}, name="__typename"),
                self.retry_policy,
                sleep=self._sleep,
            )
        except BoltAuthError:
            return False
        except BoltRequestError as error:
            # A GraphQL answer may say it only in the code of an error, and another answer has no GraphQL errors.
            said = f"{error.message} {error.graphql_errors}"
            return False if NO_CAPABILITY.search(said) else None
        return None
