"""`report_run` on a real server, and the webhook of Prefect Cloud that starts it."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventIDFilter
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
from prefect.server.utilities.user_templates import render_user_template, validate_user_template
from prefect.types.entrypoint import EntrypointType
from ruamel.yaml import YAML
from support.prefect_api import flow_runs_of
from support.processes import await_until

from paradime_blocks import BoltRequestError
from paradime_blocks.testing import faults
from paradime_flows.events import RunEvent, Workspace, run_event_id
from paradime_flows.report_run import report_run
from paradime_flows.run_schedule import run_schedule
from paradime_flows.time_limits import Timing, use_timing
from paradime_flows.watch_runs import watch_runs

if TYPE_CHECKING:
    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]
ENDED = ["paradime.bolt-run.triggered", "paradime.bolt-run.started", "paradime.bolt-run.completed"]
DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deployments"
TEMPLATE = (DEPLOYMENTS / "cloud" / "webhook.json.jinja").read_text(encoding="utf-8")


async def stored(credentials: ParadimeCredentials, run_id: int) -> list[str]:
    """The events of a Bolt run that Prefect has stored, by name."""
    ids = [run_event_id(Workspace.of(credentials), run_id, event) for event in RunEvent]
    async with get_client() as client:
        page = await client.read_events(EventFilter(id=EventIDFilter(id=ids)), limit=50)
    return sorted(event.event for event in page.events)


def commands_of(workspace: BoltSimulator, run_id: int) -> list[int]:
    return [command["id"] for command in workspace.webhook_body(run_id)["commands"]]


async def test_a_run_that_bolt_started_has_its_events_and_its_archive(
    workspace: BoltSimulator, saved: str, credentials: Any, archiving: str
) -> None:
    """Once, however often the webhook comes, and whoever else looks."""
    await watch_runs(saved)
    run_id = workspace.start_run("endless", actor="Scheduler")
    (seen,) = await report_run(commands_of(workspace, run_id), saved, archive=True)
    assert (seen.state, seen.events, seen.archived_by) == ("RUNNING", ENDED[:2], None)
    workspace.finish(run_id)
    options = {"archive": True, "archive_deployment": archiving}
    (seen,) = await report_run(commands_of(workspace, run_id), saved, **options)
    assert (seen.run_id, seen.schedule_name, seen.events) == (run_id, "endless", ENDED[2:])
    (again,) = await report_run(commands_of(workspace, run_id), saved, **options)
    (watched,) = await watch_runs(saved, **options)
    assert (again.events, watched.events) == ([], [])
    assert await stored(credentials, run_id) == sorted(ENDED)
    (flow_run,) = await flow_runs_of(archiving)
    assert flow_run.id == seen.archived_by == again.archived_by == watched.archived_by


async def test_a_run_of_our_own_flows_is_not_archived_again(
    workspace: BoltSimulator, saved: str, credentials: Any, archiving: str
) -> None:
    """It has its events and its archive already."""
    result = await run_schedule("quick", saved)
    ids = [command.id for command in result.commands]
    (seen,) = await report_run(ids, saved, archive=True, archive_deployment=archiving)
    assert (seen.is_ours, seen.archived_by) == (True, None)
    assert await flow_runs_of(archiving) == []
    assert await stored(credentials, result.run_id) == sorted(ENDED)


async def test_one_known_command_tells_the_run(workspace: BoltSimulator, saved: str) -> None:
    """If Bolt knows none of the commands, the flow run fails and says so."""
    run_id = workspace.start_run("quick")
    workspace.finish(run_id)
    (seen,) = await report_run([123_456, *commands_of(workspace, run_id)], saved)
    assert seen.run_id == run_id
    with pytest.raises(BoltRequestError, match="Bolt knows none of the commands 123456, 7"):
        await report_run([123_456, 7], saved)


async def test_an_outage_is_waited_for(workspace: BoltSimulator, saved: str) -> None:
    """A webhook comes once, so its flow run must not be lost."""
    run_id = workspace.start_run("quick")
    workspace.finish(run_id)
    workspace.inject(faults.CutConnection(operation="boltCommand", times=20))
    with use_timing(Timing(webhook_retry_seconds=0.01)):
        (seen,) = await report_run(commands_of(workspace, run_id), saved)
    assert (seen.run_id, seen.events) == (run_id, ENDED)
    assert workspace.pending_faults == ()


# The webhook of Prefect Cloud. Prefect's server has the environment in which Cloud renders templates: Jinja2 with
# Prefect's limits and filters.


async def rendered(body: Any) -> dict[str, Any]:
    """Render as Cloud does: a body that is JSON as an object, any other as text."""
    validate_user_template(TEMPLATE)
    context = {"method": "POST", "headers": {"content-type": "application/json"}, "body": body}
    found: dict[str, Any] = json.loads(await render_user_template(TEMPLATE, context))
    return found


async def test_the_template_takes_only_ids_from_the_body(workspace: BoltSimulator) -> None:
    """Without a payload of its own, the event would hold the whole body."""
    run_id = workspace.start_run("quick")
    workspace.finish(run_id)
    event = await rendered({**workspace.webhook_body(run_id), "secret": "hunter2"})
    assert event == {
        "event": "paradime.webhook.received",
        "resource": {
            "prefect.resource.id": "paradime.webhook",
            "prefect.resource.name": "Webhook of Paradime Bolt",
        },
        "payload": {"command_ids": commands_of(workspace, run_id)},
    }


@pytest.mark.parametrize(
    "body",
    [
        '{"commands": [{"id": 1',
        "",
        None,
        [],
        {},
        {"commands": None},
        {"commands": 5},
        {"commands": "text"},
        {"commands": {"id": 5}},
        {"commands": [None, 5, "x", {}, {"id": None}, {"id": "5"}, {"id": True}, {"id": -5}, {"id": 1.5}]},
        {"commands": [{"id": '5]}, "resource": {"prefect.resource.id": "evil"'}]},
    ],
    ids=str,
)
async def test_any_other_body_starts_nothing(body: Any) -> None:
    """The rendered text is valid JSON all the same, or Cloud would report a failure."""
    event = await rendered(body)
    assert (event["event"], event["payload"]) == ("paradime.webhook.ignored", {"command_ids": []})
    assert event["resource"]["prefect.resource.id"] == "paradime.webhook"


async def test_the_payload_is_small() -> None:
    """However large the body is."""
    event = await rendered({"commands": [{"id": number} for number in range(1, 10_000)]})
    assert event["payload"]["command_ids"] == [*range(1, 51)]


async def test_the_event_of_the_webhook_starts_the_flow(workspace: BoltSimulator) -> None:
    """By the trigger of prefect.yaml. What Cloud does is done by hand: the template is rendered, and the event sent."""
    file = YAML(typ="safe", pure=True).load(DEPLOYMENTS / "prefect.yaml")
    (entry,) = [each for each in file["deployments"] if each["name"] == "webhook"]
    (trigger,) = entry["triggers"]
    name = f"webhook-{uuid4().hex[:12]}"
    deployment = await report_run.ato_deployment(
        name,
        parameters=entry["parameters"],
        triggers=[DeploymentEventTrigger.model_validate({**trigger, "name": name})],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    await deployment.aapply()
    run_id = workspace.start_run("quick")
    workspace.finish(run_id)
    event = await rendered(workspace.webhook_body(run_id))
    ignored = await rendered("no JSON")

    async def started() -> list[Any]:
        # The automation may not be loaded when the first event arrives.
        async with get_client() as client:
            now = datetime.now(timezone.utc).isoformat()
            events = [{**each, "occurred": now, "id": str(uuid4())} for each in (ignored, event)]
            response = await client._client.post("/events", json=events)
            assert response.status_code == 204, response.text
        return await flow_runs_of(f"report-run/{name}")

    flow_runs = await await_until(started, "a flow run", within=60, every=3)
    assert flow_runs
    assert {json.dumps(each.parameters["command_ids"]) for each in flow_runs} == {
        json.dumps(commands_of(workspace, run_id))
    }
    async with get_client() as client:
        await client.delete_deployment(flow_runs[0].deployment_id)
