"""What a simulated command does: how long it takes, what it prints, and which files it writes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Content = bytes | str | Path

# `dbt retry` resumes these commands where they failed. Any other command is run again unchanged.
_RETRYABLE = (
    "build", "clone", "compile", "docs generate", "run", "run-operation", "seed", "snapshot", "test",
)  # fmt: skip


@dataclass(frozen=True)
class SimulatedCommand:
    """One command of a simulated schedule.

    Attributes:
        command: The text of the command, such as `dbt run`.
        duration_seconds: How long the command takes, in virtual seconds. With `math.inf`, the command never ends by
            itself.
        return_code: The command's return code. A tuple has one code for each run that executes the command. The last
            code also applies to all later runs. With `(1, 0)`, the command fails once and then succeeds.
        stdout: The whole standard output, which grows line by line while the command runs. With None, the command
            prints something that looks like dbt's output.
        stderr: The whole standard error, which grows in the same way.
        resources: The content of each file that the command writes. The key is the file's path. With None, the command
            writes dbt's usual files; with `{}`, no files.
        continue_on_error: Whether the run continues after this command has failed. None means the run's own setting.

    Example:
        >>> SimulatedCommand("dbt test", duration_seconds=30, return_code=(1, 0)).code(execution=5)
        0
    """

    command: str
    duration_seconds: float = 1.0
    return_code: int | tuple[int, ...] = 0
    stdout: str | None = None
    stderr: str = ""
    resources: Mapping[str, Content] | None = None
    continue_on_error: bool | None = None

    def __post_init__(self) -> None:
        """Reject impossible values, so that a mistake in a test is reported where the mistake was made."""
        if not self.command.strip():
            message = "A command needs some text."
            raise ValueError(message)
        if math.isnan(self.duration_seconds) or self.duration_seconds < 0:
            message = f"{self.command!r} cannot take {self.duration_seconds} seconds."
            raise ValueError(message)
        if self.return_code == ():
            message = f"{self.command!r} needs at least one return code."
            raise ValueError(message)

    def code(self, execution: int) -> int:
        """Return the return code of an execution of the command. The first execution has the number 0."""
        if isinstance(self.return_code, int):
            return self.return_code
        return self.return_code[min(execution, len(self.return_code) - 1)]

    def output(self, return_code: int) -> str:
        """Return the whole standard output of an execution with this return code."""
        return _usual_output(self.command, return_code) if self.stdout is None else self.stdout

    def files(self, return_code: int) -> Mapping[str, Content]:
        """Return the files that an execution with this return code writes."""
        return _usual_files(self.command, return_code) if self.resources is None else self.resources

    @property
    def is_setup(self) -> bool:
        """Whether the command comes from Bolt, and not from the schedule. A retry leaves out such commands."""
        return self.command.startswith("git clone") or self.command.strip() == "dbt deps"

    @property
    def text_for_retry(self) -> str:
        """The text that a retry runs: `dbt retry`, if dbt can resume this command; otherwise the command's own text."""
        words = self.command.split()
        rest = " ".join(words[1:])
        fits = words[0] == "dbt" and any(rest == verb or rest.startswith(f"{verb} ") for verb in _RETRYABLE)
        return "dbt retry" if fits else self.command


def as_command(command: str | SimulatedCommand) -> SimulatedCommand:
    """Return a command. A text becomes a command that takes one virtual second and succeeds."""
    return SimulatedCommand(command) if isinstance(command, str) else command


def setup_commands(branch: str) -> tuple[SimulatedCommand, ...]:
    """Return the commands that Bolt runs before the schedule's commands."""
    return (
        SimulatedCommand(
            "git clone https://git.example.com/acme/jaffle-shop.git",
            duration_seconds=0.1,
            stdout=f"Cloning into 'jaffle-shop'...\nSwitched to '{branch}'\n",
            resources={},
        ),
        SimulatedCommand(
            "dbt deps",
            duration_seconds=0.1,
            stdout="Installing dbt-labs/dbt_utils\n  Installed from version 1.3.0\n  Up to date!\n",
            resources={},
        ),
    )


def _usual_output(command: str, return_code: int) -> str:
    if not command.startswith("dbt "):
        return f"$ {command}\n" + ("done\n" if return_code == 0 else f"exit status {return_code}\n")
    end = (
        ["2 of 2 OK customers ...... [OK in 0.10s]", "Completed successfully", "Done. PASS=2 ERROR=0 TOTAL=2"]
        if return_code == 0
        else [
            "2 of 2 ERROR customers ... [ERROR in 0.10s]",
            "Completed with 1 error",
            "Done. PASS=1 ERROR=1 TOTAL=2",
        ]
    )
    begin = [
        "Running with dbt=1.9.4",
        "Found 2 models, 4 data tests, 1 source",
        "1 of 2 OK orders ......... [OK in 0.10s]",
    ]
    return "\n".join([*begin, *end]) + "\n"


def _usual_files(command: str, return_code: int) -> Mapping[str, Content]:
    words = command.split()
    if words[0] != "dbt" or words[1:2] in ([], ["deps"], ["clean"], ["debug"]):
        return {}
    meta = {"dbt_version": "1.9.4", "adapter_type": "duckdb"}
    outcome = "success" if return_code == 0 else "error"
    result = {"unique_id": "model.jaffle_shop.customers", "status": outcome, "execution_time": 0.1}
    files = {
        "target/manifest.json": {"metadata": meta, "nodes": {}, "sources": {}},
        "target/run_results.json": {"metadata": meta, "results": [result], "elapsed_time": 0.1},
    }
    if words[1:3] == ["docs", "generate"]:
        files["target/catalog.json"] = {"metadata": meta, "nodes": {}, "sources": {}}
    if words[1] == "source":
        files["target/sources.json"] = {"metadata": meta, "results": [], "elapsed_time": 0.1}
    return {path: json.dumps(content) for path, content in files.items()}
