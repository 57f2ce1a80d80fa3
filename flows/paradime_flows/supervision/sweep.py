"""One sweep: cleans up the Bolt runs of flow runs that have ended or send no heartbeats any more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from pydantic import BaseModel

from paradime_blocks import BoltError, BoltRun, BoltRunState, BoltRunTimedOut, ParadimeCredentials
from paradime_blocks.models import run_url
from paradime_blocks.polling import TIMEOUT_SECONDS
from paradime_blocks.text import one_line
from paradime_blocks.trigger import DecisionLog
from paradime_flows.ledger import FlowRunLedger, Record, Superseded, give_sign_of_life, hold
from paradime_flows.prefect_api import family_of, run_logger, set_final_state, times
from paradime_flows.supervision.decide import Action, Event, decide
from paradime_flows.supervision.orphans import orphan_event, records_to_end
from paradime_flows.supervision.reconcile import archive_of, find_run, reconcile_run, remaining_seconds
from paradime_flows.supervision.watch import is_cancelled, unless_unreachable

SweepAction = Literal["cancel", "attach", "report"]


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


@dataclass
class Sweep:
    """One sweep. `swept` lists what it has found and done so far."""

    client: PrefectClient
    credentials: ParadimeCredentials
    action: SweepAction
    older_than_seconds: float
    swept: list[SweptRun] = field(default_factory=list)
    _at_once: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(8))

    async def sweep(self, seen: FlowRun) -> None:
        """Read a flow run again, as it may have changed after it was listed. If it is still an orphan, clean it up."""
        async with self._at_once:
            try:
                family = await family_of(self.client, seen.id)
                flow_run = family[0]
                # A new label shows that somebody acts for the flow run: a process whose clock is behind ours, so that
                # its heartbeats only seemed old, a hook, or another sweeper.
                if flow_run.labels != seen.labels:
                    return
                event = orphan_event(family, self.older_than_seconds)
                records = records_to_end(flow_run, self.credentials)
                # An empty list means: there is no Bolt run, but the flow run needs its final state.
                if event is not None and records is not None:
                    await self._clean_up(flow_run, records, event)
            except Exception as error:  # noqa: BLE001 - an error with one flow run must not end the sweep
                run_logger().error("Could not sweep flow run %s: %s", seen.id, error)

    async def _clean_up(self, flow_run: FlowRun, records: list[Record], event: Event) -> None:
        """Clean up each Bolt run of a flow run, and report it at once. Then write the final state of the flow run."""
        name, state = flow_run.name, flow_run.state
        state_name = (state.name or state.type.value) if state else ""
        why = f"The sweeper found the flow run in the state {state_name}. Nobody tracked its Bolt run."
        ends = []
        for record in records:
            entry = SweptRun(
                flow_run_id=flow_run.id,
                flow_run_name=name,
                flow_run_state=state_name,
                schedule_name=record.schedule,
            )
            log = run_logger().info
            try:
                entry.state, entry.done = await self._act(record, event, why)
            except Superseded:
                entry.done = "not done: the flow run has started again"
            except Exception as error:  # noqa: BLE001 - an error with one Bolt run must not end the sweep
                message = error.in_one_line() if isinstance(error, BoltError) else one_line(str(error), 200)
                entry.done, log = f"not done: {message}", run_logger().error
            entry.run_id = record.run_id
            self.swept.append(entry)
            run = entry.run_id or "unknown"
            log("Flow run %r of %s, Bolt run %s: %s", name, record.schedule, run, entry.done)
            if entry.run_id is not None:
                ends.append(f"Bolt run {run} ({run_url(entry.run_id)}): {entry.done}.")
        if self.action != "report" and not any(record.is_open for record in records):
            told = " ".join(ends) or "The flow run has no Bolt run left to track."
            await _write_final_state(self.client, flow_run, told)

    async def _act(self, record: Record, event: Event, why: str) -> tuple[BoltRunState | None, str]:
        """Do what the action of the sweep says. Return the state of the Bolt run, and what was done, in words."""
        # Nobody resumes the Bolt run of a cancelled flow run, so nobody waits for it.
        if self.action == "attach" and event is not Event.CANCELLED:
            return await self._attach(record, why)
        if self.action != "report" and decide(record, event) is not Action.LEAVE:
            return await self._reconcile(record, event, why)
        if record.run_id is None:
            await find_run(record, self.credentials, DecisionLog())
        if record.run_id is None:
            return None, "no Bolt run was found"
        state = await BoltRun(record.run_id, self.credentials, record.schedule).astate()
        return state, "only reported" if self.action == "report" else "left for a retry, as the policy says"

    async def _attach(self, record: Record, why: str) -> tuple[BoltRunState | None, str]:
        """Wait for a Bolt run in place of its flow run, until its end, its time limit, or a cancel of the flow run."""
        found: tuple[BoltRunState | None, str] = None, ""
        if record.run_id is None:
            found = await self._reconcile(record, Event.SWEEPER_WAITS, why)
        if record.run_id is None or not record.is_open:
            return found
        run = BoltRun(record.run_id, self.credentials, record.schedule)
        limit = record.limit_seconds or TIMEOUT_SECONDS
        left = await remaining_seconds(record, self.credentials, limit)
        waiting = asyncio.create_task(run.await_for_completion(left, whole_seconds=limit))
        try:
            while not waiting.done():
                if await unless_unreachable(lambda client: _was_cancelled(client, record)):
                    why = "The flow run was cancelled in Prefect while the sweeper waited for its Bolt run."
                    return await self._reconcile(record, Event.CANCELLED, why)
                # If Prefect does not answer once, the next heartbeat still comes in time.
                await asyncio.wait({waiting}, timeout=times().beat_seconds / 2)
            record.state, done = await waiting, "waited for; it ended as"
            record.decision_log().note(why)
        except BoltRunTimedOut:
            done = "waited for until its time limit; its state is"
            why = f"{why} The time limit of the Bolt run has passed."
            ended, _ = await self._reconcile(record, Event.TIME_LIMIT, why)
            record.state = ended or await run.astate()
        finally:
            waiting.cancel()
        if record.is_open:
            await archive_of(record, self.credentials, why).run()
            # Nobody has reported the end of the Bolt run yet. A retry of the flow run reports it.
            await FlowRunLedger(record).close(record.state, reported=False)
        return record.state, f"{done} {record.state}"

    async def _reconcile(self, record: Record, event: Event, why: str) -> tuple[BoltRunState | None, str]:
        await reconcile_run(record, self.credentials, event, why)
        state = record.state
        if record.intent is None:
            return None, "no Bolt run was started" if record.run_id is None else "its retry was not started"
        if state is None or not state.is_terminal:
            return None, "the Bolt run is unknown" if record.run_id is None else "not changed"
        return state, "cancelled" if state == BoltRunState.CANCELED else f"had already ended as {state}"


async def _was_cancelled(client: PrefectClient, record: Record) -> bool:
    """Whether a flow run was cancelled. Other sweepers learn that somebody tracks its Bolt run."""
    await hold(client, record)
    await give_sign_of_life(client, record.flow_run_id, record.lease)
    return is_cancelled(await family_of(client, record.flow_run_id))


async def _write_final_state(client: PrefectClient, flow_run: FlowRun, ends: str) -> None:
    """Write the final state of a flow run whose process is gone, unless the flow run has started again."""
    now = await client.read_flow_run(flow_run.id)
    before, state = flow_run.state, now.state
    # A cancel during the sweep also changes the state, but does not start the flow run again.
    if before is None or state is None or (state.id != before.id and not state.is_cancelling()):
        return
    if not state.is_final():
        run_logger().info(
            "The process of flow run %r ended without a final state; writing the state.", now.name
        )
    await set_final_state(client, now, f"The process of the flow run ended without a final state. {ends}")
