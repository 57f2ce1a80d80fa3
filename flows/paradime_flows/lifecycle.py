"""One intent of one flow run, from trigger to result: taking up, triggering, waiting, retrying, settling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import anyio
from prefect.client.orchestration import get_client

from paradime_blocks.errors import (
    BoltAlreadyRunning,
    BoltError,
    BoltRequestError,
    BoltRunError,
    BoltRunFailed,
    BoltRunTimedOut,
    BoltTriggerUnknown,
    BoltUnsupported,
)
from paradime_blocks.models import BoltAttempt, BoltRunResult, BoltRunState
from paradime_blocks.observation import Deadline
from paradime_blocks.run import BoltRun
from paradime_blocks.schedule import BoltSchedule
from paradime_blocks.text import one_line
from paradime_blocks.trail import Trail
from paradime_blocks.trigger import Trigger, TriggerIntent, TriggerRequest, Verdict, find_triggered_run
from paradime_flows.archive_settings import ArchiveSettings
from paradime_flows.claims import claim, inherit, with_reason
from paradime_flows.context import run_logger
from paradime_flows.holding import take_hold
from paradime_flows.hooks import remember_credentials
from paradime_flows.liveness import beat
from paradime_flows.ownership import FLOW_KEY, FlowRunLedger, Ownership, Policy, read_ownerships, tag_flow_run
from paradime_flows.retry_policy import DEFAULT_NEVER_RETRY, rest_from, why_not_retry, without_setup
from paradime_flows.settle import archive_ownership, find_run, settle_interrupted
from paradime_flows.watch import (
    StoppedByPrefect,
    bodies_begun,
    cancel_in_prefect,
    cancelled_before_body,
    see_that_it_is_ours,
    state_types,
    unless_stopped,
)

if TYPE_CHECKING:
    from paradime_blocks.observation import Observation
    from paradime_blocks.run import Watcher

RunWatcher = Callable[[BoltRun, "Observation"], Awaitable[None]]
OnAlreadyRunning = Literal["wait", "attach", "fail", "skip", "replace"]

_LATE_LOOK_SECONDS = 20.0
_REPLACEMENTS_AT_MOST = 3


@dataclass(frozen=True)
class RunPolicies:
    """What is to be done when things do not go straight.

    Attributes:
        retries: How often a failed run is retried from its failure.
        retry_delay_seconds: The wait before each retry, in seconds.
        never_retry: Regular expressions; a failure whose log or dbt error fits one is not retried.
        on_already_running: What to do when the schedule runs already.
        on_timeout: What the time limit does to the Bolt run.
        on_interrupt: What an interrupt without a person's cancel does to it.
        on_crash: What a crash of the flow run's process does to it.
        leave: Whether the Bolt run is left alone as soon as it has been started.
        archive: What to archive of the run, and where.
    """

    retries: int = 0
    retry_delay_seconds: float = 30.0
    never_retry: tuple[str, ...] = DEFAULT_NEVER_RETRY
    on_already_running: OnAlreadyRunning = "wait"
    on_timeout: Policy = "cancel"
    on_interrupt: Policy = "cancel"
    on_crash: Policy = "cancel"
    leave: bool = False
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)


class Skipped(Exception):
    """The schedule runs already, and `on_already_running` says to skip.

    Args:
        run: The run in the way.
        state: Its state.
    """

    def __init__(self, run: BoltRun, state: BoltRunState) -> None:
        self.run, self.state = run, state
        super().__init__(f"The schedule runs already (Bolt run {run.run_id}); skipped.")


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
        self.ledger = FlowRunLedger(ownership, schedule.timeout_seconds)
        self.trail = Trail(ownership.notes, tell=run_logger().info)

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
        """
        async with get_client() as client:
            # Before anything is read that there may be to take up.
            await take_hold(client, flow_run_id)
            flow_run = await client.read_flow_run(flow_run_id)
            reason = await cancelled_before_body(client, flow_run)
            if reason is not None:
                raise StoppedByPrefect(reason)
            attempt = bodies_begun(await state_types(client, flow_run_id))
            await beat(client, flow_run_id)
        request = with_reason(request or schedule.request(), flow_run)
        ownership = (
            claim(read_ownerships(flow_run), key, request, attempt)
            or await inherit(flow_run_id, key, schedule)
            or Ownership(key=key, flow_run_id=flow_run_id, request=request)
        )
        ownership.attempt = attempt
        ownership.api_endpoint = schedule.credentials.api_endpoint
        ownership.credentials_block = schedule.credentials._block_document_name  # noqa: SLF001 - no public name
        ownership.on_interrupt, ownership.on_crash = policies.on_interrupt, policies.on_crash
        ownership.archive, ownership.left = policies.archive, policies.leave
        remember_credentials(ownership, schedule.credentials)
        await tag_flow_run(flow_run_id)
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
            BoltError: Nothing was started.
        """
        run = await self._take_up()
        if run is not None:
            return run
        if self.request.retry_of is not None:
            return await self._retry_or_rest(self.request, self.request.retry_of)
        return await self._trigger(self.request)

    async def _take_up(self) -> BoltRun | None:
        ownership = self.ownership
        if ownership.run_id is not None and (
            not ownership.reported or ownership.state == BoltRunState.SUCCESS
        ):
            self.trail.note(
                f"Bolt run {ownership.run_id} of an earlier attempt of this flow run is taken up again."
            )
            return self.run
        if ownership.run_id is not None:
            told = f"ended as {ownership.state}, which was reported"
            self.trail.note(f"Bolt run {ownership.run_id} {told}; a new run is triggered.")
            self._count(ownership.run_id, ownership.state)
            return None
        if not ownership.is_open:
            return None
        self.trail.note("An earlier attempt of this flow run was about to trigger; looking for its run.")
        verdict = await find_run(ownership, self.schedule.credentials, self.trail, seconds=_LATE_LOOK_SECONDS)
        if verdict is Verdict.UNSURE:
            msg = "An earlier attempt was about to trigger, and it cannot be told whether a run started."
            raise BoltTriggerUnknown(msg, schedule_name=ownership.schedule)
        if verdict is Verdict.FOUND:
            found = self.run
            assert found is not None  # noqa: S101 - the ownership was told its id
            await self.ledger.started(found.run_id, adopted=True)
        return self.run

    async def _trigger(self, request: TriggerRequest) -> BoltRun:
        waiting = Deadline(self.schedule.timeout_seconds)
        replaced = 0
        while True:
            try:
                async with self.schedule.credentials.get_client() as client:
                    await Trigger(
                        client,
                        request,
                        self.ledger,
                        self.trail,
                        max_outage_seconds=self.schedule.max_outage_seconds,
                    ).run()
            except BoltAlreadyRunning as error:
                intent = self.ownership.intent
                await self.ledger.withdraw()
                other = await self._run_in_the_way(error)
                policy = self.policies.on_already_running
                if policy == "wait" and intent and await self._may_be_ours(other, request, intent):
                    # A gateway that sends a request twice hides the run that we started behind a refusal.
                    self.trail.note(
                        f"Bolt run {other.run_id} began after our trigger was on its way, and does what it was to "
                        f"do: it is waited for, and nothing more is sent. It is not cancelled, since somebody else "
                        f"may have started it."
                    )
                    await self.ledger.attached(other.run_id)
                elif policy == "attach":
                    self.trail.note(
                        f"The schedule runs already; Bolt run {other.run_id}, not ours, is waited for."
                    )
                    await self.ledger.attached(other.run_id)
                elif policy == "wait" and not waiting.passed:
                    await self._wait_for_other(other, waiting)
                    continue
                elif policy == "replace" and replaced < _REPLACEMENTS_AT_MOST:
                    replaced += 1
                    self.trail.note(f"The schedule runs already; Bolt run {other.run_id} is replaced.")
                    await other.acancel()
                    continue
                elif policy == "skip":
                    self.trail.note(f"The schedule runs already (Bolt run {other.run_id}); skipped.")
                    raise Skipped(other, await other.astate()) from error
                else:
                    self.trail.note(f"The schedule runs already (Bolt run {other.run_id}).")
                    raise error.with_facts(run_id=other.run_id, url=other.url) from error
            except BoltTriggerUnknown:
                await self.ledger.save()
                raise
            except BoltError:
                # Nothing was started, so there is nothing to look for later.
                await self.ledger.withdraw()
                raise
            run = self.run
            assert run is not None  # noqa: S101 - the ledger was told above
            return run

    async def _run_in_the_way(self, error: BoltAlreadyRunning) -> BoltRun:
        request = self.ownership.request
        async with self.schedule.credentials.get_client() as client:
            latest = (await client.get_bolt_schedule(request.schedule_name, slug=request.slug)).latest_run_id
            # A backend that cannot list runs tells of the latest only.
            with suppress(BoltRequestError):
                runs = (await client.list_bolt_runs(request.slug or request.label)).runs
                latest = next((run.id for run in runs if not run.state.is_terminal), latest)
        if latest is None:
            raise error.with_facts(schedule_name=self.ownership.schedule) from error
        return self.schedule.attach(latest)

    async def _may_be_ours(self, other: BoltRun, request: TriggerRequest, intent: TriggerIntent) -> bool:
        """Whether the run in the way can be one that our own trigger has started, although that was refused."""
        if other.run_id <= intent.latest_run_id:
            return False
        async with self.schedule.credentials.get_client() as client:
            finding = await find_triggered_run(
                client, request, intent, window_seconds=0.0, max_outage_seconds=0.0
            )
        return finding.verdict is Verdict.FOUND and finding.run_id == other.run_id

    async def _wait_for_other(self, other: BoltRun, waiting: Deadline) -> None:
        self.trail.note(
            f"The schedule runs already; Bolt run {other.run_id} is waited for before our trigger."
        )
        began = time.monotonic()
        try:
            state = await self._watched(other, waiting.remaining)
        except BoltRunError as error:
            msg = f"The schedule was still running {time.monotonic() - began:.0f} s later."
            facts: dict[str, Any] = {
                "schedule_name": self.ownership.schedule,
                "run_id": other.run_id,
                "url": other.url,
            }
            raise BoltAlreadyRunning(msg, **facts) from error
        self.trail.note(f"Bolt run {other.run_id} has ended as {state}.")
        # An older run than the latest may be the one that goes on: then Bolt refuses again, and again.
        await self._pause(min(self.schedule.poll_interval_seconds, time.monotonic() - began + 0.5))

    async def wait(self, run: BoltRun) -> BoltRunState:
        """Wait until the run has ended, while watching whether the flow run is cancelled in Prefect.

        Raises:
            StoppedByPrefect: It is.
            BoltError: As `BoltRun.wait_for_completion`.
        """
        remaining = max(0.0, self.ownership.remaining_seconds(self.schedule.timeout_seconds))
        state = await self._watched(run, remaining, self.watcher and partial(self.watcher, run))
        self.ownership.state = state
        return state

    async def _watched(
        self, run: BoltRun, timeout_seconds: float | None, watcher: Watcher | None = None
    ) -> BoltRunState:
        return await unless_stopped(
            lambda: run.await_for_completion(timeout_seconds, watcher=watcher), self.ownership.flow_run_id
        )

    async def result(self, run: BoltRun) -> BoltRunResult:
        """Return the run's result with all attempts.

        Raises:
            BoltRunError: The run did not succeed.
        """
        result = await run.afetch_result()
        return result.model_copy(update={"attempts": [*self.ownership.attempts, *result.attempts]})

    async def retry(self, run: BoltRun, error: BoltRunFailed) -> BoltRun | None:
        """Retry a failed run from its failure, if the policy still allows it.

        Returns:
            The handle of the new run; None if there is no retry left.
        """
        before = [attempt for attempt in self.ownership.attempts if attempt.run_id != run.run_id]
        done = len([attempt for attempt in before if attempt.state in BoltRunState.FAILURES])
        if done >= self.policies.retries:
            return None
        reason = why_not_retry(error, self.policies.never_retry)
        if reason is not None:
            self.trail.note(f"Bolt run {run.run_id} failed, and a retry would fail, too: {one_line(reason)}")
            return None
        request = self._retry_request(run)
        state = BoltRunState(str(error.state))
        self.ownership.state = state
        # The next attempt's logs take the place of these.
        await archive_ownership(self.ownership, self.schedule.credentials, outcome=_story(error))
        self._count(run.run_id, state)
        self.trail.note(
            f"Bolt run {run.run_id} failed; retry {done + 1} of {self.policies.retries} "
            f"in {self.policies.retry_delay_seconds:g} s."
        )
        # Not reported: whoever takes up here after a crash has this retry still before it.
        await self.ledger.close(state, reported=False)
        await self._pause(self.policies.retry_delay_seconds)
        return await self._retry_or_rest(request, run.run_id)

    def _count(self, run_id: int, state: BoltRunState | None) -> None:
        """Count a run among the attempts, once."""
        attempts = self.ownership.attempts
        if state is not None and run_id not in {attempt.run_id for attempt in attempts}:
            attempts.append(BoltAttempt(run_id=run_id, state=state))

    async def _pause(self, seconds: float) -> None:
        await unless_stopped(lambda: anyio.sleep(seconds), self.ownership.flow_run_id)

    async def _retry_or_rest(self, request: TriggerRequest, run_id: int) -> BoltRun:
        try:
            return await self._trigger(request)
        except BoltUnsupported:
            what = "all its commands" if request.retry_everything else "the failed command and those after it"
            self.trail.note(f"This backend cannot retry a run; {what} are triggered.")
            return await self._trigger(await self._rest_of(run_id, everything=request.retry_everything))

    def _retry_request(self, run: BoltRun) -> TriggerRequest:
        return replace(self.ownership.request, commands=None, command_configs=None, retry_of=run.run_id)

    async def _rest_of(self, run_id: int, *, everything: bool) -> TriggerRequest:
        """Return a trigger of what a run has not done, or of all of it, as `continueOnError` had it."""
        request = replace(self.request, retry_of=None)
        async with self.schedule.credentials.get_client() as client:
            status = await client.get_bolt_run(run_id, logs=False)
            planned = (await client.get_bolt_schedule(request.schedule_name, slug=request.slug)).commands
        done = without_setup([command.command for command in status.commands])
        failed = status.failing_command
        start_at = None if everything or failed is None else failed.command
        if request.command_configs is not None:
            configs = rest_from(request.command_configs, start_at, lambda each: each["command"])
            return replace(request, command_configs=configs)
        if request.commands is not None:
            planned = list(request.commands)
        elif not set(done) <= set(planned):
            # It had commands of its own; of those, Bolt only tells what has started.
            planned = done
        return replace(request, commands=rest_from(planned, start_at, str) or None)

    async def finish(self, outcome: BaseException | None) -> None:
        """Archive the run, then write down how it ended; whatever went wrong is in the summary."""
        ownership = self.ownership
        if isinstance(outcome, BoltRunError) and outcome.state is not None:
            ownership.state = BoltRunState(str(outcome.state))
        sentence = outcome.what if isinstance(outcome, BoltError) else (str(outcome) if outcome else None)
        if sentence:
            self.trail.note(sentence)
        await archive_ownership(ownership, self.schedule.credentials, outcome=_story(outcome))
        # Who has taken up the flow run must find the run still open.
        await see_that_it_is_ours(ownership.flow_run_id)
        left_on_purpose = isinstance(outcome, BoltRunTimedOut) and self.policies.on_timeout == "leave"
        if left_on_purpose or (ownership.state is not None and ownership.state.is_terminal):
            await self.ledger.close(ownership.state, reported=True)
        else:
            await self.ledger.save()

    @asynccontextmanager
    async def settling(self) -> AsyncIterator[None]:
        """Settle what there is to answer for when the work within is stopped or interrupted."""
        try:
            yield
        except StoppedByPrefect as stop:
            await self.interrupted(by_prefect=None if stop.by_signal else stop.reason)
            raise
        except asyncio.CancelledError:
            # Prefect's time limits cancel every await in here again, unless it is shielded.
            with anyio.CancelScope(shield=True):
                await self.interrupted(by_prefect=None)
            raise

    async def interrupted(self, *, by_prefect: str | None) -> None:
        """Settle after an interrupt: a person's cancel always cancels the Bolt run, another one by policy.

        Args:
            by_prefect: What was seen of the flow run's own cancel, if it was seen already.
        """
        await settle_interrupted(self.ownership, self.schedule.credentials, by_prefect)

    async def cancel_in_prefect(self) -> str | None:
        """Return what to say of the flow run's own cancel; None if nobody has cancelled it."""
        return await cancel_in_prefect(self.ownership.flow_run_id)


def _story(outcome: BaseException | None) -> str | None:
    """Return what went wrong, for the top of the summary."""
    if isinstance(outcome, BoltRunError) and outcome.command is not None:
        return f"{outcome.what} Command {outcome.command} ended with return code {outcome.return_code}."
    if isinstance(outcome, BoltError):
        return f"{outcome.what} {outcome.guidance}"
    return str(outcome) if outcome is not None else None
