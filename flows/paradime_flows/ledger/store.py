"""Leases on a flow run, and writes of labels. Only the holder of the greatest lease may act for the flow run.

Prefect can run one flow run in two processes at once: a process may still be running although Prefect has marked it as
crashed. A holder writes its lease first, and then reads the records. Before a trigger is sent, the intent is written
first, and then the leases are read. So at least one of two holders notices the other one before anything is sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Abort

from paradime_flows.prefect_api import (
    current_execution,
    current_task_run_id,
    flow_run_at_begin,
    prefect_client,
    read_flow_run,
    the_supervisor,
    times,
)
from paradime_flows.prefect_api.labels import LEASE_LABEL_PREFIX

_WRITES_AT_MOST = 5
# The first character of a settler's name. It sorts before the first character of every execution. So at the same epoch,
# the lease of an execution is greater than the lease of a settler.
_SETTLER = "-"


class Lease(NamedTuple):
    """The right to act for a flow run. Of two leases, the greater one counts."""

    # How often the lease has been taken, including this time.
    epoch: int
    # Who has taken it: an execution of a flow run, or a settler, which is a hook or the sweeper.
    holder: str

    def is_lost(self, labels: Mapping[str, Any] | None) -> bool:
        """Whether another holder has taken a greater lease on a flow run."""
        top = top_lease(labels)
        return top > self and top.holder != self.holder

    @property
    def label(self) -> str:
        """The name of the label that only the holder writes."""
        return f"{LEASE_LABEL_PREFIX}{self.epoch}.{self.holder}"


NO_LEASE = Lease(0, "")

# The leases of the flow runs around the current code.
_leases: ContextVar[Mapping[UUID, Lease]] = ContextVar("leases", default={})  # noqa: B039 - never changed in place


class Superseded(Abort):
    """Another process runs the flow run now. Prefect ends an execution that raises this error, and writes no state."""

    def __init__(self, flow_run: FlowRun) -> None:
        super().__init__(
            f"Flow run {flow_run.name!r} is now run by another process. This process stops without changing anything."
        )


def _leases_in(labels: Mapping[str, Any] | None) -> list[Lease]:
    found = []
    for name in labels or {}:
        epoch, _, holder = name.removeprefix(LEASE_LABEL_PREFIX).partition(".")
        if name.startswith(LEASE_LABEL_PREFIX) and epoch.isdigit():
            found.append(Lease(int(epoch), holder))
    return found


def top_lease(labels: Mapping[str, Any] | None) -> Lease:
    """Return the greatest lease, which is the lease that counts; `NO_LEASE` if there is none."""
    return max(_leases_in(labels), default=NO_LEASE)


def top_execution(labels: Mapping[str, Any] | None) -> Lease:
    """Return the lease of the execution that began last, of the flow run or one that replaces it; or `NO_LEASE`."""
    executions = [lease for lease in _leases_in(labels) if not lease.holder.startswith(_SETTLER)]
    return max(executions, default=NO_LEASE)


def next_lease(labels: Mapping[str, Any] | None, holder: str) -> Lease:
    """Return a lease that is greater than all leases on a flow run."""
    return Lease(top_lease(labels).epoch + 1, holder)


def settlers_lease(seen: Lease, settler: str) -> Lease:
    """Return a settler's lease: greater than the lease that it has seen, smaller than an execution's next lease."""
    holder = f"{_SETTLER}{settler}"
    return seen if seen.holder == holder else Lease(seen.epoch + 1, holder)


def sign_of_life(at: float) -> str:
    """Return the value of a lease's label: when its holder gave a sign of life, in seconds since the epoch."""
    return f"{at:.0f}"


def last_sign_of_life(labels: Mapping[str, Any] | None) -> float | None:
    """Return when a holder of a lease gave the last sign of life; None if no holder has given a sign."""
    signs = [str((labels or {})[lease.label]) for lease in _leases_in(labels)]
    return max((float(sign) for sign in signs if sign.isdigit()), default=None)


async def put(
    client: PrefectClient,
    flow_run_id: UUID,
    labels: dict[str, Any],
    see: Callable[[FlowRun], None] | None = None,
) -> FlowRun:
    """Write labels to a flow run, and read them back until Prefect has stored them.

    On Postgres, one of two writes at the same time undoes the other (README.md). The other write may be stored some
    time after ours, so the labels are read back only after a pause.

    The function `see` is called with the flow run after each write. To stop the writes, it raises an error.

    Raises:
        RuntimeError: Prefect has not stored the labels after several writes.
    """
    for _ in range(_WRITES_AT_MOST):
        await client.update_flow_run_labels(flow_run_id, labels)
        await anyio.sleep(times().other_writes_seconds)
        flow_run = await read_flow_run(client, flow_run_id)
        if see is not None:
            see(flow_run)
        if _are_stored(labels, flow_run.labels or {}):
            return flow_run
    msg = f"Prefect accepted the labels {', '.join(labels)} of flow run {flow_run_id} but did not store them."
    raise RuntimeError(msg)


def _are_stored(labels: Mapping[str, Any], written: Mapping[str, Any]) -> bool:
    """Whether the labels are there. A lease may have a later sign of life, from another task of the same execution."""
    return all(
        name in written if name.startswith(LEASE_LABEL_PREFIX) else written.get(name) == value
        for name, value in labels.items()
    )


async def take_lease(client: PrefectClient, flow_run_id: UUID) -> FlowRun:
    """Take the lease on a flow run for the current execution, and for its subflows and tasks in this process.

    Raises:
        Superseded: Another execution has taken the lease since this execution took it. An execution takes the lease
            only once.
    """
    # Prefect read the flow run when the flow began, so this copy may be out of date. That does no harm to the flow's
    # own code, which takes the lease only once, and before its tasks do.
    is_taken = flow_run_id in _leases.get() or current_task_run_id() is not None
    flow_run = None if is_taken else flow_run_at_begin(flow_run_id)
    flow_run = flow_run or await client.read_flow_run(flow_run_id)
    holder = current_execution()
    lease = max((each for each in _leases_in(flow_run.labels) if each.holder == holder), default=None)
    if lease is None:
        lease, flow_run = await _take(client, flow_run, holder, sign_of_life(time.time()))
    _leases.set({**_leases.get(), flow_run_id: lease})
    the_supervisor().leases.setdefault(flow_run_id, set()).add(lease)
    check_lease(flow_run)
    return flow_run


async def supersede(flow_run_id: UUID, new: FlowRun) -> tuple[Lease, FlowRun]:
    """Take the lease on an old flow run for a new flow run, which is running.

    Return the lease, and the old flow run, as read after the lease was taken. The old execution, the hooks and the
    sweeper no longer act for the old flow run.

    Raises:
        Superseded: Other flow runs take the lease again and again.
    """
    async with prefect_client() as client:
        flow_run = await client.read_flow_run(flow_run_id)
        return await _take(client, flow_run, execution_of(new) or current_execution())


async def _take(
    client: PrefectClient, flow_run: FlowRun, holder: str, sign: str = ""
) -> tuple[Lease, FlowRun]:
    writes = 0
    # Another holder may have taken the same epoch, or a later one, since the flow run was read.
    while (top := top_lease(flow_run.labels)).holder != holder:
        if writes == _WRITES_AT_MOST:
            raise Superseded(flow_run)
        flow_run = await put(client, flow_run.id, {next_lease(flow_run.labels, holder).label: sign})
        writes += 1
    return top, flow_run


def lease_to_settle(flow_run_id: UUID, seen: Lease) -> Lease:
    """Return the lease with which this process cleans up a flow run whose lease is `seen`."""
    # If an execution in this process has the lease, the hook of the execution acts with the same lease.
    if seen in the_supervisor().leases.get(flow_run_id, set()):
        return seen
    return settlers_lease(seen, the_supervisor().settler)


async def give_sign_of_life(client: PrefectClient, flow_run_id: UUID, lease: Lease | None = None) -> None:
    """Write a sign of life to a lease of this process; by default, to the lease of the current execution."""
    lease = lease or max(the_supervisor().leases.get(flow_run_id, set()), default=None)
    if lease is not None:
        await client.update_flow_run_labels(flow_run_id, {lease.label: sign_of_life(time.time())})


def held_lease(flow_run_id: UUID) -> Lease:
    """Return the lease that the current execution has taken on a flow run."""
    return _leases.get().get(flow_run_id, NO_LEASE)


def check_lease(flow_run: FlowRun, lease: Lease | None = None) -> None:
    """Raise `Superseded` if `lease` is lost; by default, the lease of the current execution, if it has taken one."""
    lease = lease or _leases.get().get(flow_run.id)
    if lease is not None and lease.is_lost(flow_run.labels):
        raise Superseded(flow_run)


def execution_of(flow_run: FlowRun) -> str | None:
    """Return the execution that took the lease on a flow run last; None if no execution has taken it."""
    return top_execution(flow_run.labels).holder or None


def lost_lease(flow_run: FlowRun) -> bool:
    """Whether this process had the lease on a flow run, and another execution has taken it since."""
    ours = the_supervisor().leases.get(flow_run.id, set())
    return bool(ours) and top_execution(flow_run.labels) > max(ours)
