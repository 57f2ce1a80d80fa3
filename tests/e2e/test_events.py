"""The events of Bolt runs, read back from Prefect's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventIDFilter, EventNameFilter, EventRelatedFilter
from recorded import recorded_commands
from support.prefect_api import latest_flow_run
from support.processes import await_until

from paradime_blocks import BoltRunFailed, ParadimeCredentials
from paradime_flows.archive_run import archive_run
from paradime_flows.cancel_run import cancel_run
from paradime_flows.events import RunEvent, RunSubject, Workspace, emit_ended, known_events, run_event_id
from paradime_flows.run_schedule import run_schedule
from paradime_flows.tasks import trigger_bolt_run, wait_for_bolt_run

if TYPE_CHECKING:
    from prefect.events import Event

    from paradime_blocks.testing import BoltSimulator

pytestmark = pytest.mark.usefixtures("prefect_server")
WHOLE = [RunEvent.TRIGGERED, RunEvent.STARTED, RunEvent.COMPLETED]


async def events_of(credentials: ParadimeCredentials, run_id: int, wanted: list[RunEvent]) -> list[Event]:
    """Wait until Prefect has stored these events of a Bolt run, and return all events of the Bolt run by time."""
    ids = {event: run_event_id(Workspace.of(credentials), run_id, event) for event in RunEvent}
    found: list[Event] = []

    async def stored() -> bool:
        async with get_client() as client:
            page = await client.read_events(EventFilter(id=EventIDFilter(id=list(ids.values()))), limit=50)
        found[:] = sorted(page.events, key=lambda each: each.occurred)
        return {ids[event] for event in wanted} <= {each.id for each in found}

    await await_until(stored, f"{wanted}; there are {found}", within=60)
    return found


def role(event: Event, name: str) -> list[str]:
    return [each["prefect.resource.id"] for each in event.related if each.role == name]


async def test_a_run_that_succeeds_has_three_events(workspace: BoltSimulator, credentials: Any) -> None:
    """They name the schedule, its page and the flow run; none of them contains a secret."""
    await run_schedule(
        "quick", credentials
    )  # the events of the first flow run start Prefect's thread for events
    result = await run_schedule("quick", credentials)
    flow_run = await latest_flow_run("run-schedule")
    found = await events_of(credentials, result.run_id, WHOLE)
    assert [each.event for each in found] == [each.value for each in WHOLE]
    for event in found:
        assert event.resource.id == f"paradime.bolt-run.{result.run_id}"
        assert event.resource["schedule"] == "quick"
        assert event.resource["url"] == result.url
        assert role(event, "flow-run") == [f"prefect.flow-run.{flow_run.id}"]
        assert "prefect.tag.paradime-schedule:quick" not in role(event, "tag")
        assert workspace.api_secret not in event.model_dump_json()
    assert found[-1].resource["state"] == "SUCCESS"
    assert found[-1].payload["ended_at"]


async def test_a_flow_run_has_a_tag_for_its_schedule(workspace: BoltSimulator, credentials: Any) -> None:
    """In the UI, it filters the flow runs of one schedule."""
    await run_schedule("quick", credentials)
    flow_run = await latest_flow_run("run-schedule")
    assert {"paradime-bolt", "paradime-schedule:quick"} <= set(flow_run.tags)


async def test_a_run_that_fails_says_why(workspace: BoltSimulator, credentials: Any) -> None:
    """An automation can put the cause into its message."""
    with pytest.raises(BoltRunFailed) as failure:
        await run_schedule("failing", credentials)
    found = await events_of(credentials, failure.value.run_id, [RunEvent.FAILED])
    assert found[-1].resource["state"] == "FAILED"
    assert "dbt run" in found[-1].payload["cause"]


async def test_each_attempt_has_its_own_events(workspace: BoltSimulator, credentials: Any) -> None:
    """A retry in Bolt is a new Bolt run."""
    result = await run_schedule("once", credentials, retries=1, retry_delay_seconds=0)
    first, second = [attempt.run_id for attempt in result.attempts]
    assert [each.event for each in await events_of(credentials, first, [RunEvent.FAILED])] == [
        RunEvent.TRIGGERED.value,
        RunEvent.STARTED.value,
        RunEvent.FAILED.value,
    ]
    assert len(await events_of(credentials, second, WHOLE)) == 3


async def test_several_observers_of_one_end_make_one_event(
    workspace: BoltSimulator, credentials: Any
) -> None:
    """Prefect stores a repeated id once, and does not lose the other events that come with it."""
    result = await run_schedule("quick", credentials)
    await events_of(credentials, result.run_id, WHOLE)
    await archive_run(result.run_id, credentials, schedule_name="quick")
    subject = RunSubject.of(result.run_id, credentials, "quick")
    for _ in range(5):
        emit_ended(subject, result.state)
    other = RunSubject.of(result.run_id + 1_000_000, credentials, "other")
    emit_ended(other, result.state)
    await events_of(credentials, other.run_id, [RunEvent.COMPLETED])
    assert len(await events_of(credentials, result.run_id, WHOLE)) == 3


async def test_a_cancelled_run_has_its_event(workspace: BoltSimulator, credentials: Any) -> None:
    """Whoever cancels it."""
    run_id = workspace.start_run("endless")
    await cancel_run(run_id, credentials, schedule_name="endless")
    found = await events_of(credentials, run_id, [RunEvent.CANCELED])
    assert [each.event for each in found] == [RunEvent.CANCELED.value]


async def test_a_run_of_tasks_has_its_events(workspace: BoltSimulator, credentials: Any) -> None:
    """The trigger and the wait may be tasks of a user's own flow."""

    @flow
    async def with_tasks() -> int:
        run_id: int = await trigger_bolt_run("quick", credentials)
        await wait_for_bolt_run(run_id, credentials)
        return run_id

    run_id = await with_tasks()
    found = await events_of(credentials, run_id, [RunEvent.TRIGGERED, RunEvent.COMPLETED])
    assert role(found[0], "flow")


@pytest.mark.parametrize(
    "case, name, kind",
    [
        ("failure", "paradime.dbt-test.failed", "paradime.dbt-test."),
        ("stale_sources", "paradime.dbt-source.stale", "paradime.dbt-source."),
    ],
)
async def test_dbt_results_have_their_events(
    bolt_simulator: BoltSimulator, credentials: Any, case: str, name: str, kind: str
) -> None:
    """One for each failed test and each stale source of a real dbt project, with the asset that is concerned."""
    bolt_simulator.clock.speed = 100
    schedule = f"dbt-{uuid4().hex[:8]}"
    bolt_simulator.add_schedule(schedule, commands=recorded_commands(case, seconds=1), setup_commands=False)
    with pytest.raises(BoltRunFailed) as failure:
        await run_schedule(schedule, credentials)
    run = f"paradime.bolt-run.{failure.value.run_id}"
    wanted = EventFilter(event=EventNameFilter(name=[name]), related=EventRelatedFilter(id=[run]))

    async def ours() -> list[Event]:
        async with get_client() as client:
            page = await client.read_events(wanted, limit=50)
        return [each for each in page.events if each.resource["schedule"] == schedule]

    found = await await_until(ours, name, within=60)
    assert found
    assert all(each.resource.id.startswith(kind) for each in found)
    assert all(role(each, "asset") for each in found)
    assert all(role(each, "bolt-run") == [run] for each in found)


async def test_prefect_says_which_events_it_has(workspace: BoltSimulator, credentials: Any) -> None:
    """A late observer does not repeat what Prefect has stored."""
    subject = RunSubject.of(1, credentials, "quick")
    ids = [run_event_id(subject.workspace, 1, event) for event in (RunEvent.COMPLETED, RunEvent.FAILED)]
    emit_ended(subject, (await run_schedule("quick", credentials)).state)
    await await_until(lambda: known_events(ids[:1]), "the event", within=60)
    more = [run_event_id(subject.workspace, n, RunEvent.FAILED) for n in range(2, 120)]
    assert await known_events([*more, *ids]) == {ids[0]}
    assert await known_events([]) == set()
