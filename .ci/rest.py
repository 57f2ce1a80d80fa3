"""Runs the tests that `make test` leaves out, part by part, within a time: `rest.py [--seconds N]`.

A part starts only if it should end in time. The parts left out are listed at the end. Without a time limit, all parts
run. The first failure stops the program with its exit code.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field

PYTEST = [sys.executable, "-m", "pytest", "-n", "3", "-q"]
PROCESSES = "tests/processes/test_{}.py"


@dataclass(frozen=True)
class Part:
    """A part of the tests.

    Attributes:
        name: Its subject.
        command: The command that runs it.
        seconds: How long it takes on two cores.
        env: Environment variables to add.
    """

    name: str
    command: list[str]
    seconds: float
    env: dict[str, str] = field(default_factory=dict)


def processes(mark: str, seconds: float, *names: str) -> Part:
    """A part of the process tests: the files with these names."""
    files = [PROCESSES.format(name) for name in names]
    return Part(f"processes ({mark}): {', '.join(names)}", [*PYTEST, "-m", mark, *files], seconds)


# First the tests that have no sample in `make test`; last the full combinations of those that have one.
PARTS = [
    Part("the demo", ["make", "--no-print-directory", "demo"], 60),
    Part("the vendor's SDK", ["make", "--no-print-directory", "test-contract"], 120),
    Part("400 random stories, 100,000 lines", [*PYTEST, "-m", "(full or exhaustive) and memory"], 120),
    Part("more on the real server", [*PYTEST, "-m", "(full or exhaustive) and e2e", "tests/e2e"], 180),
    processes("full or exhaustive", 400, "deployment", "local"),
    processes("full", 200, "interrupts", "supervisors"),
    processes("full", 200, "shapes", "resuming"),
    processes("full", 150, "traps", "pipelines", "secrets", "live_logs"),
    Part(
        "300 examples of each property",
        [*PYTEST, "-m", "hypothesis", "-o", "unit_limit_seconds=inf"],
        120,
        {"HYPOTHESIS_PROFILE": "nightly"},
    ),
    Part(
        "benchmark: live logs",
        [sys.executable, "tests/benchmarks/live_logs.py", "20000"],
        180,
        {"PYTHONPATH": ".:flows:deployments"},
    ),
    Part("benchmark: memory of an archive", [sys.executable, "tests/benchmarks/archive_memory.py"], 120),
    processes("exhaustive", 600, "interrupts"),
    processes("exhaustive", 600, "shapes"),
    processes("exhaustive", 300, "supervisors"),
    processes("exhaustive", 200, "resuming", "traps", "pipelines", "live_logs"),
]


def main() -> int:
    """Run the parts that fit, and return the exit code of the last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    seconds: float = parser.parse_args().seconds
    began = time.monotonic()
    left: list[Part] = []
    closing: list[str] = []
    for part in PARTS:
        if time.monotonic() - began + part.seconds > seconds:
            left.append(part)
            continue
        print(f"== {part.name}", flush=True)
        start = time.monotonic()
        code, last = run(part)
        took = f"{time.monotonic() - start:.0f} s ({part.seconds:.0f} s expected)"
        if code:
            print(f"== {part.name} FAILED after {took}")
            return code
        print(f"== {part.name} passed after {took}", flush=True)
        closing += [f"{part.name}:", last]
    print("== summary")
    if left:
        print(f"Left out, since they do not fit into {seconds:.0f} s (`make test-nightly` runs all):")
        for part in left:
            print(f"  {part.name} ({part.seconds:.0f} s)")
    print(*closing, sep="\n")
    return 0


def run(part: Part) -> tuple[int, str]:
    """Run a part and print its output; return its exit code and its last line."""
    last = ""
    with subprocess.Popen(
        part.command, env=os.environ | part.env, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode, last


if __name__ == "__main__":
    sys.exit(main())
