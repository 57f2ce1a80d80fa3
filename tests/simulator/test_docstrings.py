"""The sessions in the simulator's docstrings are correct."""

from __future__ import annotations

import doctest
import importlib

import pytest
from support.docstrings import BLOCKS


@pytest.mark.parametrize(
    "module",
    [
        f"paradime_blocks.testing.{path.stem}".removesuffix(".__init__")
        for path in sorted((BLOCKS / "testing").glob("*.py"))
        if ">>>" in path.read_text()
    ],
)
def test_a_session_in_a_docstring_is_correct(module):
    """Checked by Python's own doctest."""
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted > 0
    assert done.failed == 0
