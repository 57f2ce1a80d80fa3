"""Secrets in a schedule's own commands: a reader of the flow run in Prefect does not see them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.exceptions import PrefectHTTPStatusError
from prefect.filesystems import RemoteFileSystem
from support.prefect_api import artifacts_of, latest_flow_run, logs_of

from paradime_blocks.testing import SimulatedCommand
from paradime_flows.run_schedule import arun_schedule, run_schedule
from paradime_flows.tasks import get_bolt_schedule

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


async def test_of_a_block_the_flow_run_stores_the_name_only(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """A file system's settings are no secret to Prefect; one that is not saved has no name, and works all the same."""
    bolt_simulator.clock.speed = 60
    bolt_simulator.add_schedule("daily", setup_commands=False)
    saved, other = (
        RemoteFileSystem(basepath="memory://archive", settings={"secret": "AWS-SECRET-xyz"}) for _ in range(2)
    )
    name = f"archive-{uuid4().hex[:8]}"
    await saved.asave(name)
    for storage, told in (
        (saved, f"remote-file-system/{name}"),
        (f"remote-file-system/{name}", f"remote-file-system/{name}"),
        (other, "RemoteFileSystem, not saved"),
    ):
        await arun_schedule("daily", credentials, storage=storage, poll_interval_seconds=0.5)
        parameters = (await latest_flow_run("run-schedule")).parameters
        assert parameters["storage"] == told
        assert parameters["credentials"] == "ParadimeCredentials, not saved"


async def test_credentials_typed_into_the_form_of_a_deployment_are_refused() -> None:
    """Prefect's server says which field it is, and makes no flow run that would show them."""
    deployment_id = await (await run_schedule.ato_deployment(f"typed-{uuid4().hex[:8]}")).aapply()
    typed = {"api_endpoint": "https://api.paradime.io/api/v1/x/graphql", "api_key": "k", "api_secret": "s"}
    async with get_client() as client:
        with pytest.raises(PrefectHTTPStatusError, match="credentials"):
            await client.create_flow_run_from_deployment(
                deployment_id, parameters={"schedule_name": "daily", "credentials": typed}
            )
        made = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]))
        assert await client.read_flow_runs(flow_run_filter=made) == []


def test_a_block_is_one_argument_for_all_that_a_task_is_mapped_over(
    bolt_simulator: BoltSimulator, credentials: ParadimeCredentials
) -> None:
    """Prefect would map over its fields."""
    bolt_simulator.add_schedule("daily", commands=["dbt run"])
    bolt_simulator.add_schedule("weekly", commands=["dbt test"])

    @flow
    def mapped() -> list[str]:
        found = get_bolt_schedule.map(["daily", "weekly"], credentials)
        return [each.commands[0] for each in found.result()]

    assert mapped() == ["dbt run", "dbt test"]
