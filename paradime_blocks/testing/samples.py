"""The sample schedules: every schedule that an example of `README.md` and `flows/README.md` names."""

from __future__ import annotations

import json

from .commands import SimulatedCommand
from .simulator import BoltSimulator

# Each of these schedules succeeds. The numbers are the durations of the commands, in virtual seconds.
_SUCCEEDING: dict[str, dict[str, float]] = {
    "daily": {"dbt run": 20, "dbt test": 10},
    "hourly": {"dbt build": 10},
    "extract": {"dbt seed": 5},
    "orders": {"dbt build": 10},
    "customers": {"dbt build": 10},
    "publish": {"dbt run-operation publish": 5},
}

_FAILED_TESTS = {"not_null_orders_id": 3, "unique_customers_id": 1}
_FAILED_OUTPUT = """\
Running with dbt=1.9.4
Found 2 models, 4 data tests, 1 source
1 of 4 PASS not_null_customers_id ... [PASS in 0.10s]
2 of 4 FAIL 3 not_null_orders_id .... [FAIL 3 in 0.10s]
3 of 4 FAIL 1 unique_customers_id ... [FAIL 1 in 0.10s]
4 of 4 PASS unique_orders_id ........ [PASS in 0.10s]
Completed with 2 errors, 0 partial successes, and 0 warnings:
Failure in test not_null_orders_id (models/schema.yml)
  Got 3 results, configured to fail if != 0
Failure in test unique_customers_id (models/schema.yml)
  Got 1 result, configured to fail if != 0
Done. PASS=2 WARN=0 ERROR=2 SKIP=0 TOTAL=4
"""


def add_samples(simulator: BoltSimulator) -> None:
    """Add the sample schedules: `failing` fails, with two failed dbt tests, and all others succeed."""
    for name, commands in _SUCCEEDING.items():
        simulator.add_schedule(
            name,
            commands=[SimulatedCommand(text, duration_seconds=seconds) for text, seconds in commands.items()],
            starting_seconds=2,
        )
    simulator.add_schedule(
        "failing",
        commands=[
            SimulatedCommand("dbt run", duration_seconds=10),
            SimulatedCommand(
                "dbt test",
                duration_seconds=5,
                return_code=1,
                stdout=_FAILED_OUTPUT,
                resources={"target/run_results.json": _run_results()},
            ),
            SimulatedCommand("dbt docs generate"),
        ],
        starting_seconds=2,
    )


def _run_results() -> str:
    results = [
        {
            "unique_id": f"test.jaffle_shop.{name}",
            "status": "fail",
            "failures": failures,
            "message": f"Got {failures} result{'s' * (failures != 1)}, configured to fail if != 0",
            "execution_time": 0.1,
        }
        for name, failures in _FAILED_TESTS.items()
    ]
    return json.dumps({"metadata": {"dbt_version": "1.9.4"}, "results": results, "elapsed_time": 0.2})
