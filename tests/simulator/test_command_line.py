"""`python -m paradime_blocks.testing`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paradime_blocks.testing import BoltSimulator
from paradime_blocks.testing.__main__ import add_from_file
from paradime_blocks.testing.samples import add_samples


def test_one_sample_fails_and_all_others_succeed(simulator: BoltSimulator) -> None:
    """The samples show both outcomes."""
    add_samples(simulator)
    for name in ("daily", "hourly", "extract", "orders", "customers", "publish", "failing"):
        assert simulator.run(simulator.start_run(name)).state == "STARTING"
    simulator.clock.advance(120)
    assert [run.schedule_name for run in simulator.runs() if run.state == "FAILED"] == ["failing"]
    assert {run.state for run in simulator.runs()} == {"SUCCESS", "FAILED"}


def test_schedules_come_from_a_file(simulator: BoltSimulator, tmp_path: Path) -> None:
    """The file is a list of add_schedule's arguments."""
    schedules: list[dict[str, Any]] = [
        {"name": "one", "commands": ["dbt run", {"command": "dbt test", "return_code": 1}], "branch": "dev"},
        {"name": "two", "commands": ["dbt build"], "starting_seconds": 3},
    ]
    file = tmp_path / "schedules.json"
    file.write_text(json.dumps(schedules), encoding="utf-8")
    add_from_file(simulator, file)
    run_id = simulator.start_run("one")
    simulator.clock.advance(60)
    assert (simulator.run(run_id).state, simulator.run(run_id).branch) == ("FAILED", "dev")
    assert simulator.run(simulator.start_run("two")).state == "STARTING"
