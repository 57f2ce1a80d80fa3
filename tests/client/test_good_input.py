"""Good input is taken, in each way in which bad input is tried."""

from __future__ import annotations

import pytest
from support.attempts import a_call, a_client, a_run, a_task, credentials, flow, schedule

GOOD = [
    pytest.param(a_client(), id="client"),
    pytest.param(a_call(lambda c: c.trigger_bolt_run("daily", commands=("dbt run",))), id="call"),
    pytest.param(credentials(), id="credentials"),
    pytest.param(schedule(), id="schedule"),
    pytest.param(a_run(1), id="handle"),
    pytest.param(a_run(1, timeout_seconds=0, max_outage_seconds=0), id="handle whose time has run out"),
    pytest.param(a_task("get_bolt_schedule", "daily"), id="task"),
    pytest.param(
        a_task("trigger_bolt_run", "daily", commands=[{"command": "dbt run"}]), id="task: plain data"
    ),
    pytest.param(flow(commands=["dbt run"], retries=2), id="flow"),
]


@pytest.mark.parametrize("attempt", GOOD)
def test_what_the_table_of_bad_input_starts_from_is_good(simulator, attempt):
    """Or the refusals there (tests/unit/test_bad_input.py) could be for another reason than the one they name."""
    simulator.add_schedule("daily")
    attempt(simulator)
