"""`python -m paradime_flows.automations apply` on a real server, and automations that our events fire."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.events.schemas.automations import AutomationCore
from prefect.types.entrypoint import EntrypointType
from support.processes import ConditionNotMetError, await_until

from paradime_blocks import BoltRequestError, BoltRunFailed
from paradime_flows.automations import Notify, Rules, Start, apply
from paradime_flows.automations.__main__ import main
from paradime_flows.automations.rules import NAME_PREFIX
from paradime_flows.run_schedule import run_schedule

if TYPE_CHECKING:
    from paradime_blocks.testing import BoltSimulator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture(autouse=True)
async def _none_left() -> Any:
    """The server is shared: an automation must not act on other tests."""
    yield
    await apply(Rules())


class Inbox:
    """Receives the messages of a notification block."""

    def __init__(self) -> None:
        received = self.received = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    found = Inbox()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
async def block(inbox: Inbox) -> str:
    """A notification block that posts to the inbox."""
    name = f"inbox-{uuid4().hex[:12]}"
    await CustomWebhookNotificationBlock(
        name=name,
        url=f"http://127.0.0.1:{inbox.server.server_port}/",
        method="POST",
        json_data={"subject": "{{subject}}", "body": "{{body}}"},
    ).save(name)
    return f"custom-webhook/{name}"


@pytest.fixture
async def deployment() -> str:
    """A deployment of `run_schedule` that no worker serves, so that only its flow runs are seen."""
    name = f"nobody-{uuid4().hex[:12]}"
    made = await run_schedule.ato_deployment(name, entrypoint_type=EntrypointType.MODULE_PATH)
    await made.aapply()
    return f"run-schedule/{name}"


async def ours() -> dict[str, Any]:
    async with get_client() as client:
        found = [one for one in await client.read_automations() if one.name.startswith(NAME_PREFIX)]
    assert len(found) == len({one.name for one in found})
    return {one.name: one for one in found}


def copy_of(automation: Any, **changes: Any) -> AutomationCore:
    return AutomationCore.model_validate({**automation.model_dump(exclude={"id"}), **changes})


async def test_apply_can_be_repeated(block: str, deployment: str) -> None:
    """Nothing is made twice, a change is an update, and what is no longer wanted is deleted."""
    rules = Rules(
        notify=[Notify(block=block, on=["failed", "overdue", "source-stale", "test-failed"])],
        start=[Start(schedule="b", after="a", deployment=deployment)],
    )
    first = await apply(rules)
    assert len(first.created) == 5
    before = await ours()
    again = await apply(rules)
    assert (again.created, again.updated, again.deleted) == ([], [], [])
    assert sorted(again.unchanged) == sorted(first.created)
    assert {name: one.id for name, one in (await ours()).items()} == {
        name: one.id for name, one in before.items()
    }
    fewer = rules.model_copy(update={"notify": []})
    fewer.start[0].parameters["timeout_seconds"] = 60
    changed = await apply(fewer)
    assert (len(changed.updated), len(changed.deleted)) == (1, 4)
    (kept,) = (await ours()).values()
    assert kept.actions[0].parameters == {"schedule_name": "b", "timeout_seconds": 60}


async def test_what_a_person_has_switched_off_stays_off(deployment: str) -> None:
    """And automations of others are not touched."""
    rules = Rules(start=[Start(schedule="b", after="a", deployment=deployment)])
    await apply(rules)
    (one,) = (await ours()).values()
    async with get_client() as client:
        await client.pause_automation(one.id)
        theirs = await client.create_automation(copy_of(one, name=f"theirs-{uuid4().hex}"))
    rules.start[0].parameters["timeout_seconds"] = 60
    assert len((await apply(rules)).updated) == 1
    assert [each.enabled for each in (await ours()).values()] == [False]
    async with get_client() as client:
        assert await client.read_automation(theirs) is not None
        await client.delete_automation(theirs)


async def test_a_second_automation_of_one_name_is_removed(deployment: str) -> None:
    """Two people may apply at the same moment."""
    rules = Rules(start=[Start(schedule="b", after="a", deployment=deployment)])
    await apply(rules)
    (one,) = (await ours()).values()
    async with get_client() as client:
        await client.create_automation(copy_of(one))
    assert len((await apply(rules)).deleted) == 1
    assert len(await ours()) == 1


async def test_a_failed_run_sends_a_message_with_cause_and_link(
    workspace: BoltSimulator, credentials: Any, block: str, inbox: Inbox
) -> None:
    """The real event of a real flow run fires the automation; Prefect's block sends the message, once."""
    await apply(Rules(notify=[Notify(block=block, on=["failed"], schedules=["failing"])]))
    failures: list[BoltRunFailed] = []
    # A busy server may know a new automation only after the first event.
    while not inbox.received:
        assert len(failures) < 5
        with pytest.raises(BoltRunFailed) as failure:
            await run_schedule("failing", credentials)
        failures.append(failure.value)
        with suppress(ConditionNotMetError):
            await await_until(_has(inbox), "the message", within=30)
    for message in inbox.received:
        assert message["subject"] == "Bolt run of failing failed"
        (about,) = [
            one for one in failures if f"Bolt run {one.run_id} of failing: FAILED. " in message["body"]
        ]
        assert "dbt run" in message["body"]
        assert about.url in message["body"]
        assert "None" not in message["body"]
    assert len({message["body"] for message in inbox.received}) == len(inbox.received)


def _has(inbox: Inbox) -> Any:
    async def received() -> bool:
        return bool(inbox.received)

    return received


async def test_a_schedule_starts_after_another(
    workspace: BoltSimulator, credentials: Any, deployment: str
) -> None:
    """A run that succeeds starts the deployment for the next schedule, once."""
    await apply(Rules(start=[Start(schedule="once", after="quick", deployment=deployment)]))
    await run_schedule("quick", credentials)
    async with get_client() as client:
        found = await client.read_deployment_by_name(deployment)
        wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[found.id]))

        async def started() -> Any:
            return await client.read_flow_runs(flow_run_filter=wanted)

        (flow_run,) = await await_until(started, "the flow run of the next schedule", within=90)
    assert flow_run.parameters == {"schedule_name": "once"}


async def test_a_missing_block_changes_nothing(deployment: str) -> None:
    """Everything that a rule names is looked up first."""
    rules = Rules(
        notify=[Notify(block="slack-webhook/nobody")],
        start=[Start(schedule="b", after="a", deployment=deployment)],
    )
    with pytest.raises(BoltRequestError, match="slack-webhook/nobody"):
        await apply(rules)
    assert await ours() == {}


def test_the_command_says_what_it_does(
    block: str, deployment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--dry-run`, it only says so."""
    Path("automations.yaml").write_text(
        f"notify:\n  - block: {block}\n    on: [failed]\n"
        f"start:\n  - schedule: b\n    after: a\n    deployment: {deployment}\n",
        encoding="utf-8",
    )
    for command in (["apply", "--dry-run"], ["apply"]):
        assert main(command) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["created"] * 2
    assert main(["apply"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["unchanged"] * 2
