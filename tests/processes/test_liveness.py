"""Which process is alive."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from paradime_flows.liveness import _started


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_has_ended_and_was_not_asked_for_is_dead() -> None:
    """In a container whose first process asks for no one, it stays as a zombie for good."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert _started(process.pid)
    process.kill()
    stat = Path(f"/proc/{process.pid}/stat")
    deadline = time.monotonic() + 30
    while stat.read_text().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _started(process.pid)
    process.communicate()
