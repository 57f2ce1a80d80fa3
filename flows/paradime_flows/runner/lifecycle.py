"""The lifecycle of one intent: resumes or triggers a Bolt run, waits, retries, archives and cleans up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import anyio

from paradime_blocks import (
    BoltError,
    BoltRun,
    BoltRunError,
    BoltRunFailed,
    BoltRunResult,
    BoltRunState,
    BoltRunTimedOut,
    BoltSchedule,
)
from paradime_blocks.signals import INTERRUPTS, signals_held_off, to_the_end
from paradime_blocks.text import one_line
from paradime_blocks.trigger import DecisionLog, TriggerRequest, Verdict, unknown_trigger
from paradime_flows.ledger import FLOW_KEY, FlowRunLedger, Ownership
from paradime_flows.prefect_api import resend_swallowed_signals, run_logger
from paradime_flows.reporting.failure_cause import outcome_text
from paradime_flows.retry_policy import retry_of, why_not_retry
from paradime_flows.runner.attached import check_what_it_did
from paradime_flows.runner.begin import open_intent
from paradime_flows.runner.conflict import Skipped, Triggering
from paradime_flows.runner.policies import RunPolicies
from paradime_flows.supervision import (
    StoppedByPrefect,
    archive_ownership,
    cancel_in_prefect,
    check_not_stopped,
    clean_up_interrupted,
    describe_run,
    find_run,
    note_start,
    reason_to_stop_if_known,
    remaining_seconds,
    summarize,
    unless_stopped,
)

if TYPE_CHECKING:
    from paradime_blocks.polling import Observation
    from paradime_flows.reporting.archive import Archive

RunWatcher = Callable[[BoltRun, "Observation"], Awaitable[None]]


class RunLifecycle:
    """Runs a schedule for a flow run, once, even if the flow run crashes or is retried.

    Args:
        schedule: The schedule to run.
        ownership: The record of the intent. It was read from the flow run's labels, or is new.
        policies: What to do when something goes wrong.
        request: What to trigger. By default, the schedule is triggered without changes.
        watcher: Awaited with every poll of the Bolt run, but not with a poll of a conflicting Bolt run.
    """

    def __init__(
        self,
        schedule: BoltSchedule,
        ownership: Ownership,
        policies: RunPolicies,
        *,
        request: TriggerRequest | None = None,
        watcher: RunWatcher | None = None,
    ) -> None:
        self.schedule = schedule
        # The request in `ownership` may be a retry.
        self.request = request or schedule.request()
        self.policies = policies
        self.watcher = watcher
        self.ownership = ownership
        self.ledger = FlowRunLedger(
            ownership, schedule.timeout_seconds, check=check_not_stopped, note_start=note_start
        )
        self.decision_log = DecisionLog(ownership.notes, log=run_logger().info)
        self.triggering = Triggering(
            schedule, self.ledger, self.decision_log, policies.on_already_running, self.request
        )
        self.differs: str | None = None

    @classmethod
    async def begin(
        cls,
        schedule: BoltSchedule,
        flow_run_id: UUID,
        policies: RunPolicies,
        *,
        request: TriggerRequest | None = None,
        key: str = FLOW_KEY,
        watcher: RunWatcher | None = None,
    ) -> RunLifecycle:
        """Begin, or begin again, the lifecycle of an intent of a flow run.

        Raises:
            StoppedByPrefect, Superseded, BoltError: As in `open_intent`.
        """
        ownership, request = await open_intent(schedule, flow_run_id, policies, request, key)
        return cls(schedule, ownership, policies, request=request, watcher=watcher)

    @property
    def run(self) -> BoltRun | None:
        """The handle of the current Bolt run."""
        if self.ownership.run_id is None:
            return None
        return BoltRun(
            run_id=self.ownership.run_id,
            credentials=self.schedule.credentials,
            schedule_name=self.ownership.schedule,
            cancel_on_timeout=self.ownership.owned and self.policies.on_timeout == "cancel",
            timeout_seconds=self.schedule.timeout_seconds,
            poll_interval_seconds=self.schedule.poll_interval_seconds,
            max_outage_seconds=self.schedule.max_outage_seconds,
            cancel_grace_seconds=self.schedule.cancel_grace_seconds,
        )

    async def obtain(self) -> BoltRun:
        """Resume the Bolt run that this flow run already tracks, or else trigger a Bolt run.

        Raises:
            Skipped: The schedule is already running, and the policy is `skip`.
            BoltTriggerUnknown: It is unknown whether a Bolt run started.
            BoltError: The search after the error found no Bolt run that our trigger started.
        """
        run = await self._resume()
        if run is not None:
            return run
        # An earlier execution of the flow run may have died just before it retried a Bolt run.
        failed = self.ownership.failed_run
        request = self.request if failed is None else retry_of(self.request, failed)
        if request.retry_of is not None:
            await self._count_retried(request.retry_of)
        return await self._start(request)

    async def _start(self, request: TriggerRequest) -> BoltRun:
        """Trigger or retry, and watch the flow run: the search after a lost answer must not delay a cancel.

        Returns:
            The handle of the new Bolt run. If the policy is to skip the retry, the handle of the failed Bolt run.
        """

        async def start() -> None:
            if request.retry_of is None:
                await self.triggering.run(request)
            else:
                await self.triggering.retry_or_rest(request, request.retry_of, self.request)

        try:
            await unless_stopped(start, self.ownership.flow_run_id)
        except Skipped:
            if self.ownership.failed_run is None:
                raise
            self.stop_retrying("The schedule is already running, and the policy is to skip")
        return self._started()

    def stop_retrying(self, why: str) -> None:
        """Do not retry Bolt runs any more in this attempt of the flow run. If a Bolt run fails, report the failure."""
        self.decision_log.note(f"{why}: the failed run is not retried.")
        self.policies = replace(self.policies, retries=0)

    async def _count_retried(self, run_id: int) -> None:
        """Add the Bolt run that the caller asked us to retry to the attempts. Do not count it for `retries`."""
        async with self.schedule.credentials.get_client() as client:
            status = await client.get_bolt_run(run_id, logs=False)
        known = len(self.ownership.attempts)
        self.ownership.count_attempt(run_id, status.state)
        self.ownership.earlier += len(self.ownership.attempts) - known

    def _started(self) -> BoltRun:
        run = self.run
        assert run is not None  # noqa: S101 - the ledger has the run's id
        return run

    async def _resume(self) -> BoltRun | None:
        ownership = self.ownership
        if ownership.run_id is not None and (
            not ownership.reported or ownership.state == BoltRunState.SUCCESS
        ):
            self.decision_log.note(
                f"Resuming Bolt run {ownership.run_id} from an earlier attempt of this flow run."
            )
            # This attempt has not seen an outage. Hooks read this value.
            ownership.unreachable = False
            await self.ledger.save()
            return self.run
        if ownership.run_id is not None:
            ended = ownership.state is not None and ownership.state.is_terminal
            past = f"ended as {ownership.state}" if ended else "was left running at its time limit"
            self.decision_log.note(
                f"Bolt run {ownership.run_id} {past}, which was reported; triggering a new run."
            )
            self.ownership.count_attempt(ownership.run_id, ownership.state)
            ownership.earlier = len(ownership.attempts)
            ownership.intent = None
            return None
        if not ownership.has_unknown_run:
            return None
        self.decision_log.note(
            "An earlier attempt of this flow run may have triggered a run; searching for it."
        )
        finding = await unless_stopped(
            lambda: find_run(ownership, self.schedule.credentials, self.decision_log), ownership.flow_run_id
        )
        if finding.verdict is Verdict.UNSURE:
            raise unknown_trigger(
                "An earlier attempt may have triggered a run, but it is unknown whether a run started.",
                ownership.schedule,
                finding,
            )
        if finding.verdict is Verdict.FOUND:
            await self.ledger.started(self._started().run_id, adopted=True)
        return self.run

    async def wait(self, run: BoltRun) -> BoltRunState:
        """Wait until the Bolt run has ended, and watch for a cancel of the flow run in Prefect.

        Raises:
            StoppedByPrefect: The flow run was cancelled.
            BoltError: As in `BoltRun.wait_for_completion`.
        """

        async def wait() -> BoltRunState:
            limit = self.schedule.timeout_seconds
            return await run.await_for_completion(
                await remaining_seconds(self.ownership, self.schedule.credentials, limit),
                watcher=partial(self._watch, run),
                whole_seconds=limit,
            )

        state = await unless_stopped(wait, self.ownership.flow_run_id)
        self.ownership.state = state
        return state

    async def _watch(self, run: BoltRun, seen: Observation) -> None:
        await self.ledger.save_again()
        if self.watcher is not None:
            await self.watcher(run, seen)

    async def result(self, run: BoltRun) -> BoltRunResult:
        """Return the result of the Bolt run, with all attempts.

        Raises:
            BoltRunError: The Bolt run did not succeed.
            BoltAlreadyRunning: Another client's run did not do what was requested; the policy is `attach_if_same`.
        """
        result = await run.afetch_result()
        attempts = [*self.ownership.attempts, *result.attempts]
        if self.ownership.attached:
            self.differs = await check_what_it_did(run, self.request, self.ownership, self.policies)
        return result.model_copy(update={"attempts": attempts, "differs": self.differs})

    async def retry(self, run: BoltRun, error: BoltRunFailed) -> BoltRun | None:
        """Retry a failed Bolt run from its failed command, if the policy allows another retry.

        Returns:
            The handle of the new Bolt run; None if the failed run is not retried.
        """
        counted = self.ownership.attempts[self.ownership.earlier :]
        before = [attempt for attempt in counted if attempt.run_id != run.run_id]
        done = len([attempt for attempt in before if attempt.state in BoltRunState.FAILURES])
        if done >= self.policies.retries:
            return None
        reason = why_not_retry(error, self.policies.non_retryable_errors)
        if reason is not None:
            self.decision_log.note(
                f"Bolt run {run.run_id} failed and is not retried, since a retry would also fail: {one_line(reason)}"
            )
            return None
        request = retry_of(self.request, run.run_id)
        state = BoltRunState(str(error.state))
        self.ownership.state = state
        # The logs of the next attempt replace the logs of this attempt.
        await archive_ownership(self.ownership, self.schedule.credentials, outcome=outcome_text(error))
        self.ownership.count_attempt(run.run_id, state)
        self.ownership.failed_run = run.run_id
        self.decision_log.note(
            f"Bolt run {run.run_id} failed; retry {done + 1} of {self.policies.retries} "
            f"in {self.policies.retry_delay_seconds:g} s."
        )
        # The failure is not reported: if this process crashes now, the next execution retries the failed run.
        await self.ledger.close(state, reported=False)
        delay = partial(anyio.sleep, self.policies.retry_delay_seconds)
        await unless_stopped(delay, self.ownership.flow_run_id)
        return await self._start(request)

    async def summarize(self, outcome: str | None) -> None:
        """Write the summary of an intent: we do not wait for its Bolt run, or it has none."""
        await summarize(self.ownership, self.schedule.credentials, outcome=outcome)

    async def finish(self, outcome: BaseException | None) -> Archive:
        """Archive the Bolt run, then write how it ended to the record. The summary shows what went wrong."""
        ownership = self.ownership
        if isinstance(outcome, BoltRunError) and outcome.state is not None:
            ownership.state = BoltRunState(str(outcome.state))
        sentence = outcome.message if isinstance(outcome, BoltError) else (str(outcome) if outcome else None)
        if sentence:
            self.decision_log.note(sentence)
        async with resend_swallowed_signals():
            archive = await archive_ownership(
                ownership, self.schedule.credentials, outcome=outcome_text(outcome) or self.differs
            )
        # If another process runs the flow run now, this raises: that process needs the record to stay open.
        await reason_to_stop_if_known(ownership.flow_run_id)
        left_on_purpose = isinstance(outcome, BoltRunTimedOut) and self.policies.on_timeout == "leave"
        if left_on_purpose or (ownership.state is not None and ownership.state.is_terminal):
            # If an outage came between the failure and the retry, the failure is not reported yet.
            reported = outcome is None or isinstance(outcome, BoltRunError)
            await self.ledger.close(ownership.state, reported=reported or ownership.reported)
        else:
            await self.ledger.save()
        return archive

    @asynccontextmanager
    async def cleaning_up(self) -> AsyncIterator[None]:
        """Clean up the Bolt run if the work in the `with` block is stopped or interrupted."""
        try:
            yield
        except (StoppedByPrefect, *INTERRUPTS) as error:
            # When Prefect's time limit is reached, every await here is cancelled once more.
            with signals_held_off():
                stop = error if isinstance(error, StoppedByPrefect) else None
                await to_the_end(clean_up_interrupted(self.ownership, self.schedule.credentials, stop))
            raise

    async def clean_up_if_cancelled(self) -> str | None:
        """If the flow run was cancelled, clean up a Bolt run that is still open, for example after an outage.

        Returns:
            A message about the cancel; None if nobody has cancelled the flow run.
        """
        stop = await cancel_in_prefect(self.ownership.flow_run_id)
        if stop is None:
            return None
        if self.ownership.is_open:
            cancel = StoppedByPrefect(stop.reason, ends_process=stop.ends_process)
            await clean_up_interrupted(self.ownership, self.schedule.credentials, cancel)
        return f"{stop.reason}{describe_run(self.ownership)}"
