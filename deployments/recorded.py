"""Turns recordings of real dbt (`dbt_runs/recorded`) into simulated commands, for the demo and the tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from paradime_blocks.testing import BoltSimulator, SimulatedCommand
from paradime_blocks.testing.samples import add_samples

RECORDED = Path(__file__).resolve().parent / "dbt_runs" / "recorded"


def add_recorded_samples(simulator: BoltSimulator, *, seconds: float) -> None:
    """Add the sample schedules. Two of them print the output of real dbt: `daily`, which succeeds, and `failing`.

    Args:
        simulator: The simulator.
        seconds: How long each recorded command takes, in seconds.
    """
    add_samples(simulator)
    for name, case in {"daily": "success", "failing": "failure"}.items():
        simulator.update_schedule(
            name, commands=recorded_commands(case, seconds=seconds), setup_commands=False, starting_seconds=0
        )


def recorded_commands(case: str, *, seconds: float | None = None, **changes: Any) -> list[SimulatedCommand]:
    """Return simulated commands that replay the commands of a recorded case, in the recorded order.

    Args:
        case: The name of the case's folder, such as `success`.
        seconds: How long each command takes, in seconds; None to use the recorded time.
        changes: New values for fields of the last command.
    """
    commands = []
    folders = sorted((RECORDED / case).iterdir(), key=lambda folder: int(folder.name.partition("-")[0]))
    for folder in folders:
        facts = json.loads((folder / "command.json").read_text(encoding="utf-8"))
        target = folder / "resources" / "target"
        files = {f"target/{path.name}": path.read_bytes() for path in sorted(target.glob("*.json"))}
        commands.append(
            SimulatedCommand(
                facts["command"],
                duration_seconds=facts["duration_seconds"] if seconds is None else seconds,
                return_code=facts["return_code"],
                stdout=(folder / "stdout.txt").read_text(encoding="utf-8"),
                stderr=(folder / "stderr.txt").read_text(encoding="utf-8"),
                resources=files,
            )
        )
    commands[-1] = replace(commands[-1], **changes)
    return commands
