"""The docstring examples that need a Prefect server run unchanged."""

from __future__ import annotations

import pytest
from support.credentials import credentials_for
from support.docstrings import EXAMPLES, run_example

from paradime_blocks import BoltSchedule
from paradime_blocks.testing import BoltSimulator, SimulatedCommand

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("swept_tag")]

WITH_PREFECT = [each for each in EXAMPLES if each.needs_prefect]
# The run id in the examples, which is from Bolt's reference.
SOME_RUN = "76035"


@pytest.fixture(scope="module")
def saved(prefect_server):
    """A Bolt, and the saved blocks of the examples."""
    with BoltSimulator(speed=1000) as simulator:
        credentials = credentials_for(simulator)
        for name in ("production", "block-name"):
            # A copy each: Prefect overwrites the document that the object was saved as before, whatever its name is.
            credentials.model_copy().save(name, overwrite=True)
        BoltSchedule(credentials=credentials, schedule_name="daily").save("block-name", overwrite=True)
        yield simulator


@pytest.fixture
def some_run(saved, monkeypatch):
    """What the examples need: saved blocks, schedules, and a failed run."""
    simulator = saved
    simulator.reset()
    # It fails the first time, so that there is something to retry; the examples themselves succeed.
    failing = SimulatedCommand("dbt test", return_code=(1, 0))
    simulator.add_schedule("daily", commands=["dbt run", failing])
    for name in ("extract", "transform", "publish"):
        simulator.add_schedule(name, commands=["dbt run"])
    run_id = simulator.start_run("daily")
    simulator.wait_for(lambda s: not s.active_runs(), timeout=30)
    for name, value in simulator.environment().items():
        monkeypatch.setenv(name, value)
    return run_id


@pytest.mark.parametrize("example", WITH_PREFECT, ids=[each.name for each in WITH_PREFECT])
def test_an_example_runs_as_it_stands(example, some_run):
    """A reader can paste it. Names and ids stand for the reader's own."""
    code = example.code.replace('"BLOCK_NAME"', '"block-name"').replace(SOME_RUN, str(some_run))
    run_example(code)
