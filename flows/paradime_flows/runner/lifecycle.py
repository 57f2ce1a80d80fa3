"""The work for one intent: resume or trigger a Bolt run, wait, retry, archive and clean up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import anyio
from prefect.exceptions import Pause

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
from paradime_blocks.signals import INTERRUPTS
from paradime_blocks.text import one_line
from paradime_blocks.trigger import DecisionLog, TriggerRequest, Verdict, unknown_trigger
from paradime_flows.ledger import FLOW_KEY, FlowRunLedger, Phase, Record, Relation
from paradime_flows.prefect_api import run_logger
from paradime_flows.reporting.failure_cause import outcome_text
from paradime_flows.retry_policy import retry_of, why_not_retry
from paradime_flows.runner.begin import open_intent
from paradime_flows.runner.conflict import Skipped, Triggering
from paradime_flows.runner.policies import RunPolicies
from paradime_flows.supervision import (
    Action,
    Event,
    StoppedByPrefect,
    archive_of,
    check_not_stopped,
    clean_up_interrupted,
    decide,
    describe_run,
    find_run,
    reason_in,
    reason_to_stop_if_known,
    remaining_seconds,
    unless_stopped,
)

if TYPE_CHECKING:
    from paradime_blocks.polling import Observation
    from paradime_flows.reporting.archive import Archive


@dataclass(eq=False)
class RunLifecycle:
    """Runs a schedule once for a flow run, even if the flow run crashes or is retried.

    `request` is the caller's request; the request in `record` may be a retry of it. `watcher` is called after each poll
    of the Bolt run, but not after a poll of a conflicting Bolt run.
    """

    schedule: BoltSchedule
    record: Record
    policies: RunPolicies
    request: TriggerRequest
    watcher: Callable[[BoltRun, Observation], Awaitable[None]] | None = None
    differs: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        schedule, policy = self.schedule, self.policies.on_already_running
        self.ledger = FlowRunLedger(self.record, schedule.timeout_seconds, check=check_not_stopped)
        self.decision_log = DecisionLog(self.record.notes, log=lambda sentence: run_logger().info(sentence))
        self.triggering = Triggering(schedule, self.ledger, self.decision_log, policy, self.request)

    @classmethod
    async def begin(
        cls,
        schedule: BoltSchedule,
        flow_run_id: UUID,
        policies: RunPolicies,
        *,
        request: TriggerRequest | None = None,
        key: str = FLOW_KEY,
        watcher: Callable[[BoltRun, Observation], Awaitable[None]] | None = None,
    ) -> RunLifecycle:
        """Take the lease on a flow run, find or make the record of the intent, and return the lifecycle."""
        record, request = await open_intent(schedule, flow_run_id, policies, request, key)
        return cls(schedule, record, policies, request, watcher)

    @property
    def run(self) -> BoltRun | None:
        """The current Bolt run."""
        if self.record.run_id is None:
            return None
        cancels = decide(self.record, Event.TIME_LIMIT) is Action.CANCEL
        return replace(self.schedule.attach(self.record.run_id), cancel_on_timeout=cancels)

    async def obtain(self) -> BoltRun:
        """Resume the Bolt run that this flow run already tracks. If there is none, trigger one (`Triggering.run`)."""
        run = await self._resume()
        if run is not None:
            return run
        # If there is a `failed_run`, an earlier execution of the flow run ended before it had retried this Bolt run.
        failed = self.record.failed_run
        request = self.request if failed is None else retry_of(self.request, failed)
        if request.retry_of is not None:
            await self._count_retried(request.retry_of)
        return await self._start(request)

    async def _start(self, request: TriggerRequest) -> BoltRun:
        try:
            await unless_stopped(partial(self.triggering.run, request), self.record.flow_run_id)
        except Skipped:
            if self.record.failed_run is None:
                raise
            self.stop_retrying("The schedule is already running, and the policy is to skip")
        run = self.run
        assert run is not None  # noqa: S101 - the ledger has the run's id
        return run

    def stop_retrying(self, why: str) -> None:
        """Make this attempt of the flow run report the failure of the Bolt run, and retry no Bolt run any more."""
        self.decision_log.note(f"{why}, so the failed run is not retried.")
        self.policies = replace(self.policies, retries=0)

    async def _count_retried(self, run_id: int) -> None:
        """Add the Bolt run that the caller asked to retry to the attempts. The limit `retries` ignores this run."""
        async with self.schedule.credentials.get_client() as client:
            status = await client.get_bolt_run(run_id, logs=False)
        known = len(self.record.attempts)
        self.record.count_attempt(run_id, status.state)
        self.record.earlier += len(self.record.attempts) - known

    async def _resume(self) -> BoltRun | None:
        record = self.record
        action = decide(record, Event.BEGUN)
        if action is Action.RESUME:
            self.decision_log.note(
                f"Resuming Bolt run {record.run_id} from an earlier attempt of this flow run."
            )
            # An earlier attempt may have seen an outage, but this attempt has not. Hooks read this value.
            record.unreachable = False
            await self.ledger.resumed()
            return self.run
        if record.run_id is not None:
            ended = record.state is not None and record.state.is_terminal
            past = f"ended as {record.state}" if ended else "was left running at its time limit"
            self.decision_log.note(
                f"Bolt run {record.run_id} {past}. This outcome was already reported; triggering a new run."
            )
            self.record.count_attempt(record.run_id, record.state)
            record.earlier = len(record.attempts)
            record.intent = None
            return None
        if action is not Action.SEARCH:
            return None
        self.decision_log.note(
            "An earlier attempt of this flow run may have triggered a run; searching for this run."
        )
        search = partial(find_run, record, self.schedule.credentials, self.decision_log)
        finding = await unless_stopped(search, record.flow_run_id)
        if decide(record, Event.BEGUN, is_absent=finding.verdict is Verdict.ABSENT) is Action.REFUSE:
            what = "An earlier attempt may have triggered a run, but it is unknown whether a run started."
            raise unknown_trigger(what, record.schedule, finding)
        if finding.verdict is Verdict.FOUND:
            await self.ledger.started(finding.run_id)
        return self.run

    async def wait(self, run: BoltRun) -> BoltRunState:
        """Wait until the Bolt run has ended, and watch for a cancel of the flow run in Prefect."""
        limit = self.schedule.timeout_seconds

        async def watch(seen: Observation) -> None:
            if self.ledger.seen is None:
                await self.ledger.save()
            self.ledger.saw(run.run_id, seen.status)
            if self.watcher is not None:
                await self.watcher(run, seen)

        async def wait() -> BoltRunState:
            remaining = await remaining_seconds(self.record, self.schedule.credentials, limit)
            return await run.await_for_completion(remaining, watcher=watch, whole_seconds=limit)

        self.record.state = await unless_stopped(wait, self.record.flow_run_id)
        return self.record.state

    async def result(self, run: BoltRun) -> BoltRunResult:
        """Return the result of the Bolt run, with all attempts. If the Bolt run did not succeed, raise why."""
        result = await run.afetch_result()
        attempts = [*self.record.attempts, *result.attempts]
        if self.record.relation is Relation.ATTACHED:
            self.differs = await self.triggering.how_it_differs(run)
        return result.model_copy(update={"attempts": attempts, "differs": self.differs})

    def is_retried(self, run: BoltRun, error: BoltRunFailed) -> bool:
        """Whether a failed Bolt run is retried: the policy allows a retry, and the retry may help."""
        if self._retries_of(run) >= self.policies.retries:
            return False
        reason = why_not_retry(error, self.policies.non_retryable_errors)
        if reason is not None:
            self.decision_log.note(
                f"Bolt run {run.run_id} failed. It is not retried, since a retry would also fail: {one_line(reason)}"
            )
        return reason is None

    def _retries_of(self, run: BoltRun) -> int:
        """Return how many failed Bolt runs were retried before this one."""
        counted = self.record.attempts[self.record.earlier :]
        return sum(each.state in BoltRunState.FAILURES for each in counted if each.run_id != run.run_id)

    async def retry(self, run: BoltRun, error: BoltRunFailed) -> BoltRun:
        """Retry a failed Bolt run from its failed command. If the policy skips the retry, return the failed run."""
        request = retry_of(self.request, run.run_id)
        state = self.record.state = BoltRunState(str(error.state))
        # At the end, only the last Bolt run is archived. So the failed Bolt run is archived now.
        await archive_of(self.record, self.schedule.credentials, outcome_text(error)).run()
        self.record.count_attempt(run.run_id, state)
        self.record.failed_run = run.run_id
        self.decision_log.note(
            f"Bolt run {run.run_id} failed; retry {self._retries_of(run) + 1} of {self.policies.retries} "
            f"in {self.policies.retry_delay_seconds:g} s."
        )
        # With `reported=False`, the next execution of the flow run retries the failed run if this process crashes now.
        await self.ledger.close(state, reported=False)
        await unless_stopped(partial(anyio.sleep, self.policies.retry_delay_seconds), self.record.flow_run_id)
        return await self._start(request)

    async def finish(self, outcome: BaseException | None) -> Archive:
        """Archive the Bolt run, then write the outcome to the record. The summary shows the error, if any."""
        record = self.record
        if isinstance(outcome, BoltRunError) and outcome.state is not None:
            record.state = BoltRunState(str(outcome.state))
        sentence = outcome.cause if isinstance(outcome, BoltError) else (str(outcome) if outcome else None)
        if sentence:
            self.decision_log.note(sentence)
        archive = archive_of(record, self.schedule.credentials, outcome_text(outcome) or self.differs)
        await archive.run()
        # If another process runs the flow run now, this call raises an error: that process still needs the open record.
        await reason_to_stop_if_known(record.flow_run_id)
        left = isinstance(outcome, BoltRunTimedOut) and decide(record, Event.TIME_LIMIT) is Action.LEAVE
        if left or (record.state is not None and record.state.is_terminal):
            # If the error is an outage between a failure and its retry, the failure is not reported yet.
            reported = outcome is None or isinstance(outcome, BoltRunError)
            await self.ledger.close(record.state, reported=reported or record.phase is Phase.REPORTED)
        else:
            await self.ledger.save()
        return archive

    @asynccontextmanager
    async def cleaning_up(self) -> AsyncIterator[None]:
        """Clean up the Bolt run if the work in the `with` block is stopped or interrupted."""
        try:
            yield
        except (StoppedByPrefect, *INTERRUPTS) as error:
            await clean_up_interrupted(self.record, self.schedule.credentials, error)
            raise

    async def clean_up_if_cancelled(self) -> str | None:
        """If the flow run was cancelled, return a message, and clean up a Bolt run that may still be running."""
        stop, seen = None, self.ledger.seen
        # A suspension comes too late for the Bolt run, and Prefect itself reports the suspension.
        with suppress(Pause):
            stop = reason_in([seen]) if seen else await reason_to_stop_if_known(self.record.flow_run_id)
        if stop is None or stop.event is not Event.CANCELLED:
            return None
        if self.record.is_open:
            await clean_up_interrupted(self.record, self.schedule.credentials, stop)
        return f"{stop.reason}{describe_run(self.record, stop.event)}"
