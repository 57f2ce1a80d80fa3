"""flows/GUARANTEES.md: its contents come from the tests' marks; invalid marks are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.guarantees import GROUPS, MarkError, marks_in, render, rows_of

ROOT = Path(__file__).parents[2]
SAID = f"""
@pytest.mark.guarantee({GROUPS[0]!r}, "It rains", prefect="Wet", bolt="Dry", result="An " "umbrella")
@pytest.mark.parametrize("drops", [1])
def test_rain(drops): ...
"""
REPEATED = f"""
@pytest.mark.guarantee({GROUPS[0]!r}, "It rains")
async def test_rain_again(): ...
"""


def page(*texts: str) -> str:
    return render(
        rows_of(mark for n, text in enumerate(texts) for mark in marks_in(f"e2e/test_{n}.py", text))
    )


def test_a_row_has_its_first_tests_texts_and_links_to_all_tests():
    """It does not matter where the tests are, or how their texts are split over lines."""
    links = "[test_rain_again](../tests/e2e/test_0.py), [test_rain](../tests/e2e/test_1.py)"
    text = page(REPEATED, SAID)
    assert f"| It rains | Wet | Dry | An umbrella | {links} |" in text.splitlines()
    assert f"## {GROUPS[0]}" in text
    assert f"## {GROUPS[1]}" not in text


@pytest.mark.parametrize(
    "texts, message",
    [
        pytest.param([REPEATED], "e2e/test_0.py:2: no test says what comes of 'It rains'", id="unsaid"),
        pytest.param([SAID, SAID], "e2e/test_1.py:2: tests/e2e/test_0.py:2 says this already", id="twice"),
        pytest.param([SAID.replace('bolt="Dry", ', "")], "a mark says prefect, bolt, result", id="in part"),
        pytest.param([SAID.replace('"Dry"', '""')], "a mark says prefect, bolt, result", id="empty"),
        pytest.param([SAID.replace(GROUPS[0], "Weather")], "there is no group 'Weather'", id="group"),
        pytest.param([SAID.replace("Wet", "W|et")], "would break the table", id="bar"),
        pytest.param([SAID.replace('"Wet"', "WET")], "plain texts", id="no text"),
        pytest.param([SAID.replace('"It rains", ', "")], "plain texts", id="no event"),
    ],
)
def test_an_invalid_mark_is_refused(texts: list[str], message: str):
    """The error names the mark's place."""
    with pytest.raises(MarkError) as caught:
        page(*texts)
    assert message in str(caught.value)


def test_the_ledgers_page_names_tests_that_exist():
    """Each invariant names the test that proves it."""
    page = (ROOT / "flows" / "paradime_flows" / "ledger" / "README.md").read_text()
    named = set(re.findall(r"`(test_\w+)", page))
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", file.read_text())
    }
    assert len(named) >= 7
    assert named <= defined
