"""Good input is accepted in each way in which bad input is tried."""

from __future__ import annotations

import pytest
from support.attempts import a_call, a_client, a_run, a_task, credentials, flow, schedule

GOOD = [
    pytest.param(a_client(), id="client"),
    pytest.param(a_call(lambda c: c.trigger_bolt_run("daily", commands=("dbt run",))), id="call"),
    pytest.param(credentials(), id="credentials"),
    pytest.param(schedule(), id="schedule"),
    pytest.param(a_run(1), id="handle"),
    pytest.param(a_run(1, timeout_seconds=0, max_outage_seconds=0), id="handle whose time is up"),
    pytest.param(a_task("get_bolt_schedule", "daily"), id="task"),
    pytest.param(
        a_task("trigger_bolt_run", "daily", commands=[{"command": "dbt run"}]), id="task: plain data"
    ),
    pytest.param(flow(commands=["dbt run"], retries=2), id="flow"),
]


@pytest.mark.parametrize("attempt", GOOD)
def test_the_valid_input_behind_the_table_of_bad_input_is_accepted(simulator, attempt):
    """Otherwise the refusals in tests/unit/test_bad_input.py could have another cause than the one they name."""
    simulator.add_schedule("daily")
    attempt(simulator)
