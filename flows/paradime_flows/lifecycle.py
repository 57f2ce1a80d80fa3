"""One intent of one flow run, from trigger to result: taking up, triggering, waiting, retrying, settling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import anyio
from prefect.client.orchestration import get_client
from prefect.states import StateType

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
from paradime_blocks.models import BoltAttempt, BoltRunResult, BoltRunState, run_url
from paradime_blocks.observation import Deadline
from paradime_blocks.run import BoltRun
from paradime_blocks.schedule import BoltSchedule
from paradime_blocks.trail import Trail
from paradime_blocks.trigger import Trigger, TriggerRequest, Verdict
from paradime_flows.context import run_logger
from paradime_flows.hooks import remember_credentials
from paradime_flows.liveness import beat
from paradime_flows.ownership import FLOW_KEY, FlowRunLedger, Ownership, Policy, read_ownerships, tag_flow_run
from paradime_flows.settle import archive_ownership, find_run, settle
from paradime_flows.watch import StoppedByPrefect, unless_stopped

if TYPE_CHECKING:
    from paradime_blocks.run import Watcher

OnAlreadyRunning = Literal["wait", "attach", "fail", "skip", "replace"]

_LATE_LOOK_SECONDS = 20.0
_REPLACEMENTS_AT_MOST = 3
_RUNNING_AGAIN = 2


@dataclass(frozen=True)
class RunPolicies:
    """What is to be done when things do not go straight.

    Attributes:
        retries: How often a failed run is retried from its failure.
        retry_delay_seconds: The wait before each retry, in seconds.
        on_already_running: What to do when the schedule runs already.
        on_timeout: What the time limit does to the Bolt run.
        on_interrupt: What an interrupt without a person's cancel does to it.
        on_crash: What a crash of the flow run's process does to it.
    """

    retries: int = 0
    retry_delay_seconds: float = 30.0
    on_already_running: OnAlreadyRunning = "wait"
    on_timeout: Policy = "cancel"
    on_interrupt: Policy = "cancel"
    on_crash: Policy = "cancel"


class Skipped(Exception):  # noqa: N818 - an outcome that was asked for
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
        watcher: Awaited with every look at the Bolt run.
    """

    def __init__(
        self,
        schedule: BoltSchedule,
        ownership: Ownership,
        policies: RunPolicies,
        *,
        watcher: Watcher | None = None,
    ) -> None:
        self.schedule = schedule
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
        watcher: Watcher | None = None,
    ) -> RunLifecycle:
        """Begin, or begin again, the lifecycle of an intent of a flow run.

        Raises:
            StoppedByPrefect: The flow run was cancelled before this attempt of it began.
        """
        async with get_client() as client:
            flow_run = await client.read_flow_run(flow_run_id)
            states = await client.read_flow_run_states(flow_run_id)
            await beat(client, flow_run_id)
        types = [state.type for state in sorted(states, key=lambda state: state.timestamp)]
        # A cancel during AwaitingRetry is written and then run over: the sleeping process begins the body again.
        if len(types) >= _RUNNING_AGAIN and types[-1] == StateType.RUNNING and types[-2] in _CANCELS:
            msg = "The flow run was cancelled while it waited for its retry."
            raise StoppedByPrefect(msg)
        request = request or schedule.request()
        ownership = _claim(read_ownerships(flow_run), key, request, flow_run.run_count) or Ownership(
            key=key, flow_run_id=flow_run_id, request=request
        )
        ownership.attempt = flow_run.run_count
        ownership.api_endpoint = schedule.credentials.api_endpoint
        ownership.credentials_block = schedule.credentials._block_document_name  # noqa: SLF001 - no public name
        ownership.on_interrupt, ownership.on_crash = policies.on_interrupt, policies.on_crash
        remember_credentials(ownership, schedule.credentials)
        await tag_flow_run(flow_run_id)
        return cls(schedule, ownership, policies, watcher=watcher)

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
        return await self._trigger(self.ownership.request)

    async def _take_up(self) -> BoltRun | None:
        ownership = self.ownership
        if ownership.run_id is not None and (not ownership.reported or ownership.state == BoltRunState.SUCCESS):
            self.trail.note(f"Bolt run {ownership.run_id} of an earlier attempt of this flow run is taken up again.")
            return self.run
        if ownership.run_id is not None:
            self.trail.note(
                f"Bolt run {ownership.run_id} ended as {ownership.state}, which was reported; a new run is triggered."
            )
            ownership.attempts.append(BoltAttempt(run_id=ownership.run_id, state=ownership.state or "UNKNOWN"))
            return None
        if not ownership.is_open:
            return None
        self.trail.note("An earlier attempt of this flow run was about to trigger; looking for its run.")
        verdict = await find_run(ownership, self.schedule.credentials, self.trail, seconds=_LATE_LOOK_SECONDS)
        if verdict is Verdict.UNSURE:
            msg = "An earlier attempt of this flow run was about to trigger, and it cannot be told whether a run started."
            raise BoltTriggerUnknown(msg, schedule_name=ownership.schedule)
        if verdict is Verdict.ABSENT or ownership.run_id is None:
            return None
        await self.ledger.started(ownership.run_id, adopted=True)
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
                await self.ledger.withdraw()
                other = await self._run_in_the_way(error)
                policy = self.policies.on_already_running
                if policy == "attach":
                    self.trail.note(f"The schedule runs already; Bolt run {other.run_id} is waited for, not ours.")
                    await self.ledger.attached(other.run_id)
                elif policy == "wait" and not waiting.passed:
                    await self._wait_for_other(other, waiting)
                    continue
                elif policy == "replace" and replaced < _REPLACEMENTS_AT_MOST:
                    replaced += 1
                    self.trail.note(f"The schedule runs already; Bolt run {other.run_id} is cancelled to replace it.")
                    await other.acancel()
                    continue
                elif policy == "skip":
                    self.trail.note(f"The schedule runs already (Bolt run {other.run_id}); skipped.")
                    raise Skipped(other, await other.astate()) from error
                else:
                    self.trail.note(f"The schedule runs already (Bolt run {other.run_id}); nothing was triggered.")
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
        if latest is None:
            raise error.with_facts(schedule_name=self.ownership.schedule) from error
        return self.schedule.attach(latest)

    async def _wait_for_other(self, other: BoltRun, waiting: Deadline) -> None:
        self.trail.note(f"The schedule runs already; waiting for Bolt run {other.run_id} to end, then triggering.")
        began = time.monotonic()
        try:
            state = await self._watched(other, waiting.remaining)
        except BoltRunError as error:
            msg = f"The schedule was still running {time.monotonic() - began:.0f} s later."
            raise BoltAlreadyRunning(msg, schedule_name=self.ownership.schedule, run_id=other.run_id, url=other.url) from error
        self.trail.note(f"Bolt run {other.run_id} has ended as {state}.")

    async def wait(self, run: BoltRun) -> BoltRunState:
        """Wait until the run has ended, while watching whether the flow run is cancelled in Prefect.

        Raises:
            StoppedByPrefect: It is.
            BoltError: As `BoltRun.wait_for_completion`.
        """
        state = await self._watched(run, max(0.0, self.ownership.remaining_seconds(self.schedule.timeout_seconds)))
        self.ownership.state = state
        return state

    async def _watched(self, run: BoltRun, timeout_seconds: float | None) -> BoltRunState:
        return await unless_stopped(
            lambda: run.await_for_completion(timeout_seconds, watcher=self.watcher), self.ownership.flow_run_id
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
        done = len([attempt for attempt in self.ownership.attempts if attempt.state in BoltRunState.FAILURES])
        if done >= self.policies.retries:
            return None
        request = await self._retry_request(run)
        self.ownership.attempts.append(BoltAttempt(run_id=run.run_id, state=BoltRunState(str(error.state))))
        self.trail.note(
            f"Bolt run {run.run_id} failed; retry {done + 1} of {self.policies.retries} "
            f"in {self.policies.retry_delay_seconds:g} s."
        )
        await self.ledger.close(BoltRunState(str(error.state)), reported=True)
        await unless_stopped(lambda: anyio.sleep(self.policies.retry_delay_seconds), self.ownership.flow_run_id)
        try:
            return await self._trigger(request)
        except BoltUnsupported:
            self.trail.note("This backend cannot retry a run; the failed command and those after it are triggered.")
            return await self._trigger(await self._rest_of(run))

    async def _retry_request(self, run: BoltRun) -> TriggerRequest:
        request = self.ownership.request
        return TriggerRequest(
            schedule_name=request.schedule_name, slug=request.slug, branch=request.branch, retry_of=run.run_id
        )

    async def _rest_of(self, run: BoltRun) -> TriggerRequest:
        """Return a trigger of the failed command and those after it."""
        request = self.ownership.request
        async with self.schedule.credentials.get_client() as client:
            status = await client.get_bolt_run(run.run_id, logs=False)
            planned = (await client.get_bolt_schedule(request.schedule_name, slug=request.slug)).commands
        planned = list(self.schedule.commands or planned)
        failed = status.failing_command
        start = planned.index(failed.command) if failed is not None and failed.command in planned else 0
        return TriggerRequest(
            schedule_name=request.schedule_name,
            slug=request.slug,
            branch=request.branch,
            commands=tuple(planned[start:]) or None,
        )

    async def finish(self, outcome: BaseException | None) -> None:
        """Archive the run, then write down how it ended; whatever went wrong is in the summary."""
        ownership = self.ownership
        if isinstance(outcome, BoltRunError) and outcome.state is not None:
            ownership.state = BoltRunState(str(outcome.state))
        sentence = outcome.what if isinstance(outcome, BoltError) else (str(outcome) if outcome else None)
        if sentence:
            self.trail.note(sentence)
        await archive_ownership(ownership, self.schedule.credentials, outcome=_story(outcome))
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
            await self.interrupted(by_prefect=stop.reason)
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
        if not self.ownership.is_open:
            return
        reason = by_prefect or await self._cancel_in_prefect()
        if reason is None and self.policies.on_interrupt == "leave":
            self.trail.note("Interrupted; the Bolt run is left going, to be taken up again.")
            await self.ledger.save()
            return
        try:
            await settle(self.ownership, self.schedule.credentials, reason or "The flow run was interrupted.")
        except BoltError as error:
            run_logger().error("%s", error)  # noqa: TRY400

    async def _cancel_in_prefect(self) -> str | None:
        try:
            async with get_client() as client:
                state = (await client.read_flow_run(self.ownership.flow_run_id)).state
        except Exception:  # noqa: BLE001 - without Prefect, it is an interrupt like any other
            return None
        if state is not None and (state.is_cancelling() or state.is_cancelled()):
            return "The flow run was cancelled in Prefect."
        return None


_CANCELS = {StateType.CANCELLING, StateType.CANCELLED}
# What this process has taken up already: of two tasks that ask for the same, each takes up a run of its own.
_claimed: set[tuple[UUID, str, int]] = set()


def _claim(found: list[Ownership], key: str, request: TriggerRequest, attempt: int) -> Ownership | None:
    """Return the ownership that an intent goes on with.

    A task run is another one in each attempt of its flow run, so it takes up what an earlier attempt asked for
    in the same words.
    """
    for ownership in found:
        if ownership.key == key:
            return ownership
    for ownership in found:
        claim = (ownership.flow_run_id, ownership.key, attempt)
        same = ownership.request == request and ownership.key != FLOW_KEY and key != FLOW_KEY
        if same and ownership.attempt < attempt and claim not in _claimed:
            _claimed.add(claim)
            return ownership
    return None


def _story(outcome: BaseException | None) -> str | None:
    """Return what went wrong, for the top of the summary."""
    if isinstance(outcome, BoltRunError) and outcome.command is not None:
        return f"{outcome.what} Command `{outcome.command}` ended with return code {outcome.return_code}."
    if isinstance(outcome, BoltError):
        return f"{outcome.what} {outcome.guidance}"
    return str(outcome) if outcome is not None else None
