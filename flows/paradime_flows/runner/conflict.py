"""Starting the Bolt run of an intent: once, and what to do when the schedule runs already."""

from __future__ import annotations

import itertools
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from paradime_blocks import (
    BoltAlreadyRunning,
    BoltError,
    BoltRequestError,
    BoltRun,
    BoltRunError,
    BoltRunState,
    BoltSchedule,
    BoltUnsupported,
)
from paradime_blocks.client.inputs import command_text
from paradime_blocks.models.ends import count_setup
from paradime_blocks.polling import Deadline
from paradime_blocks.trigger import (
    DecisionLog,
    Finding,
    Fit,
    Trigger,
    TriggerIntent,
    TriggerRequest,
    Verdict,
    find_triggered_run,
    first_of,
    unknown_trigger,
)
from paradime_flows.prefect_api import run_logger, times
from paradime_flows.runner.attached import how_it_differs

if TYPE_CHECKING:
    from paradime_blocks.options import Command
    from paradime_flows.choices import OnAlreadyRunning
    from paradime_flows.ledger import FlowRunLedger, Ownership

ATTACHING: frozenset[OnAlreadyRunning] = frozenset({"attach", "attach_if_same"})
_REPLACEMENTS_AT_MOST = 3
_MOST_DOUBLINGS = 12


class Skipped(Exception):
    """The schedule runs already, and `on_already_running` says to skip.

    Args:
        run: The run in the way.
        state: Its state.
        why: What is in the way.
    """

    def __init__(self, run: BoltRun, state: BoltRunState, why: str) -> None:
        self.run, self.state = run, state
        super().__init__(f"{why}; skipped.")


@dataclass
class Triggering:
    """Triggers for a flow run, as careful as `Trigger` and as patient as its policy.

    Whoever calls this watches the flow run meanwhile (`paradime_flows.supervision.watch.unless_stopped`).

    Attributes:
        schedule: What is run, and within which limits.
        ledger: Where intent and run id are written.
        decision_log: Where decisions are told.
        on_already_running: What to do when the schedule runs already.
        asked: What the caller asked for.
        waiting: How long the schedule is waited for, its slot included.
    """

    schedule: BoltSchedule
    ledger: FlowRunLedger
    decision_log: DecisionLog
    on_already_running: OnAlreadyRunning
    asked: TriggerRequest
    waiting: Deadline = field(init=False)

    def __post_init__(self) -> None:
        """Start counting."""
        self.waiting = Deadline(self.schedule.timeout_seconds)

    @property
    def ownership(self) -> Ownership:
        """What the flow run answers for."""
        return self.ledger.ownership

    async def run(self, request: TriggerRequest) -> None:
        """Trigger a run, at most one; the ledger is told of it, or of the one that is waited for in its place.

        Args:
            request: What to trigger.

        Raises:
            Skipped: The schedule runs already, and the policy is to skip.
            BoltAlreadyRunning: It runs already, and the policy is to fail, or has come to its bounds.
            BoltTriggerUnknown: It cannot be told whether a run started.
            BoltError: Nothing was started, as far as looking could tell.
        """
        for sent in itertools.count():
            if await self.has_run_behind_refusal(request):
                return
            try:
                async with self.schedule.credentials.get_client() as client:
                    await Trigger(
                        client,
                        request,
                        self.ledger,
                        self.decision_log,
                        max_outage_seconds=self.schedule.max_outage_seconds,
                    ).run()
            except BoltAlreadyRunning as error:
                await self.ledger.refused()
                other, runs = await self._find_conflicting_run()
                if other is None:
                    await self._wait_for_unlisted_run(error, refusals=sent + 1)
                    continue
                if await self.has_run_behind_refusal(request):
                    return
                # What somebody else starts after it must not be taken for ours, be it by another body.
                self.ownership.refused = None
                await self.ledger.save()
                if not await self._give_way(other, error, runs=runs, refusals=sent + 1):
                    continue
            except BoltError as error:
                raise error.with_facts(schedule_name=self.ownership.schedule) from error
            return

    async def _give_way(
        self, other: BoltRun, error: BoltAlreadyRunning, *, runs: bool, refusals: int
    ) -> bool:
        """Do as the policy says about a run in the way.

        Args:
            other: That run.
            error: Bolt's refusal.
            runs: Whether it goes on; an older backend only tells of the latest, which may have ended.
            refusals: How often the trigger has been refused.

        Returns:
            Whether it is waited for in place of our own; if not, the way is free, and the trigger is to be sent.
        """
        policy = self.on_already_running
        if policy in ATTACHING and runs:
            differs = await how_it_differs(other, self.asked)
            if differs is not None and policy == "attach_if_same":
                self.decision_log.note(differs)
                raise error.with_facts(message=differs, run_id=other.run_id, url=other.url) from error
            self.decision_log.note(
                f"The schedule runs already; Bolt run {other.run_id}, not ours, is waited for."
            )
            if differs is not None:
                DecisionLog(self.ownership.notes, log=run_logger().warning).note(differs)
            self.ownership.attached = True
            await self.ledger.attached(other.run_id)
            return True
        waits = policy == "wait" or (policy in {*ATTACHING, "replace"} and not runs)
        if waits and not self.waiting.passed:
            await self._wait_for_other(other, refusals)
            return False
        if policy == "replace" and refusals <= _REPLACEMENTS_AT_MOST:
            self.decision_log.note(f"The schedule runs already; Bolt run {other.run_id} is replaced.")
            await other.acancel()
            return False
        if policy == "skip":
            skipped = Skipped(
                other, await other.astate(), f"The schedule runs already (Bolt run {other.run_id})"
            )
            self.decision_log.note(str(skipped))
            raise skipped from error
        self.decision_log.note(f"The schedule runs already (Bolt run {other.run_id}).")
        raise error.with_facts(run_id=other.run_id, url=other.url) from error

    async def _find_conflicting_run(self) -> tuple[BoltRun | None, bool]:
        """Return the run for which Bolt has refused a trigger, and whether it goes on; it may show itself late."""
        showing = Deadline(times().conflict_appears_seconds)
        while True:
            other, runs = await self.conflicting_run()
            if runs or showing.passed:
                return other, runs
            await showing.clock.sleep(times().conflict_look_seconds)

    async def _wait_for_unlisted_run(self, refusal: BoltAlreadyRunning, refusals: int) -> None:
        """Wait for a run that is in the way and that Bolt does not show, if the policy is to wait for one.

        Raises:
            BoltAlreadyRunning: It is not, or has waited for long enough.
        """
        if self.on_already_running in {"skip", "fail"} or self.waiting.passed:
            raise refusal.with_facts(schedule_name=self.ownership.schedule) from refusal
        self.decision_log.note(
            "The schedule runs already, says Bolt, and shows no run of it; our trigger waits."
        )
        await self._pause(refusals)

    async def _pause(self, refusals: int) -> None:
        seconds = min(self.schedule.poll_interval_seconds, 0.5 * 2.0 ** min(refusals, _MOST_DOUBLINGS))
        await self.waiting.clock.sleep(seconds)

    async def conflicting_run(self) -> tuple[BoltRun | None, bool]:
        """Return the schedule's run that goes on, or else its latest, and whether it goes on."""
        request = self.ownership.request
        async with self.schedule.credentials.get_client() as client:
            # A backend that cannot list runs tells of the latest only.
            with suppress(BoltRequestError):
                runs = (await client.list_bolt_runs(request.schedule_name)).runs
                going = next((run.id for run in runs if not run.state.is_terminal), None)
                if going is not None:
                    return self.schedule.attach(going), True
            latest = (await client.get_bolt_schedule(request.schedule_name)).latest_run_id
        if latest is None:
            return None, False
        run = self.schedule.attach(latest)
        return run, not (await run.astate()).is_terminal

    async def has_run_behind_refusal(self, request: TriggerRequest) -> bool:
        """Whether our own trigger can have started a run although it was refused; that one is waited for then.

        A gateway that sends a request twice hides the run that we started behind the refusal of the second, be it in
        an earlier body of the flow run, and be it that the run has ended since.

        Args:
            request: What is to be triggered.

        Raises:
            BoltTriggerUnknown: Several runs can be the one, or Bolt cannot be asked.
        """
        refused = self.ownership.refused
        if refused is None or refused.retry_of != request.retry_of:
            return False
        finding = await self._search_behind_refusal(request, refused, 0.0)
        if Fit.OPEN in finding.fits.values():
            # It may have come to its set-up only; what it runs then can be something else.
            finding = await self._search_behind_refusal(request, refused, times().conflict_setup_seconds)
        may_be_it = {Fit.YES, Fit.OPEN}.intersection(finding.fits.values())
        if finding.verdict is Verdict.UNSURE and (may_be_it or not finding.candidates):
            why = "it cannot be told which it is" if finding.candidates else "Bolt cannot be asked for it"
            what = f"A trigger was refused that may have started a run, and {why}."
            raise unknown_trigger(what, self.ownership.schedule, finding)
        if finding.verdict is not Verdict.FOUND:
            return False
        self.decision_log.note(
            f"Bolt run {finding.run_id} began after our trigger was on its way, and does what it was to do: it is "
            f"waited for, and nothing more is sent. It is not cancelled, since somebody else may have started it."
        )
        await self.ledger.attached(finding.run_id)
        return True

    async def _search_behind_refusal(
        self, request: TriggerRequest, refused: TriggerIntent, window_seconds: float
    ) -> Finding:
        async with self.schedule.credentials.get_client() as client:
            return await find_triggered_run(
                client,
                request,
                refused,
                window_seconds=window_seconds,
                max_outage_seconds=self.schedule.max_outage_seconds,
            )

    async def _wait_for_other(self, other: BoltRun, refusals: int) -> None:
        self.decision_log.note(
            f"The schedule runs already; Bolt run {other.run_id} is waited for before our trigger."
        )
        began = time.monotonic()
        try:
            state = await other.await_for_completion(self.waiting.remaining)
        except BoltRunError as error:
            msg = f"The schedule was still running {time.monotonic() - began:.0f} s later."
            facts: dict[str, Any] = {
                "schedule_name": self.ownership.schedule,
                "run_id": other.run_id,
                "url": other.url,
            }
            raise BoltAlreadyRunning(msg, **facts) from error
        self.decision_log.note(f"Bolt run {other.run_id} has ended as {state}.")
        # An older run than the latest may be the one that goes on: then Bolt refuses again, and again.
        await self._pause(refusals)

    async def retry_or_rest(self, request: TriggerRequest, run_id: int, otherwise: TriggerRequest) -> None:
        """Retry a run in a new one; on a backend that cannot, trigger what the run has not done.

        Args:
            request: The retry.
            run_id: The run to retry.
            otherwise: What the run was to do.

        Raises:
            BoltError: As `run`.
        """
        try:
            await self.run(request)
        except BoltUnsupported:
            what = "all its commands" if request.retry_everything else "the failed command and those after it"
            self.decision_log.note(f"This backend cannot retry a run; {what} are triggered.")
            await self.run(await self._rest_of(otherwise, run_id, everything=request.retry_everything))

    async def _rest_of(self, request: TriggerRequest, run_id: int, *, everything: bool) -> TriggerRequest:
        """Return a trigger of what a run has not done, or of all of it, as `continueOnError` had it."""
        request = replace(request, retry_of=None)
        async with self.schedule.credentials.get_client() as client:
            status = await client.get_bolt_run(run_id, logs=False)
            schedule = await client.get_bolt_schedule(request.schedule_name)
        shown = [command.command for command in status.commands]
        begin = status.first_failed_command
        failed = next((n for n, each in enumerate(status.commands) if each is begin), 0)
        planned: list[str | Command] = [*(request.options.get("commands") or schedule.commands)]
        first = first_of([command_text(command) for command in planned], shown)
        if first is None:
            # It had commands of its own; of those, Bolt only tells what has started.
            first = count_setup(shown)
            planned = [*shown[first:]]
        start = 0 if everything else max(failed - first, 0)
        return request.with_options(commands=planned[start:] or None)
