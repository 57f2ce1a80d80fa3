"""One sweep: cleans up the Bolt runs of flow runs that have ended or send no heartbeats any more."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel

from paradime_blocks import BoltError, BoltRun, BoltRunState, BoltRunTimedOut, ParadimeCredentials
from paradime_blocks.models import run_url
from paradime_blocks.polling import TIMEOUT_SECONDS
from paradime_blocks.text import one_line
from paradime_blocks.trigger import Verdict
from paradime_flows.ledger import (
    FlowRunLedger,
    Record,
    Superseded,
    execution_of,
    last_sign_of_life,
    read_records,
)
from paradime_flows.prefect_api import end_left_task_runs, run_logger, set_final_state, times
from paradime_flows.supervision.archiving import archive_record
from paradime_flows.supervision.decide import Action, Event, Search, decide, event_of_orphan
from paradime_flows.supervision.heartbeat import alive_for_another
from paradime_flows.supervision.orphans import (
    SWEPT,
    ended_badly,
    idle_seconds,
    is_cancelled,
    is_resumed_by_parent,
    may_have_vanished,
    may_live,
)
from paradime_flows.supervision.reconcile import (
    find_run,
    hold_if_known,
    is_cancelled_if_known,
    reconcile_run,
    search_of,
)
from paradime_flows.supervision.time_left import remaining_seconds

SweepAction = Literal["cancel", "attach", "report"]


class _CancelledMeanwhile(Exception):
    """The flow run was cancelled while the sweep was waiting for its Bolt run."""


class SweptRun(BaseModel):
    """What the sweep found and did for one flow run.

    Attributes:
        flow_run_id: The flow run.
        flow_run_name: The name of the flow run.
        flow_run_state: The state of the flow run in Prefect.
        schedule_name: The schedule that the flow run ran.
        run_id: The Bolt run; None if the Bolt run is unknown.
        state: The state of the Bolt run after the sweep; None if the state is unknown.
        done: What the sweep did, in a few words.
    """

    flow_run_id: UUID
    flow_run_name: str
    flow_run_state: str
    schedule_name: str
    run_id: int | None = None
    state: BoltRunState | None = None
    done: str = ""


class Sweep:
    """One sweep: decides which flow runs are orphans, and cleans up their Bolt runs."""

    def __init__(
        self, credentials: ParadimeCredentials, action: SweepAction, older_than_seconds: float
    ) -> None:
        self.credentials = credentials
        self.action = action
        self.older_than_seconds = older_than_seconds
        self.swept: list[SweptRun] = []

    async def is_orphan(self, client: PrefectClient, flow_run: FlowRun) -> bool:
        """Whether a flow run has ended or lost its process, with an open Bolt run of our workspace or no final state.

        A flow run is an orphan only after the time `older_than_seconds`. A cancelled flow run is an orphan at once,
        because nobody resumes its Bolt run.
        """
        return self.waits(flow_run) and (not self.is_young(flow_run) or await is_cancelled(client, flow_run))

    def waits(self, flow_run: FlowRun) -> bool:
        """Whether a flow run has ended or lost its process, however short a time ago, and has something to clean up."""
        return bool(self._open(flow_run) or may_have_vanished(flow_run)) and idle_seconds(flow_run) >= 0

    def is_young(self, flow_run: FlowRun) -> bool:
        """Whether a flow run ended, or sent its last heartbeat, only a short time ago."""
        return idle_seconds(flow_run) < self.older_than_seconds

    def _open(self, flow_run: FlowRun) -> list[Record]:
        return [
            record
            for record in read_records(flow_run)
            if record.is_open and record.may_be_cancelled and record.is_in(self.credentials)
        ]

    async def sweep(self, client: PrefectClient, seen: FlowRun) -> None:
        """Read a flow run again, as it may have changed after it was listed. If it is still an orphan, act on it."""
        try:
            await self._sweep(client, seen)
        except ObjectNotFound:
            run_logger().info("Flow run %s was deleted during the sweep.", seen.id)
        except Superseded as superseded:
            run_logger().info("%s", superseded)
        except Exception as error:  # noqa: BLE001 - an error with one flow run must not end the sweep
            run_logger().error("Could not sweep flow run %s: %s", seen.id, error)
            done = f"not done: {one_line(str(error), 200)}"
            self.swept += [self._entry(seen, record, done) for record in self._open(seen)]

    async def _sweep(self, client: PrefectClient, seen: FlowRun) -> None:
        flow_run = await client.read_flow_run(seen.id)
        lives = may_live(flow_run) and last_sign_of_life(flow_run.labels) != last_sign_of_life(seen.labels)
        if (
            lives
            or flow_run.state is None
            or flow_run.state.type not in SWEPT
            or not await self.is_orphan(client, flow_run)
            or await is_resumed_by_parent(client, flow_run)
        ):
            return
        all_closed = True
        for record in self._open(flow_run):
            entry = self._entry(flow_run, record)
            self.swept.append(entry)
            try:
                await self._act(client, entry, record, flow_run)
            except BoltError as error:
                entry.done = f"not done: {error.message}"
                run_logger().error("%s", error)
            except Superseded:
                entry.done = "not done: the flow run has started again"
                raise
            entry.run_id = record.run_id
            all_closed = all_closed and not record.is_open
        if all_closed and self.action != "report":
            await _write_final_state(client, flow_run, self._ends(flow_run))

    def _ends(self, flow_run: FlowRun) -> str:
        """Return what the sweep did to the Bolt runs of a flow run, in one line."""
        ends = [
            f"Bolt run {each.run_id} ({run_url(each.run_id)}): {each.done}."
            for each in self.swept
            if each.flow_run_id == flow_run.id and each.run_id is not None
        ]
        return " ".join(ends) or "The flow run has no Bolt run left to track."

    @staticmethod
    def _entry(flow_run: FlowRun, record: Record, done: str = "") -> SweptRun:
        state = flow_run.state
        return SweptRun(
            flow_run_id=flow_run.id,
            flow_run_name=flow_run.name,
            flow_run_state=(state.name or state.type.value) if state else "",
            schedule_name=record.schedule,
            run_id=record.run_id,
            done=done,
        )

    async def _act(self, client: PrefectClient, entry: SweptRun, record: Record, flow_run: FlowRun) -> None:
        why = f"The sweeper found the flow run in the state {entry.flow_run_state}. Nobody tracked its Bolt run."
        young = idle_seconds(flow_run) < times().left_for_retry_seconds
        event = event_of_orphan(flow_run.state, is_young=young, time_is_up=record.time_is_up)
        if await is_cancelled(client, flow_run):
            event = Event.CANCELLED
        ends = decide(record, event) is not Action.LEAVE
        # If the flow run was cancelled, the action `attach` also cancels the Bolt run: nobody will resume it.
        if (self.action == "cancel" and ends) or (self.action == "attach" and event is Event.CANCELLED):
            entry.state = await reconcile_run(record, self.credentials, event, why)
            entry.done = _done(record, entry.state)
            return
        finding = await find_run(record, self.credentials, record.decision_log())
        if finding.verdict is not Verdict.FOUND or record.run_id is None:
            absent = finding.verdict is Verdict.ABSENT
            entry.done = "no Bolt run was started" if absent else "the Bolt run is unknown"
            if absent and self.action != "report":
                await hold_if_known(record)
                await FlowRunLedger(record).withdraw()
            elif self.action == "attach" and await search_of(finding, self.credentials) is Search.ALL_ENDED:
                await hold_if_known(record)
                await FlowRunLedger(record).close(None, reported=False)
            return
        run = BoltRun(record.run_id, self.credentials, record.schedule)
        if self.action != "attach":
            entry.state = await run.astate()
            left = "left for a retry" if entry.state.is_terminal else "left running for a retry"
            entry.done = "only reported" if self.action == "report" else f"{left}, as the policy says"
            return
        await self._attach(entry, record, run, why)

    async def _attach(self, entry: SweptRun, record: Record, run: BoltRun, why: str) -> None:
        """Wait for a Bolt run in place of its flow run.

        The wait ends when the Bolt run has ended, when its time limit has passed, or when the flow run is cancelled.
        """
        limit = record.limit_seconds or TIMEOUT_SECONDS

        async def check(_: object = None) -> None:
            await hold_if_known(record)
            if await is_cancelled_if_known(record.flow_run_id):
                raise _CancelledMeanwhile

        try:
            await check()
            # The heartbeats tell other sweepers that somebody tracks the Bolt run.
            async with alive_for_another(record):
                remaining = await remaining_seconds(record, self.credentials, limit)
                entry.state = await run.await_for_completion(
                    max(1.0, remaining), watcher=check, whole_seconds=limit
                )
            entry.done = f"waited for; it ended as {entry.state}"
        except _CancelledMeanwhile:
            why = "The flow run was cancelled in Prefect while the sweeper waited for its Bolt run."
            entry.state = await reconcile_run(record, self.credentials, Event.CANCELLED, why)
            entry.done = _done(record, entry.state)
            return
        except BoltRunTimedOut:
            why = f"{why} The time limit of the Bolt run has passed."
            ended = None
            if decide(record, Event.TIME_LIMIT) is Action.CANCEL:
                # This first checks that no other process tracks the Bolt run now.
                ended = await reconcile_run(record, self.credentials, Event.TIME_LIMIT, why)
            entry.state = ended or await run.astate()
            entry.done = f"waited for until its time limit; its state is {entry.state}"
            if not record.is_open:
                return
        record.state = entry.state
        record.decision_log().note(why)
        await hold_if_known(record)
        await archive_record(record, self.credentials, outcome=why)
        # Nobody has reported the end of the Bolt run yet. A retry of the flow run reports it.
        await FlowRunLedger(record).close(entry.state, reported=False)


async def _write_final_state(client: PrefectClient, flow_run: FlowRun, ends: str) -> None:
    """Write the final state of a flow run whose process is gone, unless the flow run has started again."""
    now = await client.read_flow_run(flow_run.id)
    same = now.state is not None and flow_run.state is not None and now.state.id == flow_run.state.id
    # A cancel during the sweep also changes the state, but does not start the flow run again.
    same = same or (now.state is not None and now.state.is_cancelling())
    if not same or execution_of(now) != execution_of(flow_run):
        return
    message = f"The process of the flow run ended without a final state. {ends}"
    if ended_badly(flow_run):
        await end_left_task_runs(client, now.id, message)
        return
    run_logger().info(
        "The process of flow run %r ended without a final state; writing the state.", flow_run.name
    )
    await set_final_state(client, now, message)


def _done(record: Record, state: BoltRunState | None) -> str:
    if record.run_id in {None, record.failed_run}:
        return "no Bolt run was started" if record.intent is None else "the Bolt run is unknown"
    if state == BoltRunState.CANCELED:
        return "cancelled"
    return f"had already ended as {state}" if state is not None else "not changed"
