"""Signs of life of a flow run's process, so that the sweeper can tell a long wait from a lost machine.

From the first thing that a flow run answers for until it is over, a thread of its own refreshes a label, whatever
the flow's own code does meanwhile. The label also names the process, so that a sweeper on the same machine need not
wait for it to go stale. Prefect's own heartbeats are events: they can be switched off, and cannot be read with the
flow run.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from paradime_flows.ledger import lost_lease
from paradime_flows.prefect_api import ALIVE_LABEL, Supervised, lineage, the_supervisor, times

Check = Callable[[PrefectClient, FlowRun], Awaitable[bool]]


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
    # A zombie has ended, and waits for nothing but a parent that asks how.
    ended = not fields or fields[0] in {"Z", "X"}
    return fields[19] if not ended and len(fields) > 19 else ""  # noqa: PLR2004 - proc(5): field 22, the 20th behind the name


async def beat(client: PrefectClient, flow_run_id: UUID) -> None:
    """Write a sign of life of this process to a flow run."""
    pid = os.getpid()
    value = f"{time.time():.0f} {pid} {_started(pid)} {_machine()}"
    await client.update_flow_run_labels(flow_run_id, {ALIVE_LABEL: value})


async def keep_alive(client: PrefectClient, flow_run: FlowRun, check: Check) -> None:
    """Give signs of life of this process, the first at once, until a flow run is over or another process's.

    Args:
        client: An open client.
        flow_run: The flow run.
        check: Is handed the flow run with each sign, and when it is over, in the thread that gives the signs; if it
            fails, again. It returns whether it is to be handed it every few seconds.
    """
    await beat(client, flow_run.id)
    if the_supervisor().of(flow_run.id).alive_for is not None:
        return
    outermost = [one.id async for one in lineage(client, flow_run)][-1]
    known = the_supervisor().of(flow_run.id)
    if known.alive_for is not None:
        return
    # From here to the thread's start nothing may fail.
    known.alive_for = outermost
    # Prefect's settings are in the context.
    context = contextvars.copy_context()
    threading.Thread(
        target=lambda: context.run(asyncio.run, _beat_until_over(flow_run.id, check, known)),
        name="paradime-alive",
        daemon=True,
    ).start()


async def _beat_until_over(flow_run_id: UUID, check: Check, known: Supervised) -> None:
    try:
        while True:
            await asyncio.sleep(times().beat_seconds)
            next_beat = 0.0
            try:
                # One client for them all: each reads its certificates anew, which takes longer than a request.
                async with get_client() as client:
                    while not _is_over(flow_run := await client.read_flow_run(flow_run_id)):
                        if time.monotonic() + times().beat_look_seconds > next_beat:
                            await beat(client, flow_run_id)
                            next_beat = time.monotonic() + times().beat_seconds
                        is_awaited = await check(client, flow_run)
                        await asyncio.sleep(times().beat_look_seconds if is_awaited else times().beat_seconds)
                    await check(client, flow_run)
            except ObjectNotFound:
                return
            except Exception:  # noqa: BLE001, S112 - a Prefect out of reach is no end
                continue
            else:
                return
    finally:
        known.alive_for = None


def _is_over(flow_run: FlowRun) -> bool:
    return (flow_run.state is not None and flow_run.state.is_final()) or lost_lease(flow_run)


def ends_the_process(flow_run: FlowRun) -> bool:
    """Whether all that runs in this process ends with a flow run.

    A runner begins a process for each flow run. In a script several can be under way at once; or one is no more than
    a subflow of another.
    """
    if os.environ.get("PREFECT__FLOW_RUN_ID") == str(flow_run.id):
        return True
    outermost = {known.alive_for for known in the_supervisor().all()}
    return flow_run.parent_task_run_id is None and outermost <= {None, flow_run.id}


@asynccontextmanager
async def alive_for_another(flow_run_id: UUID) -> AsyncIterator[None]:
    """Give signs of life for a flow run whose process is gone, while somebody else looks after its Bolt run."""

    async def beat_on() -> None:
        while True:
            try:
                async with get_client() as client:
                    await beat(client, flow_run_id)
            except Exception:  # noqa: BLE001, S110
                pass
            await asyncio.sleep(times().beat_seconds)

    beats = asyncio.create_task(beat_on())
    try:
        yield
    finally:
        beats.cancel()


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
        return bool(self.started) and _started(self.pid) == self.started


def _sign(flow_run: FlowRun) -> _Sign | None:
    at, pid, started, machine, *_ = [
        *str((flow_run.labels or {}).get(ALIVE_LABEL, "")).split(" ", 3),
        "",
        "",
        "",
    ]
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


def seconds_since_last_sign(flow_run: FlowRun) -> float | None:
    """Return how long ago a flow run's process gave its last sign of life, be it dead or not; None if it never did."""
    sign = _sign(flow_run)
    return None if sign is None else max(0.0, time.time() - sign.at)


def last_sign(flow_run: FlowRun) -> str:
    """Return the last sign of life as it was written: another one means that somebody lives."""
    return str((flow_run.labels or {}).get(ALIVE_LABEL, ""))


def lives_here(flow_run: FlowRun) -> bool:
    """Whether the process that drives a flow run is known to be alive, on this machine."""
    sign = _sign(flow_run)
    return sign is not None and sign.from_here and sign.is_there


def lives_in_other_process(flow_run: FlowRun) -> bool:
    """Whether the process that drives a flow run is known to be alive, on this machine, and is not this one."""
    sign = _sign(flow_run)
    return lives_here(flow_run) and sign is not None and sign.pid != os.getpid()
