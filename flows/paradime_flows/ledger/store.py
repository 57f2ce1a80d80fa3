"""The lease on a flow run: only the execution that has the lease may act for the flow run.

The execution that began last has the lease. Prefect can run one flow run in two processes at once: a process may still
be running although Prefect has marked it as crashed, or a worker may write `Crashed` a second time after somebody has
retried the flow run. Each execution writes its token to a label of the flow run when it begins. If an execution finds
another token in the label, it stops: it starts nothing, cancels nothing, and does not change the flow run's state.

An execution writes its token first, and then reads the records to resume. Before a trigger is sent, the intent is
written first, and then the token is read. So at least one of two executions notices the other one before anything is
sent.
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
    """Another process runs our flow run now. If an execution raises this, Prefect ends it and writes no state.

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
    """Write labels to a flow run, and check that Prefect has stored them.

    For each write, Prefect's server reads all labels of the flow run and writes all of them back. Some databases, such
    as Postgres, let two requests do this at once. Then another write can undo our write: for example a heartbeat, which
    is written every few seconds.

    Args:
        client: An open client.
        flow_run_id: The flow run.
        labels: The labels.
        see: Called with the flow run after each write. It raises an error, such as `Superseded`, to stop the writes.

    Raises:
        RuntimeError: Prefect has not stored the labels after several writes.
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
    # An execution with many tasks writes its token only once. If it has lost the lease, it cannot take the lease again.
    tokens = the_supervisor().tokens.setdefault(flow_run_id, set())
    if execution not in tokens:
        began_at = current_execution_began_at().isoformat()
        await write_labels(client, flow_run_id, {EXECUTION_LABEL: execution, EXECUTION_BEGAN_LABEL: began_at})
        tokens.add(execution)
    _leases.set({**_leases.get(), flow_run_id: execution})


async def supersede(client: PrefectClient, flow_run_id: UUID, new: FlowRun) -> FlowRun:
    """Take the lease on an old flow run for a new flow run.

    The old execution, a hook or the sweeper then stops acting for the old flow run.

    Args:
        client: An open client.
        flow_run_id: The old flow run.
        new: The new flow run, which is running.

    Returns:
        The old flow run, with the new lease.

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
    """Check that no other execution has taken the lease since the current execution took it.

    Raises:
        Superseded: Another execution has taken the lease.
    """
    execution = _leases.get().get(flow_run.id)
    if execution is not None and execution_of(flow_run) not in {None, execution}:
        raise Superseded(flow_run)


def execution_of(flow_run: FlowRun) -> str | None:
    """Return the execution that holds the lease on a flow run, or held it last.

    None if the flow run has never had a lease.
    """
    execution = (flow_run.labels or {}).get(EXECUTION_LABEL)
    return None if execution is None else str(execution)


def execution_began_at(flow_run: FlowRun) -> datetime | None:
    """Return when the last execution of a flow run began, by the clock of its machine."""
    try:
        return datetime.fromisoformat(str((flow_run.labels or {}).get(EXECUTION_BEGAN_LABEL, "")))
    except ValueError:
        return None


def lost_lease(flow_run: FlowRun) -> bool:
    """Whether this process had the lease on a flow run, and another process has the lease now."""
    ours = the_supervisor().tokens.get(flow_run.id, set())
    return bool(ours) and execution_of(flow_run) not in {None, *ours}
