"""The lease on a flow run: which execution may act for it, the one that began last.

Prefect can run one flow run in two processes at once: a process that was declared crashed may still be running, or a
worker writes a crash a second time after somebody has retried the flow run. Each execution writes its token to a label
of the flow run when it begins. An execution that finds another token there stops: it starts nothing, cancels nothing,
and does not change the flow run's state.

An execution writes its token, and then reads the records to resume; a trigger writes its intent, and then reads the
token. So of two executions, at least one notices the other before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Abort

from paradime_flows.prefect_api import (
    EXECUTION_BEGAN_LABEL,
    EXECUTION_LABEL,
    current_execution,
    current_execution_began_at,
    the_supervisor,
)

_WRITES_AT_MOST = 5

_leases: ContextVar[Mapping[UUID, str]] = ContextVar("leases", default={})  # noqa: B039 - never changed in place


class Superseded(Abort):
    """Another process runs our flow run now. Prefect ends an execution that raises this without changing its state.

    Args:
        flow_run: The flow run.
    """

    def __init__(self, flow_run: FlowRun) -> None:
        super().__init__(
            f"Flow run {flow_run.name!r} is now run by another process; this one stops without changing anything."
        )


async def write_labels(
    client: PrefectClient,
    flow_run_id: UUID,
    labels: dict[str, Any],
    see: Callable[[FlowRun], None] | None = None,
) -> None:
    """Write labels to a flow run, and check that they are there.

    Prefect's server reads all labels of a flow run and writes them all back. If its database lets two requests do this
    at once, as Postgres does, another write can undo ours: a heartbeat, every few seconds.

    Args:
        client: An open client.
        flow_run_id: The flow run.
        labels: The labels.
        see: Raises an error, such as `Superseded`, if the labels must not be written once more.

    Raises:
        RuntimeError: The labels are not there after several writes.
    """
    for _ in range(_WRITES_AT_MOST):
        await client.update_flow_run_labels(flow_run_id, labels)
        flow_run = await client.read_flow_run(flow_run_id)
        if see is not None:
            see(flow_run)
        written = flow_run.labels or {}
        if all(written.get(name) == value for name, value in labels.items()):
            return
    msg = f"Prefect accepted the labels {', '.join(labels)} of flow run {flow_run_id} but did not store them."
    raise RuntimeError(msg)


async def take_lease(client: PrefectClient, flow_run_id: UUID) -> None:
    """Take the lease on a flow run for the current execution, and for its subflows and tasks in this process."""
    execution = current_execution()
    # An execution with many tasks writes its token once: it must not take back a lease that it has lost.
    tokens = the_supervisor().tokens.setdefault(flow_run_id, set())
    if execution not in tokens:
        began_at = current_execution_began_at().isoformat()
        await write_labels(client, flow_run_id, {EXECUTION_LABEL: execution, EXECUTION_BEGAN_LABEL: began_at})
        tokens.add(execution)
    _leases.set({**_leases.get(), flow_run_id: execution})


async def supersede(client: PrefectClient, flow_run_id: UUID, new: FlowRun) -> FlowRun:
    """Take the lease on an old flow run for a new one: the old execution, a hook or the sweeper stops acting for it.

    Args:
        client: An open client.
        flow_run_id: The old flow run.
        new: The new flow run, which is running.

    Returns:
        The old flow run after that.

    Raises:
        Superseded: A third flow run has taken the lease meanwhile.
    """
    execution = execution_of(new) or current_execution()
    await write_labels(client, flow_run_id, {EXECUTION_LABEL: execution})
    flow_run = await client.read_flow_run(flow_run_id)
    if execution_of(flow_run) != execution:
        raise Superseded(flow_run)
    return flow_run


def check_lease(flow_run: FlowRun) -> None:
    """Check that no other execution has taken the lease since the current one did.

    Raises:
        Superseded: Another execution has taken it.
    """
    execution = _leases.get().get(flow_run.id)
    if execution is not None and execution_of(flow_run) not in {None, execution}:
        raise Superseded(flow_run)


def execution_of(flow_run: FlowRun) -> str | None:
    """Return the execution that has the lease on a flow run, or had it last; None if no flow run of ours did."""
    execution = (flow_run.labels or {}).get(EXECUTION_LABEL)
    return None if execution is None else str(execution)


def execution_began_at(flow_run: FlowRun) -> datetime | None:
    """Return when the last execution of a flow run began, by the clock of its machine."""
    try:
        return datetime.fromisoformat(str((flow_run.labels or {}).get(EXECUTION_BEGAN_LABEL, "")))
    except ValueError:
        return None


def lost_lease(flow_run: FlowRun) -> bool:
    """Whether this process had the lease on a flow run and another has it now."""
    ours = the_supervisor().tokens.get(flow_run.id, set())
    return bool(ours) and execution_of(flow_run) not in {None, *ours}
