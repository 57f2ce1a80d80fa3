"""The README's table of what happens when: each line names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_each_line_of_the_table_names_its_tests() -> None:
    """Or says that it has the one of the line above."""
    readme = (TESTS.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("## What happens when", 1)[1].split("\n## ", 1)[0]
    table = section.split("\n\nBehind the table", 1)[0]
    rows = [line.strip("| ").split(" | ")[-1] for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 15
    there_are = {
        name
        for file in TESTS.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named or row == "the same", row
        assert set(named) <= there_are, row
