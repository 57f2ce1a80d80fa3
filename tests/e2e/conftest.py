"""End-to-end tests: a real Prefect server, the flow, and the simulator behind a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from support.credentials import save
from support.sweeps import sweep_only

from paradime_blocks.testing import SimulatedCommand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paradime_blocks import ParadimeCredentials
    from paradime_blocks.testing import BoltSimulator

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _of_its_own() -> Iterator[None]:
    """A test's flow runs, and signals sent to them, do not affect later tests."""
    from paradime_blocks import polling, signals
    from paradime_flows.prefect_api.supervisor import start_new_supervisor

    assert polling.Clock() == polling.SYSTEM_CLOCK, "An earlier test has left its own clock."
    yield
    start_new_supervisor()
    # A signal that a hold delivers must not follow the signal of an earlier test.
    signals._heard.clear()


@pytest.fixture
def workspace(bolt_simulator: BoltSimulator) -> BoltSimulator:
    """`quick` succeeds, `once` fails at first, `failing` always fails, `endless` never ends; no files are written."""
    bolt_simulator.clock.speed = 60
    for name, options in {
        "quick": {},
        "once": {"return_code": (1, 0)},
        "failing": {"return_code": 1},
        "endless": {"duration_seconds": 100_000},
    }.items():
        command = SimulatedCommand("dbt run", resources={}, **options)
        bolt_simulator.add_schedule(name, commands=[command], setup_commands=False)
    return bolt_simulator


@pytest.fixture
async def saved(credentials: ParadimeCredentials) -> str:
    """The name of a block with the credentials of the test's simulator."""
    name = f"saved-{uuid4().hex[:12]}"
    await save(credentials, name)
    return name


@pytest.fixture
async def archiving() -> str:
    """A deployment of `archive_run` that no worker serves, so that only its flow runs are counted."""
    from prefect.types.entrypoint import EntrypointType

    from paradime_flows.archive_run import archive_run

    name = f"nobody-{uuid4().hex[:12]}"
    deployment = await archive_run.ato_deployment(name, entrypoint_type=EntrypointType.MODULE_PATH)
    await deployment.aapply()
    return f"archive-run/{name}"


@pytest.fixture
def swept_tag(monkeypatch: pytest.MonkeyPatch) -> str:
    """The test's own tag: sweeps check the flow runs with this tag, and not those of other tests."""
    tag = f"swept-{uuid4().hex[:12]}"
    sweep_only(monkeypatch, tag)
    return tag
