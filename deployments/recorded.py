"""Turns recordings of real dbt (`dbt_runs/recorded`) into simulated commands, for the demo and the tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from paradime_blocks.testing import SimulatedCommand

RECORDED = Path(__file__).resolve().parent / "dbt_runs" / "recorded"


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
