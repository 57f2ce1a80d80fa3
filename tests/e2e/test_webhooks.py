"""The receiver of webhooks on a real server, with a real Bolt simulator: whatever comes, each event is sent once."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventIDFilter
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow_async
from prefect.types.entrypoint import EntrypointType
from starlette.applications import Starlette
from starlette.routing import Mount
from support.prefect_api import flow_runs_of
from support.processes import await_until

from paradime_blocks.testing import SimulatedCommand
from paradime_flows.archive_run import archive_run
from paradime_flows.events import RunEvent, Workspace, run_event_id
from paradime_flows.run_schedule import run_schedule
from paradime_flows.time_limits import Timing, use_timing
from paradime_flows.watch_runs import watch_runs
from paradime_flows.webhooks import app as app_module
from paradime_flows.webhooks import webhook_app
from paradime_flows.webhooks.body import LARGEST_BODY
from paradime_flows.webhooks.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from uuid import UUID

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]
SECRET = "a-secret-for-webhooks"
ENDED = ["paradime.bolt-run.completed", "paradime.bolt-run.started", "paradime.bolt-run.triggered"]


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    """Pauses are short, and an attempt during an outage of Bolt is, too."""
    with use_timing(Timing(webhook_retry_seconds=0.2, webhook_again_seconds=0.5)):
        yield


class Receiver:
    """A receiver in this process. It is not told that it starts, as an application that is mounted is not."""

    def __init__(self, app: Starlette, prefix: str = "") -> None:
        transport = httpx.ASGITransport(app=app)
        self.http = httpx.AsyncClient(transport=transport, base_url=f"http://receiver{prefix}")

    async def post(self, body: Any, secret: str = SECRET) -> int:
        options = {"content": body} if isinstance(body, bytes) else {"json": body}
        return (await self.http.post(f"/hooks/{secret}", **options)).status_code

    async def waiting(self) -> int:
        answer = (await self.http.get("/health")).json()
        assert answer["status"] == "ok"
        return int(answer["waiting"])

    async def done(self) -> None:
        """Wait until the work of all webhooks is done."""

        async def is_empty() -> bool:
            return await self.waiting() == 0

        await await_until(is_empty, "the work of the webhooks", within=120)


@pytest.fixture
async def receiver(saved: str, archiving: str) -> Receiver:
    app = webhook_app(saved, secrets=[SECRET], archive=True, archive_deployment=archiving)
    return Receiver(app)


async def stored(credentials: ParadimeCredentials, run_ids: list[int]) -> dict[int, list[str]]:
    """The events of Bolt runs that Prefect has stored, by name."""
    ids = {
        run_event_id(Workspace.of(credentials), run_id, event): run_id
        for run_id in run_ids
        for event in RunEvent
    }
    found: dict[int, list[str]] = {run_id: [] for run_id in run_ids}
    every = [*ids]
    async with get_client() as client:
        for at in range(0, len(every), 50):
            page = await client.read_events(EventFilter(id=EventIDFilter(id=every[at : at + 50])), limit=50)
            for event in page.events:
                found[ids[event.id]].append(event.event)
    return {run_id: sorted(names) for run_id, names in found.items()}


def ended_runs(workspace: BoltSimulator, count: int, schedule: str = "quick") -> list[int]:
    run_ids = [workspace.start_run(schedule) for _ in range(count)]
    for run_id in run_ids:
        workspace.finish(run_id)
    return run_ids


async def test_a_run_that_bolt_started_has_its_events_and_one_archive(
    workspace: BoltSimulator, credentials: Any, receiver: Receiver, archiving: str, saved: str
) -> None:
    """Started, completed, completed again; and `watch_runs` looks as well."""
    await watch_runs(saved)
    run_id = workspace.start_run("endless", actor="Scheduler")
    assert await receiver.post(workspace.webhook_body(run_id)) == 202
    await receiver.done()
    assert (await stored(credentials, [run_id]))[run_id] == ENDED[1:]
    assert await flow_runs_of(archiving) == []
    workspace.finish(run_id)
    for _ in range(2):
        assert await receiver.post(workspace.webhook_body(run_id)) == 202
        await receiver.done()
    (watched,) = await watch_runs(saved, archive=True, archive_deployment=archiving)
    assert watched.events == []
    assert (await stored(credentials, [run_id]))[run_id] == ENDED
    (flow_run,) = await flow_runs_of(archiving)
    assert flow_run.parameters == {
        "run_id": run_id,
        "schedule_name": "endless",
        "assets": False,
        "credentials": saved,
    }


async def suspended(saved: str) -> UUID:
    """Suspend a flow run of a deployment until its Bolt run ends, and return its id."""
    async with get_client() as client:
        flow_id = await client.create_flow(run_schedule)
        deployment = await client.create_deployment(flow_id=flow_id, name=f"suspended-{saved}")
        parameters = {"schedule_name": "endless", "credentials": saved, "wait": "suspend"}
        flow_run = await client.create_flow_run_from_deployment(deployment, parameters=parameters)
        with suppress(Pause), use_timing(Timing(held_seconds=1.0)):
            await run_flow_async(
                run_schedule, flow_run=await client.read_flow_run(flow_run.id), parameters=parameters
            )
    return flow_run.id


async def state_of(flow_run_id: UUID) -> str | None:
    async with get_client() as client:
        return (await client.read_flow_run(flow_run_id)).state_name


async def test_a_suspended_flow_run_is_resumed(
    workspace: BoltSimulator, receiver: Receiver, saved: str
) -> None:
    """It waits without a process, until the webhook tells the end."""
    flow_run_id = await suspended(saved)
    (run,) = workspace.active_runs()
    for end, state in [(False, "Suspended"), (True, "Resuming")]:
        if end:
            workspace.finish(run.id)
        assert await receiver.post(workspace.webhook_body(run.id)) == 202
        await receiver.done()
        assert await state_of(flow_run_id) == state


@pytest.mark.guarantee(
    "Webhooks",
    "The deployment that archives is missing",
    prefect="All events. Suspended flow runs are resumed. The archives are made when there is the deployment",
    bolt="Not changed",
    result="The log of the receiver names the deployment",
)
async def test_a_missing_archive_deployment_stops_nothing_else(
    workspace: BoltSimulator, credentials: Any, saved: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that Bolt started by itself is archived later; a webhook that comes meanwhile is worked on at once."""
    name = f"late-{uuid4().hex[:12]}"
    receiver = Receiver(
        webhook_app(saved, secrets=[SECRET], archive=True, archive_deployment=f"archive-run/{name}")
    )
    flow_run_id = await suspended(saved)
    (ours,) = workspace.active_runs()
    run_id = workspace.start_run("quick", actor="Scheduler")
    workspace.finish(run_id)

    async def resumed() -> bool:
        return await state_of(flow_run_id) == "Resuming" and await receiver.waiting() == 1

    async def told() -> bool:
        return (await stored(credentials, [run_id]))[
            run_id
        ] == ENDED and "There is no deployment" in caplog.text

    with use_timing(Timing(webhook_retry_seconds=3600.0)):
        await receiver.post(workspace.webhook_body(run_id))
        await await_until(told, "the events", within=60)
        workspace.finish(ours.id)
        await receiver.post(workspace.webhook_body(ours.id))
        await await_until(resumed, "the resumed flow run and the end of its webhook's work", within=60)
    assert f"There is no deployment 'archive-run/{name}'" in caplog.text
    deployment = await archive_run.ato_deployment(name, entrypoint_type=EntrypointType.MODULE_PATH)
    await deployment.aapply()
    await receiver.post(workspace.webhook_body(run_id))
    await receiver.done()
    (archive,) = await flow_runs_of(f"archive-run/{name}")
    assert archive.parameters["run_id"] == run_id


async def test_a_run_of_our_own_flows_is_not_archived_again(
    workspace: BoltSimulator, credentials: Any, receiver: Receiver, archiving: str, saved: str
) -> None:
    """Its flow run has sent the events."""
    result = await run_schedule("quick", saved)
    await receiver.post(workspace.webhook_body(result.run_id))
    await receiver.done()
    assert (await stored(credentials, [result.run_id]))[result.run_id] == ENDED
    assert await flow_runs_of(archiving) == []


@pytest.mark.guarantee(
    "Webhooks",
    "A webhook comes twice, late, in the wrong order, or to two receivers",
    prefect="Each event once",
    bolt="Not changed",
    result="One archive of each run",
)
async def test_two_receivers_get_every_webhook_twice_in_any_order(
    workspace: BoltSimulator, credentials: Any, receiver: Receiver, archiving: str, saved: str
) -> None:
    """Each event is stored once, and each run is archived once."""
    options = {"secrets": [SECRET], "archive": True, "archive_deployment": archiving}
    receivers = [receiver, Receiver(webhook_app(saved, **options))]
    run_ids = [workspace.start_run("endless") for _ in range(6)]
    started = [workspace.webhook_body(run_id) for run_id in run_ids]
    for run_id in run_ids:
        workspace.finish(run_id)
    bodies = [*started, *(workspace.webhook_body(run_id) for run_id in run_ids)] * 2
    posts = [(one, body) for one in receivers for body in bodies]
    random.Random(0).shuffle(posts)  # noqa: S311 - the same order each time
    assert {await one.post(body) for one, body in posts} == {202}
    for one in receivers:
        await one.done()
    assert await stored(credentials, run_ids) == dict.fromkeys(run_ids, ENDED)
    archived = Counter(flow_run.parameters["run_id"] for flow_run in await flow_runs_of(archiving))
    assert archived == dict.fromkeys(run_ids, 1)


@pytest.mark.guarantee(
    "Webhooks",
    "Hundreds of webhooks come at once",
    prefect="All events",
    bolt="A few requests",
    result="All are answered at once; the work is done together",
)
async def test_a_burst_of_a_thousand_costs_few_requests(
    workspace: BoltSimulator, credentials: Any, receiver: Receiver
) -> None:
    """All are answered at once, and their work is done together."""
    run_ids = ended_runs(workspace, 50)
    before = len(workspace.requests)
    bodies = [workspace.webhook_body(run_id) for run_id in run_ids]
    answers = await asyncio.gather(*(receiver.post(body) for body in bodies * 20))
    assert Counter(answers) == {202: 1000}
    await receiver.done()
    assert await stored(credentials, run_ids) == dict.fromkeys(run_ids, ENDED)
    # For each batch: the runs of the commands, their states, the schedules and their runs.
    assert len(workspace.requests) - before <= 12


@pytest.mark.guarantee(
    "Webhooks",
    "Bolt is unreachable when a webhook comes",
    prefect="The events, when Bolt is reachable again",
    bolt="Not changed",
    result="The receiver keeps up to 10,000 webhooks, and asks again",
)
async def test_an_outage_of_bolt_loses_nothing(
    workspace: BoltSimulator, credentials: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """The webhooks are kept, and Bolt is asked again."""
    run_ids = ended_runs(workspace, 3)
    bodies = [workspace.webhook_body(run_id) for run_id in run_ids]
    workspace.stop()
    for body in bodies:
        assert await receiver.post(body) == 202

    async def given_up() -> bool:
        return "webhooks are kept" in caplog.text

    await await_until(given_up, "an attempt that fails", within=120)
    assert await receiver.waiting() == 3
    workspace.start()
    await receiver.done()
    assert await stored(credentials, run_ids) == dict.fromkeys(run_ids, ENDED)


@pytest.mark.guarantee(
    "Webhooks",
    "A webhook is lost, or its receiver is restarted before its work is done",
    prefect="The events, at the next poll of `watch_runs`",
    bolt="Not changed",
    result="Keep `watch_runs` on its timer beside the webhooks",
)
async def test_what_a_restart_loses_is_seen_by_watch_runs(
    workspace: BoltSimulator, credentials: Any, saved: str
) -> None:
    """Webhooks that wait are in the memory of the process, and nowhere else."""
    await watch_runs(saved)
    app = webhook_app(saved, secrets=[SECRET])
    (run_id,) = ended_runs(workspace, 1)
    body = workspace.webhook_body(run_id)
    workspace.stop()
    with use_timing(Timing(webhook_stop_seconds=0.1)):
        async with app.router.lifespan_context(app):
            assert await Receiver(app).post(body) == 202
    workspace.start()
    (seen,) = await watch_runs(saved)
    assert (seen.run_id, sorted(seen.events)) == (run_id, ENDED)


async def test_a_stop_finishes_what_has_come(workspace: BoltSimulator, credentials: Any, saved: str) -> None:
    """The lifespan of the application waits for the work."""
    app = webhook_app(saved, secrets=[SECRET])
    (run_id,) = ended_runs(workspace, 1)
    async with app.router.lifespan_context(app):
        assert await Receiver(app).post(workspace.webhook_body(run_id)) == 202
    assert (await stored(credentials, [run_id]))[run_id] == ENDED


async def test_it_works_inside_another_application(
    workspace: BoltSimulator, credentials: Any, saved: str
) -> None:
    """A mounted application is not told that it starts or stops."""
    app = Starlette(routes=[Mount("/paradime", webhook_app(saved, secrets=[SECRET]))])
    receiver = Receiver(app, "/paradime")
    (run_id,) = ended_runs(workspace, 1)
    assert await receiver.post(workspace.webhook_body(run_id)) == 202
    await receiver.done()
    assert (await stored(credentials, [run_id]))[run_id] == ENDED


@pytest.mark.guarantee(
    "Webhooks",
    "Something else comes: a wrong secret, no JSON, a huge body, half a body",
    prefect="Nothing",
    bolt="Nothing is asked",
    result="The log names the reason, and no secret",
)
async def test_what_is_no_webhook_is_refused_and_nothing_is_asked(
    workspace: BoltSimulator, saved: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that is sent appears in the log, and no secret does."""
    caplog.set_level(logging.DEBUG)
    other = "another-secret-of-ours"
    receiver = Receiver(webhook_app(saved, secrets=[SECRET, other]))
    body = {"commands": [{"id": 1}]}
    assert [await receiver.post(body, secret) for secret in ("wrong", SECRET[:-1], f"{SECRET},{other}")] == [
        404
    ] * 3
    assert await receiver.post(b'{"commands": [{"id": 1') == 400
    assert await receiver.post(b"x" * (LARGEST_BODY + 1)) == 413
    assert await receiver.post({"commands": [], "note": "hunter2"}) == 202
    assert (await receiver.http.get(f"/hooks/{SECRET}")).status_code == 405
    assert (await receiver.http.post("/hooks/")).status_code == 404
    assert workspace.requests == []
    assert await receiver.post(body, other) == 202
    await receiver.done()
    assert workspace.count("boltCommand") == 1
    ours = "\n".join(line for line in caplog.text.splitlines() if "httpx" not in line)
    assert "the first is 1" in ours
    assert "Bolt does not know the command 1" in ours
    for secret in (SECRET, other, "hunter2", workspace.api_secret):
        assert secret not in ours


async def test_too_many_and_too_slow_webhooks_are_refused(
    workspace: BoltSimulator, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is bounded. What is waiting already may come again."""
    monkeypatch.setattr(app_module, "Inbox", partial(Inbox, most=1))
    receiver = Receiver(webhook_app(saved, secrets=[SECRET]))

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    with use_timing(Timing(webhook_body_seconds=0.05)):
        assert (await receiver.http.post(f"/hooks/{SECRET}", content=slow())).status_code == 408
    workspace.stop()
    bodies = [{"commands": [{"id": 1}]}, {"commands": [{"id": 1}]}, {"commands": [{"id": 2}]}]
    assert [await receiver.post(body) for body in bodies] == [202, 202, 503]
    workspace.start()
    await receiver.done()
    assert await receiver.post(bodies[2]) == 202
    await receiver.done()


async def test_a_command_of_an_earlier_webhook_tells_the_end_too(
    workspace: BoltSimulator, credentials: Any, receiver: Receiver
) -> None:
    """The webhook of the end was lost, but Bolt is asked once more after the webhook of the start."""
    workspace.add_schedule(
        "short", commands=[SimulatedCommand("dbt run", resources={})], setup_commands=False
    )
    workspace.clock.speed = 0
    run_id = workspace.start_run("short")
    assert await receiver.post(workspace.webhook_body(run_id)) == 202

    async def started() -> bool:
        return len((await stored(credentials, [run_id]))[run_id]) == 2

    await await_until(started, "the events of the start", within=60)
    workspace.clock.advance(5)
    await receiver.done()
    assert (await stored(credentials, [run_id]))[run_id] == ENDED
