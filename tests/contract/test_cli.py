"""The vendor's command line with the simulator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from paradime.cli.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def paradime(simulator: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the `paradime` command with the simulator's environment."""
    for name, value in simulator.environment().items():
        monkeypatch.setenv(name, value)

    def paradime(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    return paradime


def started(result: Result) -> int:
    """The run id in the JSON output."""
    decoder, text = json.JSONDecoder(), result.output
    found = decoder.raw_decode(text[text.index("{") :])[0]
    return int(found["run_id"])


def test_a_run_is_started_and_waited_for(simulator: Any, paradime: Callable[..., Result]) -> None:
    """The exit code is 0, and the live log appears."""
    simulator.clock.speed = 20
    simulator.add_schedule("daily")
    result = paradime(
        "bolt", "run", "daily", "--wait", "--branch", "dev", "--reason", "cli", "--pr-number", "5"
    )
    assert result.exit_code == 0, result.output
    assert "Completed successfully" in result.output
    run = simulator.runs("daily")[0]
    assert (run.state, run.branch, run.reason, run.pr_number) == ("SUCCESS", "dev", "cli", 5)


def test_a_failing_run_is_a_failure(simulator: Any, testing: Any, paradime: Callable[..., Result]) -> None:
    """The exit code is 1."""
    simulator.clock.speed = 20
    simulator.add_schedule("daily", commands=[testing.SimulatedCommand("dbt run", return_code=1)])
    result = paradime("bolt", "run", "daily", "--wait", "--json")
    assert result.exit_code == 1
    assert simulator.run(started(result)).state == "FAILED"


def test_commands_are_replaced(simulator: Any, paradime: Callable[..., Result]) -> None:
    """Each --command becomes one of the run's commands."""
    simulator.add_schedule("daily")
    result = paradime("bolt", "run", "daily", "--json", "--command", "dbt seed", "--command", "dbt build")
    assert result.exit_code == 0, result.output
    assert simulator.run(started(result)).planned_commands[-2:] == ("dbt seed", "dbt build")


@pytest.mark.parametrize("flags", [[], ["--all"]], ids=["what failed", "everything"])
def test_a_run_is_retried(simulator: Any, paradime: Callable[..., Result], flags: list[str]) -> None:
    """The retry uses its id."""
    simulator.add_schedule("daily", final_state="FAILED")
    failed = simulator.start_run("daily")
    simulator.clock.advance(60)
    result = paradime("bolt", "retry", "--json", *flags, str(failed))
    assert result.exit_code == 0, result.output
    assert simulator.run(started(result)).parent_run_id == failed


def test_a_schedule_is_retried_suspended_and_resumed(simulator: Any, paradime: Callable[..., Result]) -> None:
    """These are the commands of `paradime bolt schedule`."""
    simulator.add_schedule("daily", final_state="FAILED")
    failed = simulator.start_run("daily")
    simulator.clock.advance(60)
    result = paradime("bolt", "schedule", "retry", "daily", "--json")
    assert simulator.run(started(result)).parent_run_id == failed
    for command in ("suspend", "unsuspend"):
        result = paradime("bolt", "schedule", command, "daily")
        assert result.exit_code == 0, result.output
    assert simulator.count("suspendBoltSchedule") == 2


def test_an_artifact_is_downloaded(simulator: Any, paradime: Callable[..., Result], tmp_path: Path) -> None:
    """The latest manifest is written to the named file."""
    simulator.add_schedule("daily")
    simulator.start_run("daily")
    simulator.clock.advance(60)
    target = tmp_path / "manifest.json"
    result = paradime("bolt", "artifact", "--slug", "daily", "--output-path", str(target))
    assert result.exit_code == 0, result.output
    assert "metadata" in json.loads(target.read_text(encoding="utf-8"))
