"""Secrets in a schedule's own commands: a reader of the flow run in Prefect does not see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.prefect_api import artifacts_of, latest_flow_run, logs_of

from paradime_blocks.testing import SimulatedCommand
from paradime_flows.run_schedule import arun_schedule

if TYPE_CHECKING:
    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("prefect_server")]

TOKEN = "github_pat_11ABCDEFG0" + "q7R8s9T0u1V2w3X4y5Z6" * 4
LEAST = 8


def shown_of(secret: str, text: str) -> str:
    """The longest beginning of a secret in a text."""
    return next((secret[:n] for n in range(len(secret), LEAST, -1) if secret[:n] in text), "")


def padded(command: str, to: int) -> str:
    """The command, padded so that the next text starts at this position."""
    return command + " --vars " + "x" * (to - len(command) - len(" --vars  ")) + " "


@pytest.mark.parametrize("at", [150, 185, 380])
async def test_no_part_of_a_secret_in_a_schedules_commands_shows_in_prefect(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials, at: int
) -> None:
    """Secrets are removed from a text before it is cut, and stored commands are only fingerprints.

    The second command fails once on an older backend, so the remaining commands are sent in a request.
    """
    secret = credentials.api_secret.get_secret_value()
    clone = padded("git clone --depth 1", at) + f"https://x-access-token:{TOKEN}@github.com/acme/shop.git"
    load = padded("python load.py", at) + f"--api-secret {secret}"
    bolt_simulator.clock.speed = 60
    bolt_simulator.lacks(operations=["retryBoltRun"])
    bolt_simulator.add_schedule(
        "secretive",
        commands=[
            SimulatedCommand(clone),
            SimulatedCommand(load, return_code=(1, 0), stdout=f"{load}\n" * 3),
        ],
        setup_commands=False,
    )
    await arun_schedule("secretive", credentials, retries=1, retry_delay_seconds=0, poll_interval_seconds=0.5)
    flow_run = await latest_flow_run("run-schedule")
    places = {f"label {name}": str(value) for name, value in flow_run.labels.items()}
    for n, message in enumerate(await logs_of(flow_run.id)):
        places[f"log record {n}"] = message
    for key, artifact in (await artifacts_of(flow_run.id)).items():
        places[f"artifact {key}"] = f"{key} {artifact.description} {artifact.data}"
    places["flow run"] = flow_run.model_dump_json(exclude={"parameters"})
    assert len(bolt_simulator.runs()) == 2
    assert len(places) > 8
    shown = {(place, shown_of(each, text)) for place, text in places.items() for each in (TOKEN, secret)}
    assert {(place, part) for place, part in shown if part} == set()
