"""The work for one intent: resume or trigger a Bolt run, wait, retry, archive and clean up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any
from uuid import UUID

import anyio
from prefect.exceptions import Pause

from paradime_blocks import BoltRun, BoltRunResult, BoltRunState, BoltSchedule
from paradime_blocks.errors import BoltError, BoltRunError, BoltRunFailed, BoltRunTimedOut
from paradime_blocks.polling import Observation
from paradime_blocks.signals import INTERRUPTS
from paradime_blocks.text import one_line
from paradime_blocks.trigger import DecisionLog, TriggerRequest
from paradime_flows.choices import OnAlreadyRunning, OnInterrupt, Policy
from paradime_flows.ledger import FLOW_KEY, FlowRunLedger, Record, Relation, attempts_around, top_lease
from paradime_flows.parameters import RetriedRunOptions
from paradime_flows.prefect_api import (
    count_signals,
    current_execution_began_at,
    end_left_task_runs,
    flow_run_url,
    is_rescheduled,
    prefect_client,
    run_logger,
    schedule_tag,
    the_supervisor,
)
from paradime_flows.reporting.archive import Archive
from paradime_flows.reporting.archive_settings import ArchiveSettings
from paradime_flows.reporting.failure_cause import outcome_text
from paradime_flows.retry_policy import DEFAULT_NON_RETRYABLE_ERRORS, retry_of, why_not_retry
from paradime_flows.runner.begin import begin_execution, find_record
from paradime_flows.runner.conflict import Skipped, Triggering
from paradime_flows.supervision import (
    Action,
    Event,
    StoppedByPrefect,
    archive_of,
    check_not_stopped,
    clean_up_interrupted,
    decide,
    find_run,
    reason_in,
    reason_to_stop_if_known,
    remaining_seconds,
    unless_stopped,
)


@dataclass(frozen=True)
class RunPolicies:
    """The attributes mean the same as the parameters of `run_schedule`."""

    retries: int = 0
    retry_delay_seconds: float = 30.0
    non_retryable_errors: Sequence[str] = DEFAULT_NON_RETRYABLE_ERRORS
    on_already_running: OnAlreadyRunning = "wait"
    on_timeout: Policy = "cancel"
    on_interrupt: OnInterrupt = "auto"
    on_crash: Policy = "cancel"
    # Whether the flow run stops tracking the Bolt run when it has started. From then on, nothing cancels it.
    leave: bool = False
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)

    @classmethod
    async def of(cls, options: RetriedRunOptions) -> RunPolicies:
        given: dict[str, Any] = {**options}
        # Without patterns of their own, the default patterns are used.
        chosen = {each.name: given[each.name] for each in fields(cls) if given.get(each.name) is not None}
        return cls(**chosen, archive=await ArchiveSettings.resolve(options))


@dataclass(eq=False)
class RunLifecycle:
    """Runs a schedule once for a flow run, even if the flow run crashes or is retried."""

    schedule: BoltSchedule
    record: Record
    policies: RunPolicies
    # The caller's request. The request in `record` may be a retry of it.
    request: TriggerRequest
    watcher: Callable[[BoltRun, Observation], Awaitable[None]] | None = None
    differs: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        policy = self.policies.on_already_running
        self.ledger = FlowRunLedger(self.record, check=check_not_stopped)
        self.decision_log = DecisionLog(self.record.notes, log=lambda sentence: run_logger().info(sentence))
        self.triggering = Triggering(self.schedule, self.ledger, self.decision_log, policy, self.request)

    @classmethod
    async def begin(
        cls,
        schedule: BoltSchedule,
        flow_run_id: UUID,
        policies: RunPolicies,
        request: TriggerRequest,
        *,
        key: str = FLOW_KEY,
        watcher: Callable[[BoltRun, Observation], Awaitable[None]] | None = None,
    ) -> RunLifecycle:
        """Begin an execution of the flow run, and find or make the record of the intent."""
        count_signals()
        credentials = schedule.credentials
        # Hooks in this process can use credentials that the flow has made in its code.
        workspace = (credentials.api_endpoint, credentials.workspace_uid)
        the_supervisor().of(flow_run_id).credentials[workspace] = credentials
        tags = [schedule_tag(schedule.schedule_name)]
        async with prefect_client() as client:
            flow_run, earlier = await begin_execution(client, flow_run_id, tags)
            if flow_run.run_count > 1:
                why, began_at = "The process of an earlier attempt has ended.", current_execution_began_at()
                await end_left_task_runs(client, flow_run_id, why, begun_before=began_at)
        if request.options.get("reason") is None:
            # Paradime's page shows the reason.
            url = flow_run_url(flow_run.id)
            name = one_line(flow_run.name, 100) or str(flow_run.id)
            request = request.with_options(reason=f"Prefect flow run {name}" + (f" ({url})" if url else ""))
        facts: dict[str, Any] = {
            "lease": top_lease(flow_run.labels),
            "asked": request.fingerprint,
            "called_in": attempts_around(flow_run_id),
            "api_endpoint": credentials.api_endpoint,
            "workspace_uid": credentials.workspace_uid,
            "credentials_block": credentials._block_document_name,  # noqa: SLF001 - no public name
            "on_interrupt": policies.on_interrupt,
            "is_rescheduled": is_rescheduled(),
            "on_crash": policies.on_crash,
            "on_timeout": policies.on_timeout,
            "archive": policies.archive,
            "left": policies.leave,
            "limit_seconds": schedule.timeout_seconds,
        }
        new = Record(key=key, flow_run_id=flow_run_id, request=request, **facts)
        found = await find_record(new, flow_run, earlier, credentials)
        return cls(schedule, (found or new).model_copy(update=facts), policies, request, watcher)

    @property
    def run(self) -> BoltRun:
        assert self.record.run_id is not None  # noqa: S101
        cancels = decide(self.record, Event.TIME_LIMIT) is Action.CANCEL
        return replace(self.schedule.attach(self.record.run_id), cancel_on_timeout=cancels)

    async def obtain(self) -> BoltRun:
        """Resume the Bolt run that this flow run already tracks. If there is none, trigger one (`Triggering.run`)."""
        record = self.record
        if await self._resumes():
            return self.run
        if record.failed_run is None:
            if (retried := self.request.retry_of) is not None:
                record.count_attempt(retried, await self.schedule.attach(retried).astate())
            record.earlier = len(record.attempts)
        return await self._start()

    async def _start(self) -> BoltRun:
        # An earlier execution of the flow run may have ended before it had retried the failed Bolt run.
        failed = self.record.failed_run
        request = self.request if failed is None else retry_of(self.request, failed)
        try:
            await unless_stopped(partial(self.triggering.run, request), self.record.flow_run_id)
        except Skipped:
            if failed is None:
                raise
            self.decision_log.note(
                "The schedule is already running, and the policy is to skip, so the failed run is not retried."
            )
            # Now this attempt reports the failure.
            self.policies = replace(self.policies, retries=0)
        return self.run

    async def _resumes(self) -> bool:
        """Whether there is a Bolt run to resume. If so, write that this execution tracks it."""
        record, note = self.record, self.decision_log.note
        action = decide(record, Event.BEGUN)
        if action is Action.RESUME:
            note(f"Resuming Bolt run {record.run_id} from an earlier attempt of this flow run.")
            # An earlier attempt may have seen an outage, but this attempt has not. Hooks read this value.
            record.unreachable = False
            await self.ledger.track()
        elif record.run_id is not None:
            ended = record.state is not None and record.state.is_terminal
            past = f"ended as {record.state}" if ended else "was left running at its time limit"
            note(f"Bolt run {record.run_id} {past}. This outcome was already reported; triggering a new run.")
            record.count_attempt(record.run_id, record.state)
            record.intent = None
        elif action is Action.SEARCH:
            note("An earlier attempt of this flow run may have triggered a run; searching for this run.")
            search = partial(find_run, record, self.schedule.credentials, self.decision_log)
            finding = await unless_stopped(search, record.flow_run_id)
            if finding.run_id is not None:
                await self.ledger.started(finding.run_id)
            elif decide(record, Event.BEGUN, is_absent=finding.is_absent) is Action.REFUSE:
                what = "An earlier attempt may have triggered a run, but it is unknown whether a run started."
                raise finding.unknown_trigger(what, record.schedule)
            return finding.run_id is not None
        return action is Action.RESUME

    async def wait(self, run: BoltRun) -> None:
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

    async def result(self, run: BoltRun) -> BoltRunResult:
        """Return the result of the Bolt run, with all attempts. If the Bolt run did not succeed, raise why."""
        result = await run.afetch_result()
        attempts = [*self.record.attempts, *result.attempts]
        if self.record.relation is Relation.ATTACHED:
            self.differs = await self.triggering.how_it_differs(run)
        return result.model_copy(update={"attempts": attempts, "differs": self.differs})

    def is_retried(self, run: BoltRun, error: BoltRunFailed) -> bool:
        """Whether a failed Bolt run is retried: the policy allows a retry, and the retry may help."""
        retried = {each.run_id for each in self.record.attempts[self.record.earlier :]} - {run.run_id}
        if len(retried) >= self.policies.retries:
            return False
        if (reason := why_not_retry(error, self.policies.non_retryable_errors)) is not None:
            self.decision_log.note(
                f"Bolt run {run.run_id} failed. It is not retried, since a retry would also fail: {one_line(reason)}"
            )
        return reason is None

    async def retry(self, run: BoltRun, error: BoltRunFailed) -> BoltRun:
        """Retry a failed Bolt run from its failed command. If the policy skips the retry, return the failed run."""
        # At the end, only the last Bolt run is archived. So the failed Bolt run is archived now.
        await archive_of(self.record, self.schedule.credentials, outcome_text(error)).run()
        self.record.count_attempt(run.run_id, self.record.state)
        self.record.failed_run = run.run_id
        number = len(self.record.attempts) - self.record.earlier
        self.decision_log.note(
            f"Bolt run {run.run_id} failed; retry {number} of {self.policies.retries} "
            f"in {self.policies.retry_delay_seconds:g} s."
        )
        # With `reported=False`, the next execution of the flow run retries the failed run if this process crashes now.
        await self.ledger.close(self.record.state, reported=False)
        await unless_stopped(partial(anyio.sleep, self.policies.retry_delay_seconds), self.record.flow_run_id)
        return await self._start()

    async def finish(self, outcome: BaseException | None) -> tuple[Archive, StoppedByPrefect | None]:
        """Archive the Bolt run, and write the outcome to the record. Return why the flow run is to stop, or None."""
        record = self.record
        if isinstance(outcome, BoltRunError) and outcome.state is not None:
            record.state = BoltRunState(str(outcome.state))
        sentence = outcome.cause if isinstance(outcome, BoltError) else str(outcome or "")
        if sentence:
            self.decision_log.note(sentence)
        archive = archive_of(record, self.schedule.credentials, outcome_text(outcome) or self.differs)
        await archive.run()
        # If another process runs the flow run now, this call raises an error: that process still needs the open record.
        stop = await reason_to_stop_if_known(record.flow_run_id)
        left = isinstance(outcome, BoltRunTimedOut) and decide(record, Event.TIME_LIMIT) is Action.LEAVE
        if left or (record.state is not None and record.state.is_terminal):
            # If the error is an outage between a failure and its retry, the failure is not reported yet.
            is_reported = outcome is None or isinstance(outcome, BoltRunError)
            await self.ledger.close(record.state, reported=is_reported)
        else:
            await self.ledger.save()
        if stop is None and self.ledger.seen is not None:
            # A cancel may have come just before this write. A suspension comes too late for the Bolt run.
            with suppress(Pause):
                stop = reason_in([self.ledger.seen])
        if stop is not None and stop.event is Event.CANCELLED and record.is_open:
            await clean_up_interrupted(record, self.schedule.credentials, stop)
        return archive, stop

    @asynccontextmanager
    async def cleaning_up(self) -> AsyncIterator[None]:
        """Clean up the Bolt run if the work in the `with` block is stopped or interrupted."""
        try:
            yield
        except (StoppedByPrefect, *INTERRUPTS) as error:
            await clean_up_interrupted(self.record, self.schedule.credentials, error)
            raise
