"""One intent of one flow run, from trigger to result: taking up, triggering, waiting, retrying, settling."""

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
    BoltRunTimedOut,
    BoltSchedule,
)
from paradime_blocks.models import BoltAttempt, BoltRunResult, BoltRunState
from paradime_blocks.signals import INTERRUPTS, signals_held_off, to_the_end
from paradime_blocks.text import one_line
from paradime_blocks.trigger import DecisionLog, TriggerRequest, Verdict, unknown_trigger
from paradime_flows.ledger import FLOW_KEY, FlowRunLedger, Ownership
from paradime_flows.prefect_api import run_logger, swallowed_signals_sent_again
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

RunWatcher = Callable[[BoltRun, "Observation"], Awaitable[None]]


class RunLifecycle:
    """Runs a schedule for a flow run, once, whatever happens to either.

    Args:
        schedule: What to run.
        ownership: What the flow run answers for, from its labels or new.
        policies: What is to be done when things do not go straight.
        request: What to trigger, if not just the schedule.
        watcher: Awaited with every look at the Bolt run, but not at one that is in the way.
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
        # The ownership's own request may be that of a retry.
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
            StoppedByPrefect: The flow run was cancelled before this attempt of it began.
            Superseded: Another flow run stands in its place by now.
            BoltError: A flow run whose place it takes was cancelled, and Bolt does not cancel its run.
        """
        ownership, request = await open_intent(schedule, flow_run_id, policies, request, key)
        return cls(schedule, ownership, policies, request=request, watcher=watcher)

    @property
    def run(self) -> BoltRun | None:
        """The handle of the present Bolt run."""
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
        """Take up the run that this flow run answers for already, or else trigger one.

        Raises:
            Skipped: The schedule runs already, and the policy is to skip.
            BoltTriggerUnknown: It cannot be told whether a run started.
            BoltError: Nothing was started, as far as looking could tell.
        """
        run = await self._take_up()
        if run is not None:
            return run
        # A body before this one may have died as it was about to retry a run.
        failed = self.ownership.failed_run
        request = self.request if failed is None else retry_of(self.request, failed)
        if request.retry_of is not None:
            await self._count_retried(request.retry_of)
        return await self._start(request)

    async def _start(self, request: TriggerRequest) -> BoltRun:
        """Trigger or retry, while watching the flow run: looking into a lost answer takes longer than a cancel may.

        Returns:
            The handle of the new run; or of the failed one where the policy is to skip its retry.

        Raises:
            Skipped: The schedule runs already, and the policy is to skip; nothing of ours has failed.
            StoppedByPrefect: The flow run is cancelled in Prefect.
            BoltError: As `Triggering.run`.
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
            self.stop_retrying("The schedule runs already, and the policy is to skip")
        return self._started()

    def stop_retrying(self, why: str) -> None:
        """Retry no failure of this attempt of the flow run: what has failed is told as that."""
        self.decision_log.note(f"{why}: what has failed is not retried.")
        self.policies = replace(self.policies, retries=0)

    async def _count_retried(self, run_id: int) -> None:
        """Count the run that we were asked to retry among the attempts, but not against the retries to come."""
        async with self.schedule.credentials.get_client() as client:
            status = await client.get_bolt_run(run_id, logs=False)
        known = len(self.ownership.attempts)
        self._count(run_id, status.state)
        self.ownership.earlier += len(self.ownership.attempts) - known

    def _started(self) -> BoltRun:
        run = self.run
        assert run is not None  # noqa: S101 - the ledger has been told
        return run

    async def _take_up(self) -> BoltRun | None:
        ownership = self.ownership
        if ownership.run_id is not None and (
            not ownership.reported or ownership.state == BoltRunState.SUCCESS
        ):
            self.decision_log.note(
                f"Bolt run {ownership.run_id} of an earlier attempt of this flow run is taken up again."
            )
            # What hooks are to go by is this attempt's.
            ownership.unreachable = False
            await self.ledger.save()
            return self.run
        if ownership.run_id is not None:
            ended = ownership.state is not None and ownership.state.is_terminal
            told = f"ended as {ownership.state}" if ended else "was left going at its time limit"
            self.decision_log.note(
                f"Bolt run {ownership.run_id} {told}, which was reported; a new run is triggered."
            )
            self._count(ownership.run_id, ownership.state)
            ownership.earlier = len(ownership.attempts)
            ownership.intent = None
            return None
        if not ownership.has_unknown_run:
            return None
        self.decision_log.note(
            "An earlier attempt of this flow run was about to trigger; looking for its run."
        )
        finding = await unless_stopped(
            lambda: find_run(ownership, self.schedule.credentials, self.decision_log), ownership.flow_run_id
        )
        if finding.verdict is Verdict.UNSURE:
            raise unknown_trigger(
                "An earlier attempt was about to trigger, and it cannot be told whether a run started.",
                ownership.schedule,
                finding,
            )
        if finding.verdict is Verdict.FOUND:
            await self.ledger.started(self._started().run_id, adopted=True)
        return self.run

    async def wait(self, run: BoltRun) -> BoltRunState:
        """Wait until the run has ended, while watching whether the flow run is cancelled in Prefect.

        Raises:
            StoppedByPrefect: It is.
            BoltError: As `BoltRun.wait_for_completion`.
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
        """Return the run's result with all attempts.

        Raises:
            BoltRunError: The run did not succeed.
            BoltAlreadyRunning: It was attached to, did something else than was asked for, and the policy is to fail.
        """
        result = await run.afetch_result()
        attempts = [*self.ownership.attempts, *result.attempts]
        if self.ownership.attached:
            self.differs = await check_what_it_did(run, self.request, self.ownership, self.policies)
        return result.model_copy(update={"attempts": attempts, "differs": self.differs})

    async def retry(self, run: BoltRun, error: BoltRunFailed) -> BoltRun | None:
        """Retry a failed run from its failure, if the policy still allows it.

        Returns:
            The handle of the new run; None if there is no retry left.
        """
        counted = self.ownership.attempts[self.ownership.earlier :]
        before = [attempt for attempt in counted if attempt.run_id != run.run_id]
        done = len([attempt for attempt in before if attempt.state in BoltRunState.FAILURES])
        if done >= self.policies.retries:
            return None
        reason = why_not_retry(error, self.policies.non_retryable_errors)
        if reason is not None:
            self.decision_log.note(
                f"Bolt run {run.run_id} failed, and a retry would fail, too: {one_line(reason)}"
            )
            return None
        request = retry_of(self.request, run.run_id)
        state = BoltRunState(str(error.state))
        self.ownership.state = state
        # The next attempt's logs take the place of these.
        await archive_ownership(self.ownership, self.schedule.credentials, outcome=outcome_text(error))
        self._count(run.run_id, state)
        self.ownership.failed_run = run.run_id
        self.decision_log.note(
            f"Bolt run {run.run_id} failed; retry {done + 1} of {self.policies.retries} "
            f"in {self.policies.retry_delay_seconds:g} s."
        )
        # Not reported: whoever takes up here after a crash has this retry still before it.
        await self.ledger.close(state, reported=False)
        await self._pause(self.policies.retry_delay_seconds)
        return await self._start(request)

    def _count(self, run_id: int, state: BoltRunState | None) -> None:
        """Count a run among the attempts, once."""
        attempts = self.ownership.attempts
        if state is not None and run_id not in {attempt.run_id for attempt in attempts}:
            attempts.append(BoltAttempt(run_id=run_id, state=state))

    async def _pause(self, seconds: float) -> None:
        await unless_stopped(lambda: anyio.sleep(seconds), self.ownership.flow_run_id)

    async def tell(self, outcome: str | None) -> None:
        """Write the summary of a run that is not waited for, or of none at all."""
        await summarize(self.ownership, self.schedule.credentials, outcome=outcome)

    async def finish(self, outcome: BaseException | None) -> None:
        """Archive the run, then write down how it ended; whatever went wrong is in the summary."""
        ownership = self.ownership
        if isinstance(outcome, BoltRunError) and outcome.state is not None:
            ownership.state = BoltRunState(str(outcome.state))
        sentence = outcome.message if isinstance(outcome, BoltError) else (str(outcome) if outcome else None)
        if sentence:
            self.decision_log.note(sentence)
        async with swallowed_signals_sent_again():
            await archive_ownership(
                ownership, self.schedule.credentials, outcome=outcome_text(outcome) or self.differs
            )
        # Who has taken up the flow run must find the run still open.
        await reason_to_stop_if_known(ownership.flow_run_id)
        left_on_purpose = isinstance(outcome, BoltRunTimedOut) and self.policies.on_timeout == "leave"
        if left_on_purpose or (ownership.state is not None and ownership.state.is_terminal):
            # An outage after a run has failed, before its retry, tells nobody of that failure.
            told = outcome is None or isinstance(outcome, BoltRunError)
            await self.ledger.close(ownership.state, reported=told or ownership.reported)
        else:
            await self.ledger.save()

    @asynccontextmanager
    async def cleaning_up(self) -> AsyncIterator[None]:
        """Settle what there is to answer for when the work within is stopped or interrupted."""
        try:
            yield
        except (StoppedByPrefect, *INTERRUPTS) as error:
            # Prefect's time limits cancel every await in here again.
            with signals_held_off():
                stop = error if isinstance(error, StoppedByPrefect) else None
                await to_the_end(clean_up_interrupted(self.ownership, self.schedule.credentials, stop))
            raise

    async def clean_up_if_cancelled(self) -> str | None:
        """Settle what there may still be to answer for, such as a run that an outage hides, if nobody wants it.

        Returns:
            What to say of the flow run's own cancel; None if nobody has cancelled it.
        """
        stop = await cancel_in_prefect(self.ownership.flow_run_id)
        if stop is None:
            return None
        if self.ownership.is_open:
            cancel = StoppedByPrefect(stop.reason, ends_process=stop.ends_process)
            await clean_up_interrupted(self.ownership, self.schedule.credentials, cancel)
        return f"{stop.reason}{describe_run(self.ownership)}"
