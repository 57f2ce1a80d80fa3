"""`python -m paradime_flows.webhooks serve` as a process, with webhooks that the simulator sends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventIDFilter
from support.prefect_api import artifacts_of, flow_runs_of
from support.processes import await_until, wait_for_flow_run, wait_until

from paradime_blocks.testing import Delivery, SimulatedCommand
from paradime_flows.events import RunEvent, Workspace, run_event_id
from paradime_flows.webhooks import SECRET_VARIABLE

if TYPE_CHECKING:
    from support.processes import Processes, TestProcess

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

ROOT = Path(__file__).resolve().parents[2]
SERVE, README = ROOT / "deployments" / "serve.py", ROOT / "flows" / "README.md"
SECRET = "a-secret-for-webhooks"
ENDED = [RunEvent.TRIGGERED, RunEvent.STARTED, RunEvent.COMPLETED]


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Receiver:
    """The receiver as a process."""

    def __init__(self, processes: Processes, bolt: BoltSimulator, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.hook = f"{self.url}/hooks/{SECRET}"
        command = [
            sys.executable,
            "-m",
            "paradime_flows.webhooks",
            "serve",
            "--port",
            str(self.port),
            *options,
        ]
        environment = {**bolt.environment(), SECRET_VARIABLE: f"an-old-secret-of-ours,{SECRET}"}
        self.process: TestProcess = processes.start(*command, name="receiver", env=environment)
        self.process.wait_for_output("Uvicorn running", within=120)

    def waiting(self) -> int:
        return int(httpx.get(f"{self.url}/health", trust_env=False).json()["waiting"])

    def peak_kilobytes(self) -> int:
        """The most memory that it has used."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as status:  # noqa: PTH123 - no real file
            (line,) = [line for line in status if line.startswith("VmHWM")]
        return int(line.split()[1])


async def stored(ids: list[UUID]) -> set[UUID]:
    found: set[UUID] = set()
    async with get_client() as client:
        for at in range(0, len(ids), 50):
            page = await client.read_events(EventFilter(id=EventIDFilter(id=ids[at : at + 50])), limit=50)
            found |= {event.id for event in page.events}
    return found


def ids_of(credentials: ParadimeCredentials, run_ids: list[int], events: list[RunEvent]) -> list[UUID]:
    workspace = Workspace.of(credentials)
    return [run_event_id(workspace, run_id, event) for run_id in run_ids for event in events]


@pytest.mark.guarantee("Webhooks", "A webhook comes twice, late, in the wrong order, or to two receivers")
@pytest.mark.guarantee("Webhooks", "Something else comes: a wrong secret, no JSON, a huge body, half a body")
async def test_a_run_that_bolt_started_has_its_events(
    processes: Processes, bolt_simulator: BoltSimulator, credentials: Any
) -> None:
    """The webhooks come twice and in the wrong order, after one that was cut off; no secret is in the output."""
    receiver = Receiver(processes, bolt_simulator)
    with closing(socket.create_connection(("127.0.0.1", receiver.port))) as connection:
        head = f"POST /hooks/{SECRET} HTTP/1.1\r\nHost: receiver\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode() + b'{"commands": [{"id": 1')
    bolt_simulator.clock.speed = 60
    bolt_simulator.add_schedule("daily", commands=[SimulatedCommand("dbt run", resources={})])
    bolt_simulator.add_webhook(receiver.hook, started=Delivery(delay_seconds=60), completed=Delivery(times=2))
    run_id = bolt_simulator.start_run("daily", actor="Scheduler")
    wanted = ids_of(credentials, [run_id], ENDED)

    async def all_stored() -> bool:
        return len(await stored(wanted)) == len(wanted)

    await await_until(all_stored, "the events", within=120)
    wait_until(lambda: len(bolt_simulator.webhooks_sent) == 3, "three webhooks")
    assert [sent.event for sent in bolt_simulator.webhooks_sent] == ["completed", "completed", "started"]
    assert {sent.status for sent in bolt_simulator.webhooks_sent} == {202}
    wait_until(lambda: receiver.waiting() == 0, "the work")
    receiver.process.send(signal.SIGTERM)
    receiver.process.wait()
    assert "The body was cut off." in receiver.process.output
    assert f"Bolt run {run_id} of daily: SUCCESS." in receiver.process.output
    for secret in (SECRET, "an-old-secret-of-ours", bolt_simulator.api_secret):
        assert secret not in receiver.process.output


def test_an_access_log_of_somebody_elses_hides_the_secret(
    processes: Processes, bolt_simulator: BoltSimulator
) -> None:
    """Uvicorn, started by its own command, logs the path of each request if Prefect's settings let it."""
    port = free_port()
    app = "paradime_flows.webhooks:webhook_app"
    command = [sys.executable, "-m", "uvicorn", "--factory", app, "--port", str(port)]
    settings = {"PREFECT_LOGGING_SERVER_LEVEL": "INFO", SECRET_VARIABLE: SECRET}
    environment = {**bolt_simulator.environment(), **settings}
    process = processes.start(*command, name="uvicorn", env=environment)
    process.wait_for_output("Uvicorn running", within=120)
    answer = httpx.post(f"http://127.0.0.1:{port}/hooks/{SECRET}", json={}, trust_env=False)
    assert answer.status_code == 202
    assert '"POST /hooks/*** HTTP/1.1" 202' in process.wait_for_output("/hooks/")
    assert SECRET not in process.output


def test_what_is_missing_is_named(processes: Processes) -> None:
    """Before it listens."""
    for environment, missing in [
        ({}, "PARADIME_API_ENDPOINT"),
        ({SECRET_VARIABLE: "short"}, SECRET_VARIABLE),
    ]:
        known = {
            "PARADIME_API_ENDPOINT": "http://127.0.0.1:9",
            "PARADIME_API_KEY": "k",
            "PARADIME_API_SECRET": "s",
        }
        env = {**(known if environment else {}), **environment}
        process = processes.start(sys.executable, "-m", "paradime_flows.webhooks", "serve", env=env)
        assert process.wait() == 2
        assert missing in process.output
        assert "Traceback" not in process.output


@pytest.mark.full
def test_the_lines_of_the_readme_start_it_and_try_it(
    processes: Processes, bolt_simulator: BoltSimulator
) -> None:
    """As written, in one shell. The port is the usual one."""
    section = (
        README.read_text(encoding="utf-8").partition("### Webhooks")[2].partition("**With Prefect Cloud**")[0]
    )
    start, tries = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    export, serve = start.splitlines()
    script = "\n".join(
        [
            "set -e",
            export,
            f"{serve} &",
            "for _ in $(seq 240); do curl -s --fail http://127.0.0.1:8088/health && break; sleep 0.5; done",
            *tries.splitlines(),
            "sleep 5; kill %1; wait %1 || true",
        ]
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**bolt_simulator.environment(), "PATH": path}
    process = processes.start("bash", "-c", script, name="readme", env=environment)
    assert process.wait() == 0, process.output
    assert "Bolt does not know the command 1" in process.output


@pytest.mark.full
async def test_the_run_is_archived_by_the_flow_behind_it(
    bolts_deployment: None, processes: Processes, bolt_simulator: BoltSimulator
) -> None:
    """deployments/serve.py offers the deployment that archives."""
    processes.serve(SERVE, env=bolt_simulator.environment())
    receiver = Receiver(processes, bolt_simulator, "--archive")
    bolt_simulator.clock.speed = 60
    bolt_simulator.add_schedule("daily")
    bolt_simulator.add_webhook(receiver.hook)
    run_id = bolt_simulator.start_run("daily", actor="Scheduler")

    async def archive() -> Any:
        found = await flow_runs_of("archive-run/bolt")
        return [each for each in found if each.parameters.get("schedule_name") == "daily"]

    found = await await_until(archive, "the flow run that archives", within=120)
    flow_run = wait_for_flow_run(found[0].id)
    assert flow_run.state.is_completed()
    assert flow_run.parameters["run_id"] == run_id
    assert "paradime-daily" in await artifacts_of(flow_run.id)


@pytest.mark.guarantee("Webhooks", "Hundreds of webhooks come at once")
@pytest.mark.full
async def test_two_hundred_webhooks_a_second_for_ten_seconds_are_all_worked_on(
    processes: Processes, bolt_simulator: BoltSimulator, credentials: Any, record_property: Any
) -> None:
    """Each is about another run. All are taken, each run has its events, and the memory is bounded."""
    receiver = Receiver(processes, bolt_simulator)
    before = receiver.peak_kilobytes()
    command = SimulatedCommand("dbt run", resources={}, stdout="")
    bolt_simulator.add_schedule("daily", commands=[command], setup_commands=False, already_running="allow")
    run_ids = [bolt_simulator.start_run("daily") for _ in range(2_000)]
    bolt_simulator.clock.advance(60)
    bodies = [json.dumps(bolt_simulator.webhook_body(run_id)) for run_id in run_ids]
    statuses: list[int] = []
    slowest = [0.0]
    began = time.monotonic()

    def send(first: int) -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            for place in range(first, len(bodies), 8):
                time.sleep(max(0.0, began + place / 200 - time.monotonic()))
                sent = time.monotonic()
                statuses.append(client.post(receiver.hook, content=bodies[place]).status_code)
                slowest[0] = max(slowest[0], time.monotonic() - sent)

    senders = [threading.Thread(target=send, args=(first,)) for first in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    seconds = time.monotonic() - began
    assert statuses == [202] * len(bodies)

    async def is_empty() -> bool:
        return receiver.waiting() == 0

    await await_until(is_empty, "the work", within=240, every=1)
    whole = time.monotonic() - began
    wanted = ids_of(credentials, run_ids, ENDED)
    assert len(await stored(wanted)) == len(wanted)
    grown = receiver.peak_kilobytes() - before
    assert grown < 100_000
    record_property("webhooks a second", len(bodies) / seconds)
    record_property("slowest answer in seconds", slowest[0])
    record_property("all done after seconds", whole)
    record_property("kilobytes", grown)
