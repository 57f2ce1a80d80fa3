"""Which processes are alive."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from paradime_flows.prefect_api.labels import ALIVE_LABEL
from paradime_flows.supervision.heartbeat import beat, silent_seconds

pytestmark = pytest.mark.processes


class Labels:
    """A client that has written labels."""

    def __init__(self) -> None:
        self.written: dict[str, Any] = {}

    async def update_flow_run_labels(self, flow_run_id: UUID, labels: dict[str, Any]) -> None:
        del flow_run_id
        self.written.update(labels)


def stat(pid: int) -> list[str]:
    """The kernel's data on a process from its state on: proc(5), the third field and those after it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_zombie_process_counts_as_dead() -> None:
    """In a container whose first process reaps no children, it stays a zombie for ever."""
    client: Any = Labels()
    await beat(client, uuid4())
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # noqa: ASYNC220
    # The heartbeat that the process would write.
    at, _, _, machine = client.written[ALIVE_LABEL].split(" ", 3)
    flow_run = FlowRun(
        flow_id=uuid4(), labels={ALIVE_LABEL: f"{at} {process.pid} {stat(process.pid)[19]} {machine}"}
    )
    try:
        alive = silent_seconds(flow_run)
        process.kill()
        deadline = time.monotonic() + 30
        while stat(process.pid)[0] != "Z" and time.monotonic() < deadline:
            time.sleep(0.01)  # noqa: ASYNC251
        dead = silent_seconds(flow_run)
    finally:
        process.kill()
        process.communicate()
    assert alive is not None
    assert alive < float("inf")
    assert dead == float("inf")
