"""Signs of life of a flow run's process, so that the sweeper can tell a long wait from a lost machine.

A label is refreshed while a Bolt run is waited for. It also names the process, so that a sweeper on the same machine
need not wait for the label to go stale. Prefect's own heartbeats are events: they can be switched off, and cannot be
read with the flow run.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

LABEL = "paradime.alive"
BEAT_SECONDS = 10.0
STALE_SECONDS = 3 * BEAT_SECONDS


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _machine() -> str:
    """Name the space in which a process id means something; empty where that cannot be told."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
    boot = _read("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{boot}/{namespace}" if boot else ""


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks: process ids are used again."""
    # The second field is the program's name in parentheses and may hold anything.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""  # noqa: PLR2004 - proc(5): field 22, the 20th behind the name


async def beat(client: PrefectClient, flow_run_id: UUID) -> None:
    """Write a sign of life of this process to a flow run."""
    pid = os.getpid()
    value = f"{time.time():.0f} {pid} {_started(pid)} {_machine()}"
    await client.update_flow_run_labels(flow_run_id, {LABEL: value})


class _Sign(NamedTuple):
    """A sign of life, as read."""

    at: int
    pid: int
    started: str
    machine: str

    @property
    def from_here(self) -> bool:
        """Whether the process was on this machine, so that it can be looked for."""
        return bool(self.machine) and self.machine == _machine()

    @property
    def is_there(self) -> bool:
        """Whether the process is on this machine still."""
        return _started(self.pid) == self.started


def _sign(flow_run: FlowRun) -> _Sign | None:
    at, pid, started, machine, *_ = [*str((flow_run.labels or {}).get(LABEL, "")).split(" ", 3), "", "", ""]
    return _Sign(int(at), int(pid), started, machine) if at.isdigit() and pid.isdigit() else None


def silent_seconds(flow_run: FlowRun) -> float | None:
    """Return how long nothing has been heard of a flow run's process, in seconds; None if it never was heard of.

    Infinite where it is known to be dead: it was on this machine and is no longer.
    """
    sign = _sign(flow_run)
    if sign is None:
        return None
    if sign.from_here and not sign.is_there:
        return float("inf")
    return max(0.0, time.time() - sign.at)


def lives_beside(flow_run: FlowRun) -> bool:
    """Whether the process that drives a flow run is known to be alive, on this machine, and is not this one."""
    sign = _sign(flow_run)
    return sign is not None and sign.from_here and sign.is_there and sign.pid != os.getpid()
