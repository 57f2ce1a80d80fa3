"""Sweeps once: acts on flow runs that are over, or have no heartbeat any more, while their Bolt run is open."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel

from paradime_blocks import BoltError, BoltRun, BoltRunState, BoltRunTimedOut, ParadimeCredentials
from paradime_blocks.polling import TIMEOUT_SECONDS
from paradime_blocks.text import one_line
from paradime_blocks.trigger import DecisionLog, Verdict
from paradime_flows.ledger import FlowRunLedger, Ownership, Superseded, execution_of, read_ownerships
from paradime_flows.prefect_api import run_logger, set_final_state, times
from paradime_flows.supervision.heartbeat import (
    alive_for_another,
    last_sign,
    seconds_since_last_sign,
)
from paradime_flows.supervision.orphans import (
    SWEPT,
    ended_badly,
    idle_seconds,
    is_cancelled,
    is_left_for_retry,
    is_resumed_by_parent,
    may_have_vanished,
    may_live,
)
from paradime_flows.supervision.reconcile import (
    all_have_ended,
    archive_ownership,
    check_ownership_lease,
    clean_up,
    find_run,
    is_cancelled_if_known,
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
        done: What was done, as a sentence.
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
        """Whether a flow run has been over, or without a heartbeat, for long enough, and has an open Bolt run.

        The Bolt run must be in the sweep's workspace. A flow run without an open Bolt run is an orphan, too, if Prefect
        still waits for its end. A cancelled flow run is an orphan at once: nobody resumes its Bolt run.
        """
        if not (self._open(flow_run) or may_have_vanished(flow_run)) or idle_seconds(flow_run) < 0:
            return False
        return not self.is_young(flow_run) or await is_cancelled(client, flow_run)

    def is_young(self, flow_run: FlowRun) -> bool:
        """Whether a flow run has been over, or without a heartbeat, for a short time only."""
        return idle_seconds(flow_run) < self.older_than_seconds

    def _open(self, flow_run: FlowRun) -> list[Ownership]:
        return [
            ownership
            for ownership in read_ownerships(flow_run)
            if ownership.is_open and ownership.owned and ownership.is_in(self.credentials)
        ]

    async def sweep(self, client: PrefectClient, seen: FlowRun) -> None:
        """Read a flow run again, and act on it if it is still an orphan.

        Args:
            client: An open client.
            seen: The flow run, as it was listed before.
        """
        try:
            await self._sweep(client, seen)
        except ObjectNotFound:
            run_logger().info("Flow run %s was deleted during the sweep.", seen.id)
        except Superseded as superseded:
            run_logger().info("%s", superseded)
        except Exception as error:  # noqa: BLE001 - an error with one flow run must not end the sweep
            run_logger().error("Could not sweep flow run %s: %s", seen.id, error)
            done = f"not done: {one_line(str(error), 200)}"
            self.swept += [self._entry(seen, ownership, done) for ownership in self._open(seen)]

    async def _sweep(self, client: PrefectClient, seen: FlowRun) -> None:
        flow_run = await client.read_flow_run(seen.id)
        lives = may_live(flow_run) and last_sign(flow_run) != last_sign(seen)
        if (
            lives
            or flow_run.state is None
            or flow_run.state.type not in SWEPT
            or not await self.is_orphan(client, flow_run)
            or await is_resumed_by_parent(client, flow_run)
        ):
            return
        all_closed = True
        for ownership in self._open(flow_run):
            entry = self._entry(flow_run, ownership)
            self.swept.append(entry)
            try:
                await self._act(client, entry, ownership, flow_run)
            except BoltError as error:
                entry.done = f"not done: {error.message}"
                run_logger().error("%s", error)
            except Superseded:
                entry.done = "the flow run has started again"
                raise
            entry.run_id = ownership.run_id
            all_closed = all_closed and not ownership.is_open
        if all_closed and self.action != "report":
            await _write_final_state(client, flow_run)

    @staticmethod
    def _entry(flow_run: FlowRun, ownership: Ownership, done: str = "") -> SweptRun:
        state = flow_run.state
        return SweptRun(
            flow_run_id=flow_run.id,
            flow_run_name=flow_run.name,
            flow_run_state=(state.name or state.type.value) if state else "",
            schedule_name=ownership.schedule,
            run_id=ownership.run_id,
            done=done,
        )

    async def _act(
        self, client: PrefectClient, entry: SweptRun, ownership: Ownership, flow_run: FlowRun
    ) -> None:
        why = f"The sweeper found the flow run {entry.flow_run_state} while its Bolt run was still open."
        # If the process is known to be dead, it may have died just now: so the age of the heartbeat counts, too.
        since_sign = seconds_since_last_sign(flow_run)
        idle = idle_seconds(flow_run)
        young = min(idle, idle if since_sign is None else since_sign) < times().left_for_retry_seconds
        cancelled = await is_cancelled(client, flow_run)
        left = young and is_left_for_retry(ownership, flow_run) and not cancelled
        # If a flow run was cancelled, nobody resumes its Bolt run.
        if (self.action == "cancel" and not left) or (self.action == "attach" and cancelled):
            entry.state = await clean_up(ownership, self.credentials, why)
            entry.done = _done(ownership, entry.state)
            return
        finding = await find_run(ownership, self.credentials, DecisionLog(ownership.notes))
        if finding.verdict is not Verdict.FOUND or ownership.run_id is None:
            absent = finding.verdict is Verdict.ABSENT
            entry.done = "no Bolt run was started" if absent else "the Bolt run is unknown"
            if absent and self.action != "report":
                await FlowRunLedger(ownership).withdraw()
            elif self.action == "attach" and await all_have_ended(finding, self.credentials):
                await FlowRunLedger(ownership).close(None, reported=False)
            return
        run = BoltRun(ownership.run_id, self.credentials, ownership.schedule)
        if self.action != "attach":
            entry.state = await run.astate()
            entry.done = (
                "reported only" if self.action == "report" else "left for a retry, as its policy says"
            )
            return
        await self._attach(entry, ownership, run, why)

    async def _attach(self, entry: SweptRun, ownership: Ownership, run: BoltRun, why: str) -> None:
        """Wait for a Bolt run instead of the flow run: until the end or time limit of the Bolt run, or a cancel."""
        limit = ownership.limit_seconds or TIMEOUT_SECONDS

        async def check(_: object) -> None:
            await check_ownership_lease(ownership)
            if await is_cancelled_if_known(ownership.flow_run_id):
                raise _CancelledMeanwhile

        async with alive_for_another(ownership.flow_run_id):
            remaining = await remaining_seconds(ownership, self.credentials, limit)
            try:
                entry.state = await run.await_for_completion(
                    max(1.0, remaining), watcher=check, whole_seconds=limit
                )
                entry.done = f"waited for; it ended as {entry.state}"
            except _CancelledMeanwhile:
                why = "The flow run was cancelled in Prefect while the sweeper waited for its Bolt run."
                entry.state = await clean_up(ownership, self.credentials, why)
                entry.done = _done(ownership, entry.state)
                return
            except BoltRunTimedOut:
                why = f"{why} Its time limit has passed."
                is_to_end = ownership.owned and ownership.on_timeout == "cancel"
                # The clean-up first checks whether another process tracks the Bolt run now.
                ended = await clean_up(ownership, self.credentials, why) if is_to_end else None
                entry.state = ended or await run.astate()
                entry.done = f"waited for until its time limit; its state is {entry.state}"
                if is_to_end:
                    return
        ownership.state = entry.state
        ownership.notes.append((datetime.now(timezone.utc).isoformat(timespec="seconds"), why))
        await check_ownership_lease(ownership)
        await archive_ownership(ownership, self.credentials, outcome=why)
        # A retry of the flow run reports how the Bolt run ended.
        await FlowRunLedger(ownership).close(entry.state, reported=False)


async def _write_final_state(client: PrefectClient, flow_run: FlowRun) -> None:
    """Write the final state that a vanished process could not write, unless the flow run has started again."""
    now = await client.read_flow_run(flow_run.id)
    same = now.state is not None and flow_run.state is not None and now.state.id == flow_run.state.id
    # Somebody may have cancelled the flow run during the wait.
    same = same or (now.state is not None and now.state.is_cancelling())
    if ended_badly(flow_run) or not same or execution_of(now) != execution_of(flow_run):
        return
    message = "The flow run's process stopped without reporting; no Bolt run of it is left to track."
    run_logger().info("The process of flow run %r stopped without reporting; writing its end.", flow_run.name)
    await set_final_state(client, now, message)


def _done(ownership: Ownership, state: BoltRunState | None) -> str:
    if ownership.run_id in {None, ownership.failed_run}:
        return "no Bolt run was started" if ownership.intent is None else "the Bolt run is unknown"
    if state == BoltRunState.CANCELED:
        return "cancelled"
    return f"had already ended as {state}" if state is not None else "left as it is"
