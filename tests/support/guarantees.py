"""Writes flows/GUARANTEES.md from the marks on the tests: `python tests/support/guarantees.py [--check]`.

The mark on a test says what the test proves:

    @pytest.mark.guarantee(
        "Cancelled in Prefect", "A flow run is cancelled", prefect="Cancelled", bolt="CANCELED", result="…"
    )

The first test of a row has all the texts; other tests of the row repeat only group and event. The tests are parsed, not
imported, so pytest and Prefect are not needed. `--check` writes nothing; the exit code says whether the page is fresh.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "flows" / "GUARANTEES.md"
# The order of the page.
GROUPS = (
    "The trigger's answer is lost",
    "Bolt is unreachable, busy, or refuses us",
    "Cancelled in Prefect",
    "Signals, kills, clocks",
    "Worker or machine lost",
    "Retried, suspended, resumed",
    "Flows of your own",
    "Time limit, and cancels that Bolt does not carry out",
    "The schedule is running already",
    "Webhooks",
)
OUTCOME = ("prefect", "bolt", "result")
# The more realistic layers come first.
FOLDERS = ("processes", "e2e", "faults", "client")

HEAD = """\
# Guarantees

What happens when something goes wrong, and the tests that prove it. This page is generated from marks on those tests
(`make guarantees`); `make lint` fails when it is not fresh.

"CANCELED" and other capitals are states in Bolt. "The sweeper" is the flow `sweep_orphans`, which
[README.md](README.md#lost-workers-and-machines) describes.
"""
FOOT = """
## Behind the tables

- A matrix of faults: each fault with each call to Bolt and Prefect, at its first, middle and last occurrence.
- Random stories of triggers, faults, kills, retries, cancels and sweeps.
- Real processes that are cancelled, signalled and killed at each phase.

`make test` runs the whole matrix in memory and a dozen of the processes, `make test-all` the rest, and `make
test-nightly` the processes ten times over. `make figures` runs every case once and counts them, in
[tests/faults/FIGURES.md](../tests/faults/FIGURES.md).
"""


class MarkError(Exception):
    """An invalid mark; the message says where it is."""


@dataclass(frozen=True)
class Mark:
    """A `guarantee` mark on a test.

    Attributes:
        group: The table that it is part of.
        event: What happens.
        outcome: What Prefect shows, what Bolt does and what the user gets; empty if another test has these texts.
        path: The test's file, below `tests`.
        line: The line of the mark.
        test: The test's name.
    """

    group: str
    event: str
    outcome: dict[str, str]
    path: str
    line: int
    test: str

    @property
    def place(self) -> str:
        return f"tests/{self.path}:{self.line}"


@dataclass
class Row:
    """A row of a table: the mark with the texts, and the tests that prove it."""

    said: Mark
    tests: list[Mark] = field(default_factory=list)


def marks_in(path: str, text: str) -> Iterator[Mark]:
    """Yield the marks of a test file."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for call in node.decorator_list:
            if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.guarantee"):
                continue
            try:
                group, event = (str(ast.literal_eval(value)) for value in call.args)
                outcome = {str(each.arg): str(ast.literal_eval(each.value)) for each in call.keywords}
            except ValueError as error:
                raise MarkError(f"tests/{path}:{call.lineno}: a mark is made of plain texts") from error
            yield Mark(group, event, outcome, path, call.lineno, node.name)


def all_marks() -> Iterator[Mark]:
    """Yield the marks of all tests."""
    for file in sorted(TESTS.rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if "mark.guarantee(" in text:
            yield from marks_in(file.relative_to(TESTS).as_posix(), text)


def rows_of(marks: Iterable[Mark]) -> dict[str, list[Row]]:
    """Return the rows of each group, in order.

    Raises:
        MarkError: A mark has no group, repeats or lacks a text, or breaks the table.
    """
    marks = sorted(marks, key=_order)
    rows: dict[tuple[str, str], Row] = {}
    for mark in marks:
        if mark.group not in GROUPS:
            raise MarkError(f"{mark.place}: there is no group {mark.group!r}")
        if any("|" in text or "\n" in text for text in (mark.event, *mark.outcome.values())):
            raise MarkError(f"{mark.place}: a bar or a line break would break the table")
        if not mark.outcome:
            continue
        if tuple(mark.outcome) != OUTCOME or not all(mark.outcome.values()):
            raise MarkError(f"{mark.place}: a mark says {', '.join(OUTCOME)}, in this order, or none of them")
        if (mark.group, mark.event) in rows:
            raise MarkError(f"{mark.place}: {rows[mark.group, mark.event].said.place} says this already")
        rows[mark.group, mark.event] = Row(mark)
    for mark in marks:
        if (mark.group, mark.event) not in rows:
            raise MarkError(f"{mark.place}: no test says what comes of {mark.event!r}")
        rows[mark.group, mark.event].tests.append(mark)
    return {group: [row for (of, _), row in rows.items() if of == group] for group in GROUPS}


def render(groups: dict[str, list[Row]]) -> str:
    """Return the page."""
    parts = [HEAD]
    for group, rows in groups.items():
        if rows:
            lines = [
                f"| {row.said.event} | {' | '.join(row.said.outcome.values())} | {_links(row)} |"
                for row in rows
            ]
            head = "| What happens | What you see in Prefect | What Bolt does | What you get, or do | Proved by |"
            parts.append("\n".join([f"\n## {group}\n", head, "|---|---|---|---|---|", *lines, ""]))
    return "".join([*parts, FOOT])


def _links(row: Row) -> str:
    links = [f"[{mark.test}](../tests/{mark.path})" for mark in row.tests]
    return ", ".join(dict.fromkeys(links))


def _order(mark: Mark) -> tuple[int, str, int]:
    folder = mark.path.partition("/")[0]
    return (FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS), mark.path, mark.line)


def main(arguments: list[str]) -> int:
    try:
        page = render(rows_of(all_marks()))
    except MarkError as error:
        sys.stderr.write(f"{error}.\n")
        return 1
    if "--check" in arguments:
        fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page
        if not fresh:
            sys.stderr.write("flows/GUARANTEES.md is not fresh: run `make guarantees` and commit it.\n")
        return 0 if fresh else 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
