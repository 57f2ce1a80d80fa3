"""Our flows never run one schedule twice at once: there is a concurrency slot for each schedule."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.states import Cancelling
from support.prefect_api import latest_flow_run, logs_of
from support.processes import await_until

from paradime_blocks import BoltAlreadyRunning, BoltSchedule, ParadimeCredentials
from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_blocks.trigger.decision_log import DecisionLog
from paradime_flows.prefect_api import schedule_slot, slots
from paradime_flows.run_schedule import arun_schedule, run_schedule
from paradime_flows.runner.conflict import slot_name
from paradime_flows.time_limits import Timing, use_timing

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

QUICK: dict[str, Any] = {"poll_interval_seconds": 0.5, "live_logs": "off"}


@pytest.fixture
def daily(bolt_simulator: BoltSimulator, credentials: ParadimeCredentials) -> BoltSchedule:
    """A schedule for which Bolt itself would allow two runs at once."""
    bolt_simulator.clock.speed = 60
    command = SimulatedCommand("dbt run", duration_seconds=60, resources={})
    bolt_simulator.add_schedule("daily", commands=[command], setup_commands=False, already_running="allow")
    return BoltSchedule(credentials=credentials, schedule_name="daily")


async def slots_taken(schedule: BoltSchedule) -> float:
    async with get_client() as client:
        limit = await client.read_global_concurrency_limit_by_name(slot_name(schedule))
    return limit.active_slots


async def test_two_flow_runs_of_a_schedule_run_one_after_the_other(
    bolt_simulator: BoltSimulator, daily: BoltSchedule
) -> None:
    """Bolt would allow both, but the second waits until the first ends; then the slot is free."""
    await asyncio.gather(arun_schedule(daily, **QUICK), arun_schedule(daily, **QUICK))
    first, second = bolt_simulator.runs("daily")
    assert first.ended_at is not None
    assert first.ended_at <= second.started_at
    assert await slots_taken(daily) == 0


@pytest.mark.parametrize("policy", ["attach", "replace", "fail", "skip", "wait"])
async def test_the_policy_holds_where_bolt_allows_parallel_runs(
    bolt_simulator: BoltSimulator, daily: BoltSchedule, policy: str
) -> None:
    """Somebody else has started a run. Bolt would not refuse ours. Only `wait` leaves it to Bolt."""
    # Their run does not end before ours has seen it.
    bolt_simulator.clock.speed = 0
    theirs = bolt_simulator.start_run("daily")
    ours = asyncio.create_task(arun_schedule(daily, on_already_running=policy, return_state=True, **QUICK))
    seen = "listBoltRuns" if policy == "attach" else "triggerBoltRun"

    async def has_seen_it() -> bool:
        return ours.done() or bolt_simulator.count(seen) > 0

    await await_until(has_seen_it, "a flow run that has seen the other run")
    bolt_simulator.clock.speed = 60
    await ours
    runs = bolt_simulator.runs("daily")
    assert len(runs) == (2 if policy in {"replace", "wait"} else 1)
    assert (bolt_simulator.run(theirs).state == "CANCELED") is (policy == "replace")
    if policy == "replace":
        assert runs[0].ended_at is not None
        assert runs[0].ended_at <= runs[1].started_at


async def test_a_flow_run_that_waits_for_its_slot_notices_a_cancel(
    bolt_simulator: BoltSimulator, daily: BoltSchedule
) -> None:
    """It ends as cancelled and has triggered nothing; the slot stays with its holder."""
    name = f"waits for its slot {bolt_simulator.api_endpoint}"
    async with schedule_slot(slot_name(daily), DecisionLog(), wait_seconds=5):
        flow = run_schedule.with_options(flow_run_name=name)
        with use_timing(Timing(slot_log_after_seconds=0.5)):
            waiting = asyncio.create_task(flow(daily, return_state=True, **QUICK))
        flow_run = await await_until(
            lambda: _waiting_run(name), "a flow run that waits for the slot", every=0.4
        )
        async with get_client() as client:
            await client.set_flow_run_state(flow_run.id, Cancelling(), force=True)
        assert (await waiting).is_cancelled()
        assert await slots_taken(daily) == 1
    assert bolt_simulator.runs() == []
    assert await slots_taken(daily) == 0


async def _waiting_run(name: str) -> FlowRun | None:
    async with get_client() as client:
        named = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        found = await client.read_flow_runs(flow_run_filter=named)
    if not found:
        return None
    messages = await logs_of(found[0].id)
    return (
        found[0]
        if any("Waiting for the schedule's concurrency slot" in message for message in messages)
        else None
    )


@pytest.mark.parametrize("policy", ["fail", "wait"])
async def test_the_wait_for_a_slot_is_bounded(
    bolt_simulator: BoltSimulator, daily: BoltSchedule, policy: str
) -> None:
    """The limit is the time limit, and a moment for a policy that does not wait."""
    async with schedule_slot(slot_name(daily), DecisionLog(), wait_seconds=5):
        with pytest.raises(BoltAlreadyRunning, match="Another flow run"):
            await arun_schedule(daily, on_already_running=policy, timeout_seconds=4, **QUICK)
    assert bolt_simulator.runs() == []


async def test_a_slot_costs_the_requests_that_take_and_release_it(
    daily: BoltSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it is held below the length of its lease. The first holder of all also makes the limit."""
    send, sent = httpx.AsyncHTTPTransport.handle_async_request, list[str]()

    async def note(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        # Prefect sends the log of earlier tests from a thread of its own, at any moment.
        if not path.endswith("/logs/"):
            sent.append(path.rpartition("/")[2])
        return await send(transport, request)

    async with schedule_slot(slot_name(daily), DecisionLog(), wait_seconds=5):
        assert await slots_taken(daily) == 1
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", note)
    async with schedule_slot(slot_name(daily), DecisionLog(), wait_seconds=5):
        pass
    assert sent == ["increment-with-lease", "decrement-with-lease"]


async def test_the_lease_on_a_slot_is_renewed(daily: BoltSchedule, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a slot stays taken for longer than its lease."""
    renewed = asyncio.Event()
    renew = PrefectClient.renew_concurrency_lease

    async def note(client: PrefectClient, lease_id: UUID, lease_duration: float) -> httpx.Response:
        answer = await renew(client, lease_id, lease_duration)
        renewed.set()
        return answer

    monkeypatch.setattr(PrefectClient, "renew_concurrency_lease", note)
    monkeypatch.setattr(slots, "_RENEWED_AFTER", 0.001)
    async with schedule_slot(slot_name(daily), DecisionLog(), wait_seconds=5):
        await asyncio.wait_for(renewed.wait(), 30)


async def test_a_slot_whose_lease_cannot_be_renewed_is_released(
    daily: BoltSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work goes on without the slot, and another flow run can take the slot."""

    async def refuse(*_: object) -> None:
        raise RuntimeError("this server has forgotten the lease")

    monkeypatch.setattr(PrefectClient, "renew_concurrency_lease", refuse)
    monkeypatch.setattr(slots, "_RENEWED_AFTER", 0.001)

    async def is_free() -> bool:
        return await slots_taken(daily) == 0

    async with schedule_slot(slot_name(daily), DecisionLog(), wait_seconds=5):
        await await_until(is_free, "the release of the slot")


async def test_a_flow_run_can_run_without_a_slot(bolt_simulator: BoltSimulator, daily: BoltSchedule) -> None:
    """`one_at_a_time=False`."""
    async with schedule_slot(slot_name(daily), DecisionLog(), wait_seconds=5):
        await arun_schedule(daily, one_at_a_time=False, **QUICK)
    assert len(bolt_simulator.runs()) == 1


async def test_a_prefect_without_slots_does_not_stop_a_run(
    bolt_simulator: BoltSimulator, daily: BoltSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run continues without a slot, and the log says so."""

    async def refuse(*_: object) -> None:
        msg = "no such feature on this plan"
        raise RuntimeError(msg)

    monkeypatch.setattr(PrefectClient, "create_global_concurrency_limit", refuse)
    await arun_schedule(daily, **QUICK)
    assert len(bolt_simulator.runs()) == 1
    flow_run = await latest_flow_run("run-schedule")

    async def said() -> bool:
        return any("continuing without the slot" in message for message in await logs_of(flow_run.id))

    # Prefect sends the last log lines a moment later.
    await await_until(said, "the log line about the slot")


async def test_names_that_prefect_would_refuse_are_kept_apart(
    daily: BoltSchedule, credentials: ParadimeCredentials
) -> None:
    """A schedule of any name gets a limit; no two names share one."""
    names = set()
    for name in ("daily", "a/b", "a b", "a%b", "ä & ö > ü", "x" * 300):
        schedule = BoltSchedule(credentials=credentials, schedule_name=name)
        names.add(slot_name(schedule))
        async with schedule_slot(slot_name(schedule), DecisionLog(), wait_seconds=5):
            assert await slots_taken(schedule) == 1
    assert len(names) == 6


@pytest.mark.parametrize("end", ["failure", "time limit"])
async def test_the_slot_is_released_however_the_run_ends(
    bolt_simulator: BoltSimulator, daily: BoltSchedule, end: str
) -> None:
    """After a failed run or a time-out, the next flow run need not wait for a lease to expire."""
    command = SimulatedCommand("dbt run", duration_seconds=1 if end == "failure" else 100_000, return_code=1)
    bolt_simulator.add_schedule("daily", commands=[command])
    state = await run_schedule(daily, timeout_seconds=3, return_state=True, **QUICK)
    assert state.is_failed()
    assert [run.state for run in bolt_simulator.runs()] == ["FAILED" if end == "failure" else "CANCELED"]
    assert await slots_taken(daily) == 0
