"""`python -m paradime_blocks.testing`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from paradime_blocks.testing import BoltSimulator
from paradime_blocks.testing.__main__ import _add_from_file, _add_samples

LIST = "{ listBoltSchedules(offset: 0, limit: 9, showInactive: false) { schedules { name } } }"


def exported(line: str) -> tuple[str, str]:
    name, _, value = line.removeprefix("export ").strip().partition("=")
    return name, shlex.split(value)[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_it_prints_where_it_listens_and_ends_on_a_signal(number: signal.Signals) -> None:
    """The lines can be eval'ed by a shell; the end is a clean one."""
    command = [sys.executable, "-m", "paradime_blocks.testing", "--speed", "10"]
    folder = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            variables = dict(exported(process.stdout.readline()) for _ in range(3))
            response = httpx.post(
                variables["PARADIME_API_ENDPOINT"],
                json={"query": LIST},
                headers={
                    "X-API-KEY": variables["PARADIME_API_KEY"],
                    "X-API-SECRET": variables["PARADIME_API_SECRET"],
                },
                trust_env=False,
            )
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    names = [each["name"] for each in response.json()["data"]["listBoltSchedules"]["schedules"]]
    assert names == ["daily", "hourly", "broken"]
    assert (process.returncode, errors) == (0, "")


def test_one_sample_succeeds_and_one_fails(simulator: BoltSimulator) -> None:
    """There is something to see on both sides."""
    _add_samples(simulator)
    good, bad = simulator.start_run("daily"), simulator.start_run("broken")
    assert simulator.run(good).state == "STARTING"
    simulator.clock.advance(120)
    assert (simulator.run(good).state, simulator.run(bad).state) == ("SUCCESS", "FAILED")


def test_schedules_come_from_a_file(simulator: BoltSimulator, tmp_path: Path) -> None:
    """A list of what add_schedule takes."""
    schedules: list[dict[str, Any]] = [
        {"name": "one", "commands": ["dbt run", {"command": "dbt test", "return_code": 1}], "branch": "dev"},
        {"name": "two", "commands": ["dbt build"], "starting_seconds": 3},
    ]
    file = tmp_path / "schedules.json"
    file.write_text(json.dumps(schedules), encoding="utf-8")
    _add_from_file(simulator, file)
    run_id = simulator.start_run("one")
    simulator.clock.advance(60)
    assert (simulator.run(run_id).state, simulator.run(run_id).branch) == ("FAILED", "dev")
    assert simulator.run(simulator.start_run("two")).state == "STARTING"
