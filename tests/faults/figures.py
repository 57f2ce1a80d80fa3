"""The table of figures: `python tests/faults/figures.py [pytest arguments]` runs the fault tests and sums them.

Each case records what it did (`record_figures`): the Bolt runs it started, the processes it killed, and the Bolt runs
that were still running at its end without any report. Without arguments, it runs every case and writes the
table to FIGURES.md. The exit code is pytest's.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import pytest

PAGE = Path(__file__).with_name("FIGURES.md")
INTRODUCTION = """\
# Figures

One run of all fault and process tests, counted by `make figures`. A run is left over if it is still running in Bolt
when the flow run has ended and the sweeper has run, and nobody was told of it.

"""
EVERY_CASE = ["-n", "3", "--include", "full", "--include", "exhaustive"]
COLUMNS = ("cases", "kills", "started", "left_over")
HEAD = ("Test", "Cases", "Kills", "Bolt runs started", "Runs left over", "Failed")


class Figures:
    """A pytest plugin that sums what the tests recorded."""

    def __init__(self) -> None:
        self.sums: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == "figures":
                sums = self.sums.setdefault(str(value["group"]), Counter())
                sums.update({column: int(value[column]) for column in COLUMNS})
                sums["failed"] += report.failed

    def table(self) -> str:
        rows = [(group, *self._cells(sums)) for group, sums in sorted(self.sums.items())]
        whole: Counter[str] = Counter()
        for sums in self.sums.values():
            whole.update(sums)
        rows.append(("**All**", *self._cells(whole)))
        lines = [HEAD, ("---", *["---:"] * (len(HEAD) - 1)), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    @staticmethod
    def _cells(sums: Counter[str]) -> tuple[str, ...]:
        return tuple(f"{sums[column]:,}" for column in (*COLUMNS, "failed"))


def main(arguments: list[str]) -> int:
    figures = Figures()
    began = time.monotonic()
    tests = Path(__file__).parents[1]
    every_case = [*EVERY_CASE, str(tests / "faults"), str(tests / "processes")]
    code = pytest.main(["-q", "--no-header", *(arguments or every_case)], plugins=[figures])
    seconds = time.monotonic() - began
    sys.stdout.write(f"\n{figures.table()}\n\nComputed from one run of {seconds:.0f} s.\n")
    if not arguments and code == pytest.ExitCode.OK:
        PAGE.write_text(f"{INTRODUCTION}{figures.table()}\n", encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
