"""The contents of the tested pages: flow runs with real dbt output from the simulator, and a form."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.sorting import FlowRunSort
from prefect.logging.handlers import APILogHandler
from recorded import recorded_commands
from support.credentials import credentials_for
from support.processes import wait_for_flow_run, wait_until

from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_flows.run_schedule import run_schedule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, TaskRun

# If any of it took effect, it would change the title, alert, or request one of these addresses.
HOSTILE = (
    "first line of the hostile log\n"
    "```\n</code></pre><script>document.title = 'PWNED'; window.pwned = 1</script>\n"
    "````\n<img src=http://evil.test/img onerror=\"window.pwned = 1; alert('PWNED')\">\n"
    "![picture](http://evil.test/markdown.png)\n"
    "[click me](javascript:window.pwned=1)\n"
    "<iframe src=http://evil.test/frame></iframe><style>body { display: none }</style>\n"
    "<svg onload=alert(1)>\n"
    "\x1b[31mred\x1b[0m \x1b]0;PWNED\x07 "
    "\x1b]8;;http://evil.test/osc\x07link\x1b]8;;\x07 \u202egnp.exe\x00\x07\n"
    "| a | b |\n|---|---|\n# heading\n" + "x" * 100_000 + "\nlast line of the hostile log\n"
)
LONG_LINES = 40_000


@dataclass(frozen=True)
class ShownRun:
    """A flow run, its artifacts by key, and its task runs by name."""

    flow_run_id: UUID
    artifact_ids: dict[str, UUID]
    task_run_ids: dict[str, UUID]


def failed_run(simulator: BoltSimulator) -> ShownRun:
    """A nightly build in which a model and two tests fail."""
    simulator.add_schedule("nightly", commands=recorded_commands("failure"), setup_commands=False)
    return _run(simulator, "nightly")


def long_log(simulator: BoltSimulator) -> ShownRun:
    """A command whose log is larger than an artifact's limit."""
    log = "".join(
        f"03:{n // 3600 % 60:02}:{n // 60 % 60:02}  {n} of {LONG_LINES} OK created sql table main.part_{n}\n"
        for n in range(1, LONG_LINES + 1)
    )
    command = SimulatedCommand("dbt run", stdout=log, return_code=1, resources={})
    simulator.add_schedule("long", commands=[command], setup_commands=False)
    return _run(simulator, "long", live_logs="off")


def hostile_log(simulator: BoltSimulator) -> ShownRun:
    """A command whose name and log try everything that could take effect on a page."""
    command = SimulatedCommand(
        "dbt run --vars '<img src=http://evil.test/command onerror=alert(1)>'",
        stdout=HOSTILE,
        return_code=1,
        resources={},
    )
    simulator.add_schedule("hostile", commands=[command], setup_commands=False)
    return _run(simulator, "hostile")


@dataclass(frozen=True)
class ShownForm:
    """A deployment, and the help texts of its parameters by name, in order."""

    deployment_id: UUID
    help_texts: dict[str, str]


def run_schedule_form() -> ShownForm:
    """Deploy `run_schedule` with an empty form."""
    deployment_id = run_schedule.to_deployment("form").apply()
    with get_client(sync_client=True) as client:
        schema = client.read_deployment(deployment_id).parameter_openapi_schema
    fields = sorted(schema["properties"].items(), key=lambda item: item[1]["position"])
    texts = {
        name: field.get("description") or _description_of_the_box(schema, field) for name, field in fields
    }
    return ShownForm(deployment_id, texts)


def _description_of_the_box(schema: dict[str, Any], field: dict[str, Any]) -> str:
    return str(schema["definitions"][field["$ref"].rsplit("/", 1)[1]]["description"])


def newest_run_of(deployment_id: UUID) -> FlowRun:
    """Return the newest flow run of a deployment, once it has ended."""
    with get_client(sync_client=True) as client:
        (newest,) = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=1,
        )
    return wait_for_flow_run(newest.id)


def _run(simulator: BoltSimulator, name: str, **parameters: Any) -> ShownRun:
    """Run a schedule that fails."""
    credentials = credentials_for(simulator)
    state = run_schedule(name, credentials, poll_interval_seconds=0.5, return_state=True, **parameters)
    assert state.is_failed(), state
    # A page shows the log lines that the server has when the page is opened.
    asyncio.run(APILogHandler.aflush())
    flow_run_id = state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        )
        tasks = _ended_task_runs(client, flow_run_id)
    return ShownRun(
        flow_run_id,
        {each.key: each.id for each in found if each.key},
        {each.name: each.id for each in tasks},
    )


def _ended_task_runs(client: SyncPrefectClient, flow_run_id: UUID) -> Sequence[TaskRun]:
    """Return the task runs of a flow run, once all of them have ended: their states arrive as events."""
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    found: list[TaskRun] = []

    def over() -> bool:
        found[:] = client.read_task_runs(flow_run_filter=wanted)
        names = {each.name for each in found}
        return "archive" in names and all(each.state and each.state.is_final() for each in found)

    wait_until(over, "the ends of the task runs", every=0.2)
    return found
