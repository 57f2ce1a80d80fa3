"""The modules that an import loads, checked in a separate process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes


def test_the_simulator_is_not_imported_with_the_package():
    """It is a test aid with its own requirements, and it shares no code with the client that it tests."""
    aids = "('paradime_blocks.testing', 'graphql')"
    code = f"import sys, paradime_blocks; print([m for m in sys.modules if m.startswith({aids})])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
