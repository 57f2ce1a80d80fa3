"""Leases on a flow run, of which the greatest says who acts for the flow run (README.md), and writes of its labels."""

from __future__ import annotations

import time
from collections.abc import Mapping
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
    read_flow_run,
    the_supervisor,
    times,
)
from paradime_flows.prefect_api.labels import LEASE_LABEL_PREFIX

WRITES_AT_MOST = 5
# A settler's name begins with this. It sorts before every execution, so that the execution is above it (README.md).
SETTLER = "-"


class Lease(NamedTuple):
    """The right to act for a flow run. Of two leases, the greater one counts."""

    # How often the lease has been taken, including this time.
    epoch: int
    holder: str

    def is_lost(self, labels: Mapping[str, Any] | None) -> bool:
        top = top_lease(labels)
        return top > self and top.holder != self.holder

    @property
    def label(self) -> str:
        return f"{LEASE_LABEL_PREFIX}{self.epoch}.{self.holder}"


NO_LEASE = Lease(0, "")

# The leases that the executions around the current code have taken.
_leases: ContextVar[Mapping[UUID, Lease]] = ContextVar("leases", default={})  # noqa: B039 - never changed in place


class Superseded(Abort):
    """Another process runs the flow run now. Prefect ends an execution that raises this error, and writes no state."""

    def __init__(self, flow_run: FlowRun) -> None:
        super().__init__(
            f"Flow run {flow_run.name!r} is now run by another process. This process stops without changing anything."
        )


def _leases_in(labels: Mapping[str, Any] | None) -> list[Lease]:
    names = [name for name in labels or {} if name.startswith(LEASE_LABEL_PREFIX)]
    parts = [name.removeprefix(LEASE_LABEL_PREFIX).partition(".") for name in names]
    return [Lease(int(epoch), holder) for epoch, _, holder in parts]


def top_lease(labels: Mapping[str, Any] | None) -> Lease:
    """Return the lease that counts; `NO_LEASE` if there is none."""
    return max(_leases_in(labels), default=NO_LEASE)


def execution_of(flow_run: FlowRun) -> Lease:
    """Return the lease of the execution that began last, of the flow run or one that replaces it; or `NO_LEASE`."""
    executions = [lease for lease in _leases_in(flow_run.labels) if not lease.holder.startswith(SETTLER)]
    return max(executions, default=NO_LEASE)


def last_sign_of_life(labels: Mapping[str, Any] | None) -> float | None:
    """Return when a holder of a lease gave the last sign of life, in seconds since the epoch."""
    signs = [str((labels or {})[lease.label]) for lease in _leases_in(labels)]
    return max((float(sign) for sign in signs if sign.isdigit()), default=None)


async def put(
    client: PrefectClient, flow_run_id: UUID, labels: dict[str, Any], lease: Lease | None = None
) -> FlowRun:
    """Write labels to a flow run, and read them back after a pause until Prefect has stored them (README.md).

    Raise `Superseded` if the `lease` of the writer is lost.
    """
    for _ in range(WRITES_AT_MOST):
        await client.update_flow_run_labels(flow_run_id, labels)
        await anyio.sleep(times().other_writes_seconds)
        flow_run = await read_flow_run(client, flow_run_id)
        if lease is not None and lease.is_lost(flow_run.labels):
            raise Superseded(flow_run)
        stored = flow_run.labels or {}
        # A lease may have a later sign of life, from another task of the same execution.
        differing = [name for name, value in labels.items() if stored.get(name) != value]
        if all(name in stored and name.startswith(LEASE_LABEL_PREFIX) for name in differing):
            return flow_run
    msg = f"Prefect accepted the labels {', '.join(labels)} of flow run {flow_run_id} but did not store them."
    raise RuntimeError(msg)


async def take_lease(client: PrefectClient, flow_run_id: UUID) -> FlowRun:
    """Take the lease for the current execution, once. Raise `Superseded` if another execution has taken it since."""
    # Prefect read the flow run when the flow began, so this copy may be out of date. That does no harm to the flow's
    # own code, which takes the lease only once, and before its tasks do.
    is_taken = flow_run_id in _leases.get() or current_task_run_id() is not None
    flow_run = None if is_taken else flow_run_at_begin(flow_run_id)
    flow_run = flow_run or await client.read_flow_run(flow_run_id)
    holder = current_execution()
    if all(each.holder != holder for each in _leases_in(flow_run.labels)):
        flow_run = await supersede(client, flow_run)
    lease = max(each for each in _leases_in(flow_run.labels) if each.holder == holder)
    _leases.set({**_leases.get(), flow_run_id: lease})
    check_lease(flow_run)
    leases = the_supervisor().leases
    # A task of an earlier execution may read late.
    leases[flow_run_id] = max(lease, leases.get(flow_run_id, lease))
    return flow_run


async def supersede(client: PrefectClient, flow_run: FlowRun) -> FlowRun:
    """Take the lease for the current execution, which is of this flow run, or of one that replaces it."""
    holder = current_execution()
    # Another holder may have taken the same epoch, or a later one, since the flow run was read.
    for _ in range(WRITES_AT_MOST):
        top = top_lease(flow_run.labels)
        if top.holder == holder:
            return flow_run
        flow_run = await put(client, flow_run.id, {Lease(top.epoch + 1, holder).label: f"{time.time():.0f}"})
    raise Superseded(flow_run)


def lease_to_settle(flow_run_id: UUID, seen: Lease) -> Lease:
    """Return the lease with which this process cleans up a flow run whose lease is `seen`."""
    settler = f"{SETTLER}{the_supervisor().settler}"
    # If an execution in this process has the lease, the hook of the execution acts with the same lease.
    if seen.holder in {current_execution(), settler} or seen == the_supervisor().leases.get(flow_run_id):
        return seen
    return Lease(seen.epoch + 1, settler)


async def give_sign_of_life(client: PrefectClient, flow_run_id: UUID, lease: Lease | None = None) -> None:
    """Write a sign of life to a lease of this process; by default, to the lease of the newest execution."""
    lease = lease or the_supervisor().leases[flow_run_id]
    await client.update_flow_run_labels(flow_run_id, {lease.label: f"{time.time():.0f}"})


def check_lease(flow_run: FlowRun) -> None:
    """Raise `Superseded` if the current execution has taken the lease on a flow run and has lost it."""
    lease = _leases.get().get(flow_run.id)
    if lease is not None and lease.is_lost(flow_run.labels):
        raise Superseded(flow_run)


def lost_lease(flow_run: FlowRun) -> bool:
    """Whether this process had the lease on a flow run, and another execution has taken it since."""
    ours = the_supervisor().leases.get(flow_run.id)
    return ours is not None and execution_of(flow_run) > ours
