"""Triggers the Bolt run of an intent, once, and resolves a conflict with another Bolt run of the same schedule."""

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
from paradime_flows.ledger import FlowRunLedger, Record, Relation
from paradime_flows.prefect_api import run_logger, times
from paradime_flows.runner.attached import how_it_differs

if TYPE_CHECKING:
    from paradime_blocks.options import Command
    from paradime_flows.choices import OnAlreadyRunning

ATTACHING: frozenset[OnAlreadyRunning] = frozenset({"attach", "attach_if_same"})
_REPLACEMENTS_AT_MOST = 3
_MOST_DOUBLINGS = 12


class Skipped(Exception):
    """The schedule is already running, and `on_already_running` is `skip`. `run` and `state` are of the other run."""

    def __init__(self, run: BoltRun, state: BoltRunState, why: str) -> None:
        self.run, self.state = run, state
        super().__init__(f"{why}; skipped.")


@dataclass
class Triggering:
    """Triggers a Bolt run for a flow run with `Trigger`, and resolves conflicts as the policy says.

    While this class triggers, the caller must watch the flow run (`paradime_flows.supervision.watch.unless_stopped`).

    Attributes:
        schedule: The schedule to run, and its time limits.
        ledger: Writes the intent and the id of the Bolt run.
        decision_log: Where decisions are noted.
        on_already_running: What to do if the schedule is already running.
        asked: What the caller requested.
        waiting: The time limit of the wait until the schedule is free. This includes the wait for the slot.
        refused: What was known before a trigger that Bolt refused because the schedule was already running.
        is_one_at_a_time: Whether the policy also holds for a schedule that allows parallel runs in Bolt.
    """

    schedule: BoltSchedule
    ledger: FlowRunLedger
    decision_log: DecisionLog
    on_already_running: OnAlreadyRunning
    asked: TriggerRequest
    waiting: Deadline = field(init=False)
    refused: TriggerIntent | None = field(default=None, init=False)
    is_one_at_a_time: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Start the time limit of the wait."""
        self.waiting = Deadline(self.schedule.timeout_seconds)

    @property
    def record(self) -> Record:
        """The record of the intent."""
        return self.ledger.record

    async def run(self, request: TriggerRequest) -> None:
        """Trigger at most one Bolt run. Write the new run, or the run that we wait for instead, to the ledger.

        Args:
            request: What to trigger.

        Raises:
            Skipped: The schedule is already running, and the policy is `skip`.
            BoltAlreadyRunning: The schedule is already running. The policy allows neither to wait nor to replace the
                conflicting run, or the time limit of the wait is reached.
            BoltTriggerUnknown: It is unknown whether a Bolt run started.
            BoltError: The trigger failed, and a search found no Bolt run that the trigger has started.
        """
        for sent in itertools.count():
            if await self._has_run_behind_refusal(request):
                return
            try:
                await self._check_that_it_is_free()
                async with self.schedule.credentials.get_client() as client:
                    await Trigger(
                        client,
                        request,
                        self.ledger,
                        self.decision_log,
                        max_outage_seconds=self.schedule.max_outage_seconds,
                    ).run()
            except BoltAlreadyRunning as error:
                self._note_refusal()
                await self.ledger.withdraw()
                other, runs = await self._find_conflicting_run()
                if other is not None:
                    if await self._has_run_behind_refusal(request):
                        return
                    # If another client starts a Bolt run after `other`, that run must not count as ours.
                    self.refused = None
                if not await self._resolve(other, error, runs=runs, refusals=sent + 1):
                    continue
            except BoltError as error:
                raise error.with_facts(schedule_name=self.record.schedule) from error
            return

    async def _check_that_it_is_free(self) -> None:
        """Raise `BoltAlreadyRunning` if the schedule is running and allows parallel runs, unless the policy is `wait`.

        Bolt itself refuses a second run of all other schedules.
        """
        is_checked = self.is_one_at_a_time and self.on_already_running != "wait"
        if is_checked and (await self.conflicting_run())[1]:
            msg = "The schedule is already running."
            raise BoltAlreadyRunning(msg, schedule_name=self.record.schedule)

    async def _resolve(
        self, other: BoltRun | None, error: BoltAlreadyRunning, *, runs: bool, refusals: int
    ) -> bool:
        """Resolve a conflict as the policy says.

        Args:
            other: The conflicting Bolt run; None if Bolt shows none.
            error: Bolt's refusal.
            runs: Whether `other` is still running. An older backend shows only the latest run, which may have ended.
            refusals: How often Bolt has refused the trigger.

        Returns:
            True if we wait for `other` instead of a run of our own; False if the trigger is to be sent again.
        """
        policy = self.on_already_running
        if other is not None and runs and policy in ATTACHING:
            await self._attach(other, error)
            return True
        if other is not None and runs and policy == "replace" and refusals <= _REPLACEMENTS_AT_MOST:
            self.decision_log.note(f"The schedule is already running; replacing Bolt run {other.run_id}.")
            await other.acancel()
            return False
        if other is not None and policy == "skip":
            raise await self.skipped(other, f"The schedule is already running (Bolt run {other.run_id})")
        waits = policy == "wait" or (policy in {*ATTACHING, "replace"} and not runs)
        if waits and not self.waiting.passed:
            await self._wait_for(other, refusals)
            return False
        facts: dict[str, Any] = {} if other is None else {"run_id": other.run_id, "url": other.url}
        raise error.with_facts(schedule_name=self.record.schedule, **facts) from error

    async def _attach(self, other: BoltRun, error: BoltAlreadyRunning) -> None:
        differs = await how_it_differs(other, self.asked)
        if differs is not None and self.on_already_running == "attach_if_same":
            self.decision_log.note(differs)
            raise error.with_facts(message=differs, run_id=other.run_id, url=other.url) from error
        self.decision_log.note(
            f"The schedule is already running; waiting for Bolt run {other.run_id}, which somebody else started."
        )
        if differs is not None:
            DecisionLog(self.record.notes, log=run_logger().warning).note(differs)
        await self.ledger.attached(other.run_id, Relation.ATTACHED)

    async def skipped(self, other: BoltRun, why: str) -> Skipped:
        """Return the error for the policy `skip`, and write its text to the decision log."""
        skipped = Skipped(other, await other.astate(), why)
        self.decision_log.note(str(skipped))
        return skipped

    async def _find_conflicting_run(self) -> tuple[BoltRun | None, bool]:
        """Return the Bolt run because of which Bolt refused a trigger, and whether that run is still running.

        Bolt may list the run late, so Bolt is asked again for a while.
        """
        showing = Deadline(times().conflict_appears_seconds)
        while True:
            other, runs = await self.conflicting_run()
            if runs or showing.passed:
                return other, runs
            await showing.clock.sleep(times().conflict_poll_seconds)

    async def conflicting_run(self) -> tuple[BoltRun | None, bool]:
        """Return the schedule's active Bolt run, or else its latest one, and whether that run is still running."""
        request = self.record.request
        async with self.schedule.credentials.get_client() as client:
            # A backend that cannot list runs shows only the latest run.
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

    def _note_refusal(self) -> None:
        """Keep what was known before the refused trigger, because this trigger may have started the conflicting run."""
        earlier, intent = self.refused, self.record.intent
        if intent is not None and earlier is not None and earlier.retry_of == intent.retry_of:
            # Our trigger may have started any Bolt run that began after the latest run of the earlier intent.
            intent = replace(intent, latest_run_id=earlier.latest_run_id)
        self.refused = intent or earlier

    async def _has_run_behind_refusal(self, request: TriggerRequest) -> bool:
        """Whether our own refused trigger may have started a Bolt run. If so, we wait for that run.

        If a gateway sends our trigger twice, Bolt starts a run for the first copy and refuses the second one. Only this
        execution knows of the refusal. A later execution treats the run as a run of another client.

        Raises:
            BoltTriggerUnknown: It is unknown which of several runs our trigger started, or Bolt does not answer.
        """
        refused = self.refused
        if refused is None or refused.retry_of != request.retry_of:
            return False
        finding = await self._search_behind_refusal(request, refused, 0.0)
        if Fit.OPEN in finding.fits.values():
            # This Bolt run may have started only its set-up commands so far. Its next commands may differ from ours.
            finding = await self._search_behind_refusal(request, refused, times().conflict_setup_seconds)
        may_be_it = {Fit.YES, Fit.OPEN}.intersection(finding.fits.values())
        if finding.verdict is Verdict.UNSURE and (may_be_it or not finding.candidates):
            why = "it is unknown which one" if finding.candidates else "Bolt cannot be asked"
            what = f"A refused trigger may have started a run, but {why}."
            raise unknown_trigger(what, self.record.schedule, finding)
        if finding.verdict is not Verdict.FOUND:
            return False
        self.decision_log.note(
            f"Bolt run {finding.run_id} started after our trigger was sent and runs the same commands, so it is "
            f"treated as ours and waited for. It will not be cancelled: another client may have started it."
        )
        await self.ledger.attached(finding.run_id, Relation.MAYBE_OURS)
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

    async def _wait_for(self, other: BoltRun | None, refusals: int) -> None:
        if other is None:
            self.decision_log.note(
                "Bolt reports the schedule as already running but lists no active run; waiting before triggering again."
            )
        else:
            self.decision_log.note(
                f"The schedule is already running; waiting for the end of Bolt run {other.run_id} before triggering."
            )
            began = time.monotonic()
            try:
                state = await other.await_for_completion(self.waiting.remaining)
            except BoltRunError as error:
                msg = f"The schedule was still running {time.monotonic() - began:.0f} s later."
                raise BoltAlreadyRunning(
                    msg, schedule_name=self.record.schedule, run_id=other.run_id, url=other.url
                ) from error
            self.decision_log.note(f"Bolt run {other.run_id} has ended as {state}.")
        # An older Bolt run of the schedule may still be running. In this case, Bolt refuses the trigger again.
        seconds = min(self.schedule.poll_interval_seconds, 0.5 * 2.0 ** min(refusals, _MOST_DOUBLINGS))
        await self.waiting.clock.sleep(seconds)

    async def retry_or_rest(self, request: TriggerRequest, run_id: int, otherwise: TriggerRequest) -> None:
        """Retry a Bolt run. If the backend cannot retry, trigger the commands of `otherwise` that are left."""
        try:
            await self.run(request)
        except BoltUnsupported:
            what = "all its commands" if request.retry_everything else "the failed command and those after it"
            self.decision_log.note(f"This backend cannot retry a run; triggering {what} instead.")
            await self.run(await self._rest_of(otherwise, run_id, everything=request.retry_everything))

    async def _rest_of(self, request: TriggerRequest, run_id: int, *, everything: bool) -> TriggerRequest:
        """Return a request for the commands that a Bolt run has not completed, or for all its commands.

        Each command keeps its `continueOnError`.
        """
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
            # The run was triggered with other commands. Of these, Bolt shows only the commands that have started.
            first = count_setup(shown)
            planned = [*shown[first:]]
        start = 0 if everything else max(failed - first, 0)
        return request.with_options(commands=planned[start:] or None)
