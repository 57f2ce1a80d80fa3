"""`watch_runs` on a real server: what Bolt or a person started has its events, and is archived once."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventIDFilter
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow_async
from prefect.variables import Variable
from support.prefect_api import flow_runs_of

from paradime_blocks import BoltRequestError
from paradime_blocks.testing import faults
from paradime_flows import watch_runs as module
from paradime_flows.events import RunEvent, Workspace, run_event_id
from paradime_flows.run_schedule import run_schedule
from paradime_flows.time_limits import Timing, use_timing
from paradime_flows.watch_runs import watch_runs
from paradime_flows.watching import newest
from paradime_flows.watching.store import read_cursor

if TYPE_CHECKING:
    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]
ENDED = ["paradime.bolt-run.triggered", "paradime.bolt-run.started", "paradime.bolt-run.completed"]


async def stored(credentials: ParadimeCredentials, run_id: int) -> list[str]:
    """The events of a Bolt run that Prefect has stored, by name."""
    ids = [run_event_id(Workspace.of(credentials), run_id, event) for event in RunEvent]
    async with get_client() as client:
        page = await client.read_events(EventFilter(id=EventIDFilter(id=ids)), limit=50)
    return sorted(event.event for event in page.events)


async def test_the_first_look_sends_nothing(workspace: BoltSimulator, saved: str) -> None:
    """A workspace has thousands of old runs."""
    workspace.start_run("quick")
    assert await watch_runs(saved) == []
    assert await watch_runs(saved) == []


async def test_a_run_that_bolt_started_has_its_events(
    workspace: BoltSimulator, saved: str, credentials: Any
) -> None:
    """They are stored when the flow run ends, and the next flow run sends nothing again."""
    await watch_runs(saved)
    run_id = workspace.start_run("quick", actor="Scheduler")
    workspace.finish(run_id)
    (seen,) = await watch_runs(saved)
    assert (seen.run_id, seen.schedule_name, seen.state, seen.events) == (run_id, "quick", "SUCCESS", ENDED)
    assert await stored(credentials, run_id) == sorted(ENDED)
    assert await watch_runs(saved) == []


async def test_the_events_come_as_the_run_goes_on(workspace: BoltSimulator, saved: str) -> None:
    """One look while it is running, and one after its end."""
    await watch_runs(saved)
    run_id = workspace.start_run("endless")
    workspace.clock.advance(120)
    (seen,) = await watch_runs(saved)
    assert seen.events == ENDED[:2]
    assert await watch_runs(saved) == []
    workspace.finish(run_id, "FAILED")
    (seen,) = await watch_runs(saved)
    assert seen.events == ["paradime.bolt-run.failed"]


async def test_a_quiet_look_is_one_request(workspace: BoltSimulator, saved: str) -> None:
    """The flow runs every minute, all day."""
    workspace.finish(workspace.start_run("quick"))
    await watch_runs(saved)
    before = len(workspace.requests)
    await watch_runs(saved)
    assert [request.operations for request in workspace.requests[before:]] == [("listBoltRuns",)]


async def test_a_run_that_takes_much_longer_than_usual_is_overdue(
    workspace: BoltSimulator, saved: str
) -> None:
    """Its schedule usually takes a minute."""
    workspace.clock.speed = 1
    for _ in range(3):
        run_id = workspace.start_run("endless")
        workspace.clock.advance(60)
        workspace.finish(run_id)
    await watch_runs(saved)
    workspace.start_run("endless")
    await watch_runs(saved)
    workspace.clock.advance(200)
    (seen,) = await watch_runs(saved)
    assert "paradime.bolt-run.overdue" in seen.events
    assert await watch_runs(saved) == []


async def test_each_run_is_archived_once_whatever_restarts(
    workspace: BoltSimulator, saved: str, archiving: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow run is lost after it has done everything, and before it has stored that: nothing is done twice."""
    await watch_runs(saved)
    run_id = workspace.start_run("quick")
    workspace.finish(run_id)
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_cursor", _lost)
        with pytest.raises(_LostError):
            await watch_runs(saved, assets=True, archive_deployment=archiving)
    (again,) = await watch_runs(saved, assets=True, archive_deployment=archiving)
    assert again.events == []
    (flow_run,) = await flow_runs_of(archiving)
    assert again.archived_by == flow_run.id
    assert flow_run.parameters == {
        "run_id": run_id,
        "schedule_name": "quick",
        "assets": True,
        "credentials": saved,
    }
    assert await watch_runs(saved, archive=True, archive_deployment=archiving) == []
    assert len(await flow_runs_of(archiving)) == 1


class _LostError(Exception):
    pass


async def _lost(*_: object) -> None:
    raise _LostError


async def test_a_run_of_our_own_flows_is_not_archived_again(
    workspace: BoltSimulator, saved: str, archiving: str, credentials: Any
) -> None:
    """It has its events and its archive already."""
    await watch_runs(saved)
    result = await run_schedule("quick", saved)
    (seen,) = await watch_runs(saved, archive=True, archive_deployment=archiving)
    assert (seen.run_id, seen.is_ours, seen.archived_by) == (result.run_id, True, None)
    assert await flow_runs_of(archiving) == []
    assert await stored(credentials, result.run_id) == sorted(ENDED)


async def test_the_flow_run_that_waits_reports_the_end_itself(
    workspace: BoltSimulator, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows why the run failed. If its flow run is lost, a later look sends what is missing."""
    await watch_runs(saved)
    workspace.clock.speed = 1
    seen_meanwhile: list[Any] = []
    from paradime_flows.runner.lifecycle import RunLifecycle

    finish = RunLifecycle.finish

    async def look_first(self: Any, outcome: Any) -> Any:
        seen_meanwhile.extend(await watch_runs(saved))
        return await finish(self, outcome)

    monkeypatch.setattr(RunLifecycle, "finish", look_first)
    workspace.clock.speed = 60
    await run_schedule("quick", saved)
    assert seen_meanwhile == []
    (after,) = await watch_runs(saved)
    assert after.is_ours


async def test_a_suspended_flow_run_is_resumed_when_its_run_has_ended(
    workspace: BoltSimulator, saved: str
) -> None:
    """Its event may be lost, or may come before the flow run is suspended: this is the safety net.

    The flow run then sends the event of the end itself, since it knows the cause.
    """
    await watch_runs(saved)
    async with get_client() as client:
        flow_id = await client.create_flow(run_schedule)
        deployment = await client.create_deployment(flow_id=flow_id, name=f"suspended-{saved}")
        parameters = {"schedule_name": "endless", "credentials": saved, "wait": "suspend"}
        flow_run = await client.create_flow_run_from_deployment(deployment, parameters=parameters)
        with suppress(Pause), use_timing(Timing(held_seconds=1.0)):
            await run_flow_async(
                run_schedule, flow_run=await client.read_flow_run(flow_run.id), parameters=parameters
            )
        assert (await client.read_flow_run(flow_run.id)).state_name == "Suspended"
        await watch_runs(saved)
        assert (await client.read_flow_run(flow_run.id)).state_name == "Suspended"
        (run,) = workspace.active_runs()
        workspace.finish(run.id)
        assert await watch_runs(saved) == []
        assert (await client.read_flow_run(flow_run.id)).state_name == "Resuming"


async def test_many_runs_after_a_pause_are_all_reported(
    workspace: BoltSimulator, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further pages are read until a known run appears."""
    monkeypatch.setattr(newest, "PAGE", 3)
    monkeypatch.setattr(newest, "_LARGER_PAGE", 4)
    old = workspace.start_run("quick")
    workspace.finish(old)
    await watch_runs(saved)
    run_ids = [workspace.start_run("quick") for _ in range(9)]
    for run_id in run_ids:
        workspace.finish(run_id)
    assert [seen.run_id for seen in await watch_runs(saved)] == run_ids
    assert await watch_runs(saved) == []


@pytest.mark.parametrize("missing", ["the list", "the list without a schedule"])
async def test_an_older_backend_shows_the_runs_of_each_schedule(
    workspace: BoltSimulator, saved: str, missing: str
) -> None:
    """Without a list of runs, only the latest run of each schedule is seen, and the log says so."""
    if missing == "the list":
        workspace.lacks(operations=["listBoltRuns"])
    await watch_runs(saved)
    if missing != "the list":
        refusal = faults.GraphQLError(operation="listBoltRuns", message="slug is required", times=1)
        workspace.inject(refusal)
    run_id = workspace.start_run("quick")
    workspace.finish(run_id)
    (seen,) = await watch_runs(saved)
    assert (seen.run_id, seen.schedule_name, seen.events) == (run_id, "quick", ENDED)
    assert await watch_runs(saved) == []


async def test_a_run_that_bolt_no_longer_knows_is_dropped(workspace: BoltSimulator, saved: str) -> None:
    """Otherwise each later look would fail."""
    run_id = workspace.start_run("endless")
    await watch_runs(saved)
    workspace.reset()
    workspace.add_schedule("quick")
    assert await watch_runs(saved) == []
    cursor = await read_cursor(Workspace.of(await _loaded(saved)))
    assert cursor is not None
    assert run_id not in cursor.open


async def _loaded(name: str) -> ParadimeCredentials:
    from paradime_blocks import ParadimeCredentials

    return await ParadimeCredentials.aload(name)


async def test_archives_need_saved_credentials(workspace: BoltSimulator, credentials: Any) -> None:
    """Another process archives, and must find them; nothing is sent before that is known."""
    with pytest.raises(BoltRequestError, match="not saved"):
        await watch_runs(credentials, archive=True)
    assert workspace.requests == []


async def test_a_missing_deployment_is_named(workspace: BoltSimulator, saved: str) -> None:
    """Nothing is noted as done, so that the next flow run archives the run."""
    await watch_runs(saved)
    workspace.finish(workspace.start_run("quick"))
    with pytest.raises(BoltRequestError, match="archive-run/nowhere"):
        await watch_runs(saved, archive=True, archive_deployment="archive-run/nowhere")
    assert len(await watch_runs(saved)) == 1


async def test_no_secret_is_in_the_cursor(workspace: BoltSimulator, saved: str) -> None:
    """Everybody can read a variable."""
    await watch_runs(saved)
    async with get_client() as client:
        variables = await client.read_variables()
    ours = [variable for variable in variables if variable.name.startswith("paradime_watch_")]
    assert ours
    assert workspace.api_secret not in str([variable.value for variable in ours])
    assert isinstance(await Variable.aget(ours[0].name), dict)
