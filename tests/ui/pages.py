"""The pages of Prefect's UI about a Bolt run, made with real dbt's output and the simulator."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowFilter, FlowFilterName
from prefect.client.schemas.sorting import FlowRunSort
from recorded import recorded_commands

from paradime_blocks import BoltRunFailed, ParadimeCredentials
from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_flows.run_schedule import run_schedule

if TYPE_CHECKING:
    from local_server import LocalPrefectServer

# Whatever of it acted would change the title, alert, or ask for one of these addresses.
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
class Shown:
    """A flow run, and the pages that it has in Prefect's UI.

    Attributes:
        flow_run: The address of the flow run's page.
        artifacts: The addresses of its artifacts' pages, by key.
    """

    flow_run: str
    artifacts: dict[str, str]


def run(server: LocalPrefectServer, simulator: BoltSimulator, name: str, **parameters: Any) -> Shown:
    """Run a schedule that fails, and return its pages."""
    credentials = ParadimeCredentials(
        api_endpoint=simulator.api_endpoint, api_key=simulator.api_key, api_secret=simulator.api_secret
    )
    with suppress(BoltRunFailed):
        run_schedule(name, credentials, poll_interval_seconds=0.5, **parameters)
    with get_client(sync_client=True) as client:
        (flow_run,) = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["run-schedule"])),
            sort=FlowRunSort.START_TIME_DESC,
            limit=1,
        )
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]))
        )
    return Shown(
        f"{server.ui_url}/runs/flow-run/{flow_run.id}",
        {each.key: f"{server.ui_url}/artifacts/artifact/{each.id}" for each in found if each.key},
    )


def failed_run(server: LocalPrefectServer, simulator: BoltSimulator) -> Shown:
    """A nightly build in which a model and two tests fail."""
    simulator.add_schedule("nightly", commands=recorded_commands("failure"), setup_commands=False)
    simulator.clock.speed = 2
    return run(server, simulator, "nightly")


def long_log(server: LocalPrefectServer, simulator: BoltSimulator) -> Shown:
    """A command whose log is larger than what an artifact holds."""
    log = "".join(
        f"03:{n // 3600 % 60:02}:{n // 60 % 60:02}  {n} of {LONG_LINES} OK created sql table main.part_{n}\n"
        for n in range(1, LONG_LINES + 1)
    )
    command = SimulatedCommand("dbt run", stdout=log, return_code=1, resources={})
    simulator.add_schedule("long", commands=[command], setup_commands=False)
    simulator.clock.speed = 20
    return run(server, simulator, "long", live_logs="off")


def hostile_log(server: LocalPrefectServer, simulator: BoltSimulator) -> Shown:
    """A command whose name and log try whatever could act on a page."""
    command = SimulatedCommand(
        "dbt run --vars '<img src=http://evil.test/command onerror=alert(1)>'",
        stdout=HOSTILE,
        return_code=1,
        resources={},
    )
    simulator.add_schedule("hostile", commands=[command], setup_commands=False)
    simulator.clock.speed = 20
    return run(server, simulator, "hostile")
