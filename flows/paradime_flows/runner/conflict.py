"""Triggers the Bolt run of an intent, once, and does as `on_already_running` says if the schedule is already running.

A flow run also holds the slot of a concurrency limit in Prefect. So no other flow run triggers the schedule between a
failure and its retry, and flow runs take turns even if Bolt allows two runs at once.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from slugify import slugify

from paradime_blocks import BoltRun, BoltRunError, BoltSchedule
from paradime_blocks.client.inputs import command_text
from paradime_blocks.errors import BoltAlreadyRunning, BoltError, BoltRequestError, BoltUnsupported
from paradime_blocks.models import count_setup
from paradime_blocks.options import Command
from paradime_blocks.polling import Deadline
from paradime_blocks.trigger import DecisionLog, Fit, Trigger, TriggerRequest, fingerprint_of, first_of
from paradime_flows.choices import OnAlreadyRunning
from paradime_flows.ledger import FlowRunLedger, Relation
from paradime_flows.prefect_api import SlotTaken, schedule_slot, short_hash, times
from paradime_flows.runner.difference import difference_of
from paradime_flows.supervision import Action, Event, decide, unless_stopped


class Skipped(Exception):
    """The schedule is already running, and `on_already_running` is `skip`. `run` is the other Bolt run."""

    def __init__(self, run: BoltRun, why: str) -> None:
        self.run = run
        super().__init__(f"{why}; skipped.")


class Conflict(NamedTuple):
    """The schedule's active Bolt run, or else its latest one, or None; and whether this Bolt run is still running."""

    run: BoltRun | None
    is_active: bool
    # The error with which Bolt refused our trigger; None if nothing was sent.
    refused: BoltError | None = None


@dataclass
class Triggering:
    """Triggers a Bolt run for a flow run. While `run` triggers, the caller must watch the flow run."""

    schedule: BoltSchedule
    ledger: FlowRunLedger
    decision_log: DecisionLog
    on_already_running: OnAlreadyRunning
    asked: TriggerRequest
    # Whether to look for a conflict before a trigger: Bolt may allow parallel runs of the schedule, and refuse nothing.
    looks_first: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        # The time limit of the wait until the schedule is free. This includes the wait for the slot.
        self.waiting = Deadline(self.schedule.timeout_seconds)

    def _answer_to(self, conflict: Conflict, why: str, named: str = "Bolt run") -> OnAlreadyRunning:
        """Return whether to wait, to attach or to replace. To fail or to skip, raise an error that says `why`."""
        policy, run = self.on_already_running, conflict.run
        if policy == "skip" and run is not None:
            # An ended Bolt run can be skipped, too: Bolt may show an active one late.
            raise Skipped(run, f"{why} ({named} {run.run_id})")
        if conflict.is_active and policy in {"attach", "attach_if_same"}:
            return policy
        if policy in {"fail", "skip"} or self.waiting.passed:
            active = run if conflict.is_active else None
            raise self._about(active, conflict.refused or BoltAlreadyRunning(f"{why}.")) from conflict.refused
        return policy if conflict.is_active else "wait"

    async def hold_slot(self, stack: AsyncExitStack) -> None:
        """Take the schedule's slot until `stack` closes, and wait for it as long as `on_already_running` allows."""
        # The time limit of a Bolt run that this flow run already has, or may have, has begun.
        needs_none = decide(self.ledger.record, Event.BEGUN) is not Action.SEND
        waits = self.on_already_running == "wait" and not needs_none
        self.looks_first = self.on_already_running != "wait"
        # The holder of the slot may have been killed. It loses the slot within this time.
        dead = Deadline(min(times().slot_dead_seconds, self.waiting.remaining or 0.0))
        while True:
            seconds = (self.waiting.remaining or 0.0) if waits else times().slot_try_seconds
            slot = schedule_slot(slot_name(self.schedule), self.decision_log, wait_seconds=seconds)
            with suppress(SlotTaken):
                await unless_stopped(partial(stack.enter_async_context, slot), self.ledger.record.flow_run_id)
                return
            if not needs_none:
                conflict = await self._conflicting_run()
                # If the holder is alive, but Bolt does not run the schedule, it waits between a failure and a retry.
                if not (conflict.is_active or dead.passed):
                    continue
                why = "Another flow run in Prefect runs the schedule"
                if self._answer_to(conflict, why, "latest Bolt run of the schedule:") == "wait":
                    continue
            self.looks_first = True
            self.decision_log.note(
                "Another flow run, or a killed attempt of this one, holds the schedule's slot; "
                "continuing without it."
            )
            return

    async def run(self, request: TriggerRequest) -> None:
        """Trigger at most one Bolt run. Write the new run, or the run that we wait for instead, to the ledger."""
        if request.retry_of is None:
            return await self._run(request)
        # The Bolt runs before the retry do not count as a wait.
        self.waiting = Deadline(self.schedule.timeout_seconds)
        try:
            await self._run(request)
        except BoltUnsupported:
            await self._run(await self._rest_of(request, request.retry_of))

    async def _run(self, request: TriggerRequest) -> None:
        pause = 0.5
        while True:
            # Bolt may refuse again after a wait or a cancel: another Bolt run may still be running, or be listed late.
            pause = min(2 * pause, self.schedule.poll_interval_seconds)
            conflict = await self._conflicting_run() if self.looks_first else Conflict(None, is_active=False)
            if conflict.is_active:
                # The record may still name the run of an earlier intent.
                await self.ledger.withdraw()
            else:
                outage = self.schedule.max_outage_seconds
                async with self.schedule.credentials.get_client() as client:
                    trigger = Trigger(client, request, self.ledger, self.decision_log.note, outage)
                    try:
                        await trigger.run()
                    except BoltAlreadyRunning as error:
                        conflict = await self._conflicting_run(error)
                    except BoltError as failure:
                        raise failure.with_facts(schedule_name=self.asked.schedule_name) from failure
                    else:
                        return
                    if await self._is_ours(conflict.run, trigger):
                        return
            if await self._resolve(conflict):
                return
            await self.waiting.clock.sleep(pause)

    async def _resolve(self, conflict: Conflict) -> bool:
        """Do as the policy says. Return True if the ledger has a Bolt run to wait for, False to trigger again."""
        why, note = "The schedule is already running", self.decision_log.note
        other, answer = conflict.run, self._answer_to(conflict, why)
        if other is None:
            note(
                "Bolt reports the schedule as already running but lists no active run; waiting before triggering again."
            )
        elif answer == "wait":
            note(f"{why}; waiting for the end of Bolt run {other.run_id} before triggering.")
            limit = self.waiting.remaining or 0.0
            try:
                state = await other.await_for_completion(limit)
            except BoltRunError as error:
                still = BoltAlreadyRunning(f"The schedule was still running {limit:.0f} s later.")
                raise self._about(other, still) from error
            note(f"Bolt run {other.run_id} has ended as {state}.")
        elif answer == "replace":
            note(f"{why}; replacing Bolt run {other.run_id}.")
            await other.acancel()
        else:
            await self.how_it_differs(other)
            note(f"{why}; waiting for Bolt run {other.run_id}, which somebody else started.")
            await self.ledger.attached(other.run_id, Relation.ATTACHED)
            return True
        return False

    def _about(self, other: BoltRun | None, error: BoltError) -> BoltError:
        run_id, url = (None, None) if other is None else (other.run_id, other.url)
        return error.with_facts(schedule_name=self.asked.schedule_name, run_id=run_id, url=url)

    async def _conflicting_run(self, refused: BoltError | None = None) -> Conflict:
        """Return the conflict. If Bolt refused a trigger, there is another run, but Bolt may list it late."""
        name = self.asked.schedule_name
        appearing = Deadline(0.0 if refused is None else times().conflict_appears_seconds)
        async with self.schedule.credentials.get_client() as client:
            while True:
                # A backend that cannot list runs shows only the latest run.
                with suppress(BoltRequestError):
                    for listed in (await client.list_bolt_runs(name)).runs:
                        if not listed.state.is_terminal:
                            return Conflict(self.schedule.attach(listed.id), is_active=True, refused=refused)
                latest = (await client.get_bolt_schedule(name)).latest_run_id
                run = None if latest is None else self.schedule.attach(latest)
                is_active = run is not None and not (await run.astate()).is_terminal
                if is_active or appearing.passed:
                    return Conflict(run, is_active, refused)
                await appearing.clock.sleep(times().conflict_poll_seconds)

    async def _is_ours(self, other: BoltRun | None, trigger: Trigger) -> bool:
        """Whether our refused trigger may have started a Bolt run. If so, the ledger has this run to wait for.

        If a gateway sends our trigger twice, Bolt starts a run for the first copy and refuses the second one.
        """
        intent = trigger.intent
        if other is None or intent is None or other.run_id <= intent.latest_run_id:
            return False
        finding = await trigger.search(intent, 0.0)
        if Fit.OPEN in finding.fits.values():
            # At first, Bolt shows only the set-up commands of a run. Its next commands may differ from ours.
            finding = await trigger.search(intent, times().conflict_setup_seconds)
        if finding.run_id is None:
            is_foreign = not {Fit.YES, Fit.OPEN}.intersection(finding.fits.values())
            if finding.is_absent or (finding.candidates and is_foreign):
                return False
            why = "it is unknown which one" if finding.candidates else "Bolt cannot be asked"
            what = f"A refused trigger may have started a run, but {why}."
            raise finding.unknown_trigger(what, self.asked.schedule_name)
        self.decision_log.note(
            f"Bolt run {finding.run_id} started after our trigger was sent and runs the same commands, so it is "
            f"treated as ours and waited for. It will not be cancelled: another client may have started it."
        )
        await self.ledger.attached(finding.run_id, Relation.MAYBE_OURS)
        return True

    async def _rest_of(self, retry: TriggerRequest, run_id: int) -> TriggerRequest:
        """Return a request for what a retry of a Bolt run would run: its commands from the failed one on, or all."""
        what = "all its commands" if retry.retry_everything else "the failed command and those after it"
        self.decision_log.note(f"This backend cannot retry a run; triggering {what} instead.")
        async with self.schedule.credentials.get_client() as client:
            status = await client.get_bolt_run(run_id, logs=False)
            schedule = await client.get_bolt_schedule(retry.schedule_name)
        shown = [command.command for command in status.commands]
        # Each command keeps its `continueOnError`.
        planned: list[str | Command] = [*(self.asked.options.get("commands") or schedule.commands)]
        first = first_of([fingerprint_of(command_text(command)) for command in planned], shown)
        if first is None:
            # The run was triggered with other commands. Of these, Bolt shows only the commands that have started.
            first = count_setup(shown)
            planned = [*shown[first:]]
        failed = next((n for n, each in enumerate(status.commands) if each is status.first_failed_command), 0)
        start = 0 if retry.retry_everything else max(failed - first, 0)
        return replace(self.asked, retry_of=None).with_options(commands=planned[start:] or None)

    async def how_it_differs(self, other: BoltRun) -> str | None:
        """Describe how another client's Bolt run differs from the request; None if no difference is known so far."""
        differs = await difference_of(other, self.asked)
        if differs is not None:
            self.ledger.record.decision_log().note(differs)
            if self.on_already_running == "attach_if_same":
                raise self._about(other, BoltAlreadyRunning(differs))
        return differs


def slot_name(schedule: BoltSchedule) -> str:
    """Return the name of a schedule's concurrency limit. Characters that Prefect forbids there become a hash."""
    workspace = short_hash(f"{schedule.credentials.api_endpoint} {schedule.credentials.workspace_uid or ''}")
    plain = slugify(schedule.schedule_name, lowercase=False, regex_pattern=r"[^-a-zA-Z0-9_.]+")
    if plain != schedule.schedule_name:
        plain = f"{plain[:60]}-{short_hash(schedule.schedule_name)}"
    return f"paradime-bolt:{workspace}:{plain}"
