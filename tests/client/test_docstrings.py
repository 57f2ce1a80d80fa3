"""The docstring examples that need no Prefect server run unchanged."""

from __future__ import annotations

import pytest
from support.docstrings import EXAMPLES, run_example

ALONE = [each for each in EXAMPLES if not each.needs_prefect]


@pytest.mark.parametrize("example", ALONE, ids=[each.name for each in ALONE])
def test_an_example_runs_as_it_stands(example):
    """A reader can paste it."""
    run_example(example.code)
