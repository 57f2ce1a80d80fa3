"""Heartbeats of a flow run's process, so that the sweeper can distinguish a long wait from a lost machine.

A separate thread refreshes a label of the flow run, from the first record until the flow run is over. The thread does
not depend on the flow's own code. The label also names the process: a sweeper on the same machine can see at once that
the process is gone, and does not wait until the label is too old. Prefect's own heartbeats are events: they can be
switched off, and are not read together with the flow run.
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
    """Return a name for the space in which a process id is unique; empty if it is unknown."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
    boot = _read("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{boot}/{namespace}" if boot else ""


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; empty if the process is gone.

    The id of a process that has ended can be given to another process, so the id alone is not enough.
    """
    # The second field is the program's name in parentheses. The name may contain any character.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    # A zombie is a process that has ended, whose exit code its parent has not read yet.
    ended = not fields or fields[0] in {"Z", "X"}
    return fields[19] if not ended and len(fields) > 19 else ""  # noqa: PLR2004 - proc(5): field 22, the 20th behind the name


async def beat(client: PrefectClient, flow_run_id: UUID) -> None:
    """Write a heartbeat of this process to a flow run."""
    pid = os.getpid()
    value = f"{time.time():.0f} {pid} {_started(pid)} {_machine()}"
    await client.update_flow_run_labels(flow_run_id, {ALIVE_LABEL: value})


async def keep_alive(client: PrefectClient, flow_run: FlowRun, check: Check) -> None:
    """Write heartbeats of this process until a flow run is over or another process runs it; the first one at once.

    Args:
        client: An open client.
        flow_run: The flow run.
        check: Called with the flow run, in the heartbeat thread: at each heartbeat, and when the flow run is over. If
            `check` raises, it is called again. It returns whether it must be called every few seconds.
    """
    await beat(client, flow_run.id)
    if the_supervisor().of(flow_run.id).alive_for is not None:
        return
    outermost = [one.id async for one in lineage(client, flow_run)][-1]
    known = the_supervisor().of(flow_run.id)
    if known.alive_for is not None:
        return
    # From this line until the thread has started, no code may raise: `alive_for` says that the thread is running.
    known.alive_for = outermost
    # The thread needs this context, because it contains Prefect's settings.
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
                # One client is used for all heartbeats: a new client reads certificates, which is slow.
                async with get_client() as client:
                    while not _is_over(flow_run := await client.read_flow_run(flow_run_id)):
                        if time.monotonic() + times().beat_poll_seconds > next_beat:
                            await beat(client, flow_run_id)
                            next_beat = time.monotonic() + times().beat_seconds
                        is_awaited = await check(client, flow_run)
                        await asyncio.sleep(times().beat_poll_seconds if is_awaited else times().beat_seconds)
                    await check(client, flow_run)
            except ObjectNotFound:
                return
            except Exception:  # noqa: BLE001, S112 - Prefect may be unreachable for a while
                continue
            else:
                return
    finally:
        known.alive_for = None


def _is_over(flow_run: FlowRun) -> bool:
    return (flow_run.state is not None and flow_run.state.is_final()) or lost_lease(flow_run)


def ends_the_process(flow_run: FlowRun) -> bool:
    """Whether this process ends when a flow run ends.

    A runner starts one process for each flow run. A script can run several flows at once, or a flow as a subflow of
    another flow.
    """
    if os.environ.get("PREFECT__FLOW_RUN_ID") == str(flow_run.id):
        return True
    outermost = {known.alive_for for known in the_supervisor().all()}
    return flow_run.parent_task_run_id is None and outermost <= {None, flow_run.id}


@asynccontextmanager
async def alive_for_another(flow_run_id: UUID) -> AsyncIterator[None]:
    """Write heartbeats for a flow run whose process is gone, while this process tracks its Bolt run."""

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
    """A heartbeat, as it was read from the label of a flow run."""

    at: int
    pid: int
    started: str
    machine: str

    @property
    def from_here(self) -> bool:
        """Whether the heartbeat's process was on this machine, so that its process id can be checked."""
        return bool(self.machine) and self.machine == _machine()

    @property
    def is_there(self) -> bool:
        """Whether the heartbeat's process is still running on this machine."""
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
    """Return the age of the last heartbeat of a flow run's process, in seconds; None without a heartbeat.

    The age is infinite if the process is known to be dead: it was on this machine, and is gone.
    """
    sign = _sign(flow_run)
    if sign is None:
        return None
    if sign.from_here and not sign.is_there:
        return float("inf")
    return max(0.0, time.time() - sign.at)


def seconds_since_last_sign(flow_run: FlowRun) -> float | None:
    """Return the age of the last heartbeat in seconds, also if the process is dead; None without a heartbeat."""
    sign = _sign(flow_run)
    return None if sign is None else max(0.0, time.time() - sign.at)


def last_sign(flow_run: FlowRun) -> str:
    """Return the text of the last heartbeat. If the text changes, a process is alive."""
    return str((flow_run.labels or {}).get(ALIVE_LABEL, ""))


def lives_here(flow_run: FlowRun) -> bool:
    """Whether the process that runs a flow run is known to be alive, on this machine."""
    sign = _sign(flow_run)
    return sign is not None and sign.from_here and sign.is_there


def lives_in_other_process(flow_run: FlowRun) -> bool:
    """Whether another process on this machine runs a flow run and is known to be alive."""
    sign = _sign(flow_run)
    return lives_here(flow_run) and sign is not None and sign.pid != os.getpid()
