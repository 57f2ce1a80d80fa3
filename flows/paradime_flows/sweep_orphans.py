"""The flow `sweep_orphans`: finds Bolt runs that no flow run waits for any longer."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Annotated, Literal
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, Field

from paradime_blocks.credentials import ParadimeCredentials
from paradime_blocks.errors import BoltError, BoltRunTimedOut
from paradime_blocks.models import BoltRunState, run_url
from paradime_blocks.run import BoltRun
from paradime_blocks.schedule import TIMEOUT_SECONDS
from paradime_blocks.text.rendering import one_line
from paradime_blocks.trigger.decision_log import Trail
from paradime_blocks.trigger.search import Verdict
from paradime_flows.ledger.entry import FlowRunLedger, Ownership, read_ownerships
from paradime_flows.ledger.store import Superseded, body_of
from paradime_flows.parameters import CredentialsParameter
from paradime_flows.prefect_api.artifacts import ArtifactWriter
from paradime_flows.prefect_api.context import current_flow_run_id, run_logger
from paradime_flows.prefect_api.dispatch import async_form, bolt_flow
from paradime_flows.prefect_api.inputs import resolve_credentials
from paradime_flows.prefect_api.timing import timing
from paradime_flows.supervision.flow_run_end import end_in_its_place
from paradime_flows.supervision.heartbeat import (
    alive_for_another,
    last_sign,
    seconds_since_last_sign,
)
from paradime_flows.supervision.orphans import (
    SWEPT,
    candidates,
    ended_badly,
    idle_seconds,
    is_cancelled,
    is_left,
    is_taken_up_from_above,
    may_have_vanished,
    may_live,
)
from paradime_flows.supervision.reconcile import (
    all_have_ended,
    archive_ownership,
    find_run,
    is_known_to_be_cancelled,
    see_that_it_is_held,
    settle,
)
from paradime_flows.supervision.time_left import remaining_seconds

SweepAction = Literal["cancel", "attach", "report"]

_AT_ONCE = 8


class _CancelledMeanwhile(Exception):
    """Somebody has cancelled the flow run whose Bolt run the sweep waits for."""


class SweptRun(BaseModel):
    """What the sweep found of one flow run, and did.

    Attributes:
        flow_run_id: The flow run.
        flow_run_name: Its name.
        flow_run_state: The state that Prefect holds it for.
        schedule_name: The schedule that it ran.
        run_id: The Bolt run; None if it could not be told.
        state: The Bolt run's state after the sweep; None if it could not be told.
        done: What was done, as a sentence.
    """

    flow_run_id: UUID
    flow_run_name: str
    flow_run_state: str
    schedule_name: str
    run_id: int | None = None
    state: BoltRunState | None = None
    done: str = ""


@bolt_flow(
    name="sweep-orphans",
    description="Finds Bolt runs whose flow run has crashed, ended or vanished, and cancels or takes them up.",
)
async def sweep_orphans(
    credentials: CredentialsParameter = None,
    *,
    action: SweepAction = "cancel",
    older_than_seconds: Annotated[float, Field(ge=0, le=30 * 86_400)] = 900,
    lookback_days: Annotated[float, Field(gt=0, le=365)] = 14,
) -> list[SweptRun]:
    """Find flow runs that are over, or silent, while they still answer for a Bolt run, and act on those.

    Safe to repeat, and for several at once. Each flow run is read again right before anything is done. One whose
    process has vanished is written as Crashed, or as Cancelled if that was asked for, also where nothing is left of it
    in Bolt.

    Args:
        credentials: A Paradime Credentials block or the name of one; only Bolt runs of its workspace are swept.
            Empty: the environment's.
        action: cancel: cancel the Bolt run; attach: wait for its end, or for that of its flow run's time limit, which
            cancels or leaves it as it would have, and archive it to its flow run, unless that was cancelled: then its
            Bolt run is, too; report: only tell.
        older_than_seconds: How long the flow run must have been over or silent, in seconds: the wait gives a
            retry the time to take the run up again. A run that `on_crash` or `on_interrupt` leaves for one is given
            a quarter of an hour at least; one whose flow run was cancelled is given none.
        lookback_days: How old a flow run may be at most, in days.

    Returns:
        What was found and done, one entry for each Bolt run.

    Example:
        ```python
        from paradime_flows.sweep_orphans import sweep_orphans

        for found in sweep_orphans(action="report"):
            print(found.flow_run_name, found.run_id, found.state)
        ```
    """
    found = await resolve_credentials(credentials)
    sweep = _Sweep(found, action, older_than_seconds)
    async with get_client() as client:
        flow_runs = await candidates(client, timedelta(days=lookback_days))
        orphans = [flow_run for flow_run in flow_runs if await sweep.is_orphan(client, flow_run)]
        run_logger().info("%d flow runs looked at, %d to be swept.", len(flow_runs), len(orphans))
        if any(may_live(flow_run) or sweep.is_young(flow_run) for flow_run in orphans):
            # Their clocks may be behind ours. Whoever lives writes another sign, or settles a cancel, within this time.
            await anyio.sleep(timing().two_beats_seconds)
        limiter = anyio.CapacityLimiter(_AT_ONCE)

        async def one(flow_run: FlowRun) -> None:
            async with limiter:
                await sweep.sweep(client, flow_run)

        async with anyio.create_task_group() as group:
            for flow_run in orphans:
                group.start_soon(one, flow_run)
    swept = sorted(sweep.swept, key=lambda entry: (entry.schedule_name, str(entry.flow_run_id)))
    await ArtifactWriter(current_flow_run_id()).table(
        "paradime-orphans", _rows(swept), _described(swept, action)
    )
    return swept


asweep_orphans = async_form(sweep_orphans)


class _Sweep:
    """One sweep: judges flow runs and settles what they answer for."""

    def __init__(
        self, credentials: ParadimeCredentials, action: SweepAction, older_than_seconds: float
    ) -> None:
        self.credentials = credentials
        self.action = action
        self.older_than_seconds = older_than_seconds
        self.swept: list[SweptRun] = []

    async def is_orphan(self, client: PrefectClient, flow_run: FlowRun) -> bool:
        """Whether a flow run has been over or silent for long enough while it answers for a run of this workspace.

        So is one of which nothing is left in Bolt, if Prefect still waits for its end. One that was cancelled need not
        have been: nobody comes back for its run.
        """
        if not (self._open(flow_run) or may_have_vanished(flow_run)) or idle_seconds(flow_run) < 0:
            return False
        return not self.is_young(flow_run) or await is_cancelled(client, flow_run)

    def is_young(self, flow_run: FlowRun) -> bool:
        """Whether a flow run has been over or silent for a short time only."""
        return idle_seconds(flow_run) < self.older_than_seconds

    def _open(self, flow_run: FlowRun) -> list[Ownership]:
        return [
            ownership
            for ownership in read_ownerships(flow_run)
            if ownership.is_open and ownership.owned and ownership.is_in(self.credentials)
        ]

    async def sweep(self, client: PrefectClient, seen: FlowRun) -> None:
        """Read a flow run again, and act on it if it still is an orphan.

        Args:
            client: An open client.
            seen: The flow run as it was listed.
        """
        try:
            await self._sweep(client, seen)
        except ObjectNotFound:
            run_logger().info("Flow run %s has been deleted meanwhile.", seen.id)
        except Superseded as superseded:
            run_logger().info("%s", superseded)
        except Exception as error:  # noqa: BLE001 - one flow run's trouble must not end the sweep
            run_logger().error("Flow run %s could not be swept: %s", seen.id, error)
            told = f"not done: {one_line(str(error), 200)}"
            self.swept += [self._entry(seen, ownership, told) for ownership in self._open(seen)]

    async def _sweep(self, client: PrefectClient, seen: FlowRun) -> None:
        flow_run = await client.read_flow_run(seen.id)
        lives = may_live(flow_run) and last_sign(flow_run) != last_sign(seen)
        if (
            lives
            or flow_run.state is None
            or flow_run.state.type not in SWEPT
            or not await self.is_orphan(client, flow_run)
            or await is_taken_up_from_above(client, flow_run)
        ):
            return
        settled = True
        for ownership in self._open(flow_run):
            entry = self._entry(flow_run, ownership)
            self.swept.append(entry)
            try:
                await self._act(client, entry, ownership, flow_run)
            except BoltError as error:
                entry.done = f"not done: {error.message}"
                run_logger().error("%s", error)
            except Superseded:
                entry.done = "the flow run has been taken up again"
                raise
            entry.run_id = ownership.run_id
            settled = settled and not ownership.is_open
        if settled and self.action != "report":
            await _write_the_end(client, flow_run)

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
        why = f"The sweeper found the flow run {entry.flow_run_state} while its Bolt run was not settled."
        # A process that is known to be dead may have died just now.
        since_sign = seconds_since_last_sign(flow_run)
        idle = idle_seconds(flow_run)
        young = min(idle, idle if since_sign is None else since_sign) < timing().left_for_retry_seconds
        cancelled = await is_cancelled(client, flow_run)
        left = young and is_left(ownership, flow_run) and not cancelled
        # Nobody comes back for the run of a flow run that was cancelled.
        if (self.action == "cancel" and not left) or (self.action == "attach" and cancelled):
            entry.state = await settle(ownership, self.credentials, why)
            entry.done = _done(ownership, entry.state)
            return
        finding = await find_run(ownership, self.credentials, Trail(ownership.notes))
        if finding.verdict is not Verdict.FOUND or ownership.run_id is None:
            absent = finding.verdict is Verdict.ABSENT
            entry.done = "no Bolt run was started" if absent else "the Bolt run cannot be told"
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
        """Wait for a run in place of its flow run: until its end, its time limit, or a cancel."""
        limit = ownership.limit_seconds or TIMEOUT_SECONDS

        async def look(_: object) -> None:
            await see_that_it_is_held(ownership)
            if await is_known_to_be_cancelled(ownership.flow_run_id):
                raise _CancelledMeanwhile

        async with alive_for_another(ownership.flow_run_id):
            remaining = await remaining_seconds(ownership, self.credentials, limit)
            try:
                entry.state = await run.await_for_completion(
                    max(1.0, remaining), watcher=look, whole_seconds=limit
                )
                entry.done = f"waited for; it ended as {entry.state}"
            except _CancelledMeanwhile:
                why = "The flow run was cancelled in Prefect while the sweeper waited for its Bolt run."
                entry.state = await settle(ownership, self.credentials, why)
                entry.done = _done(ownership, entry.state)
                return
            except BoltRunTimedOut:
                why = f"{why} Its time limit has passed."
                is_to_end = ownership.owned and ownership.on_timeout == "cancel"
                # Not without a look at whose it is by now.
                settled = await settle(ownership, self.credentials, why) if is_to_end else None
                entry.state = settled or await run.astate()
                entry.done = f"waited for until its time limit; it is {entry.state}"
                if is_to_end:
                    return
        ownership.state = entry.state
        ownership.notes.append((datetime.now(timezone.utc).isoformat(timespec="seconds"), why))
        await see_that_it_is_held(ownership)
        await archive_ownership(ownership, self.credentials, outcome=why)
        # Whoever retries the flow run is told how it ended.
        await FlowRunLedger(ownership).close(entry.state, reported=False)


async def _write_the_end(client: PrefectClient, flow_run: FlowRun) -> None:
    """Write the end that a vanished process could not write, unless somebody has begun the flow run again."""
    now = await client.read_flow_run(flow_run.id)
    same = now.state is not None and flow_run.state is not None and now.state.id == flow_run.state.id
    # Somebody may have cancelled it while it was waited for.
    same = same or (now.state is not None and now.state.is_cancelling())
    if ended_badly(flow_run) or not same or body_of(now) != body_of(flow_run):
        return
    message = "The process of this flow run has vanished; nothing of it is left to look after in Bolt."
    run_logger().info("The process of flow run %r has vanished; its end is written.", flow_run.name)
    await end_in_its_place(client, now, message)


def _done(ownership: Ownership, state: BoltRunState | None) -> str:
    if ownership.run_id in {None, ownership.failed_run}:
        return "no Bolt run was started" if ownership.intent is None else "the Bolt run cannot be told"
    if state == BoltRunState.CANCELED:
        return "cancelled"
    return f"had ended by itself as {state}" if state is not None else "left as it is"


def _rows(swept: list[SweptRun]) -> list[dict[str, object]]:
    return [
        {
            "Schedule": entry.schedule_name,
            "Flow run": entry.flow_run_name,
            "State in Prefect": entry.flow_run_state,
            "Bolt run": entry.run_id or "",
            "State in Bolt": str(entry.state or ""),
            "Done": entry.done,
            "Page": run_url(entry.run_id) if entry.run_id else "",
        }
        for entry in swept
    ]


def _described(swept: list[SweptRun], action: SweepAction) -> str:
    return f"{len(swept)} Bolt runs without a flow run to wait for them; action: {action}."
