"""Which body of a flow run drives it: the one that began last.

Prefect can run one flow run in two processes at once: a process that was written off is still there, or a worker
writes a crash for the second time when somebody has retried the first. Whichever body begins writes its token to a
label of the flow run, and whoever finds another token there than its own lets go: it starts nothing, cancels
nothing, and leaves the flow run's state to the other.

A body writes its token, and then reads what there is to take up; a trigger writes its intent, and then reads the
token. So of two bodies at least one hears of the other before anything is sent.
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

_leases: ContextVar[Mapping[UUID, str]] = ContextVar("held", default={})  # noqa: B039 - never changed in place


class Superseded(Abort):
    """Another process has taken up our flow run. Prefect ends a body that raises this without a word.

    Args:
        flow_run: The flow run.
    """

    def __init__(self, flow_run: FlowRun) -> None:
        super().__init__(
            f"Flow run {flow_run.name!r} has been taken up by another process; this one lets go."
        )


async def write_labels(
    client: PrefectClient,
    flow_run_id: UUID,
    labels: dict[str, Any],
    see: Callable[[FlowRun], None] | None = None,
) -> None:
    """Write labels to a flow run, and see that they are there.

    Prefect's server reads all labels of a flow run and writes them all. Where its database lets two requests do so at
    once, as Postgres does, another label's writer can undo ours: a sign of life, every few seconds.

    Args:
        client: An open client.
        flow_run_id: The flow run.
        labels: The labels.
        see: Raises an error, such as `Superseded`, where they must not be written once more.

    Raises:
        RuntimeError: They are not there, however often they are written.
    """
    for _ in range(_WRITES_AT_MOST):
        await client.update_flow_run_labels(flow_run_id, labels)
        flow_run = await client.read_flow_run(flow_run_id)
        if see is not None:
            see(flow_run)
        written = flow_run.labels or {}
        if all(written.get(name) == value for name, value in labels.items()):
            return
    msg = (
        f"Prefect has taken the labels {', '.join(labels)} of flow run {flow_run_id}, and does not have them."
    )
    raise RuntimeError(msg)


async def take_lease(client: PrefectClient, flow_run_id: UUID) -> None:
    """Write down that the present body drives a flow run; for its subflows and tasks in this process, too."""
    execution = current_execution()
    # A body with many tasks writes its token once, lest it take back what it lost.
    tokens = the_supervisor().tokens.setdefault(flow_run_id, set())
    if execution not in tokens:
        began_at = current_execution_began_at().isoformat()
        await write_labels(client, flow_run_id, {EXECUTION_LABEL: execution, EXECUTION_BEGAN_LABEL: began_at})
        tokens.add(execution)
    _leases.set({**_leases.get(), flow_run_id: execution})


async def supersede(client: PrefectClient, flow_run_id: UUID, new: FlowRun) -> FlowRun:
    """Let another flow run take the place of one: whoever drives that, or settles what it answers for, lets go.

    Args:
        client: An open client.
        flow_run_id: The one that is succeeded.
        new: The other, which a body drives.

    Returns:
        The one that is succeeded, as it is then.

    Raises:
        Superseded: Yet another has taken its place by now.
    """
    execution = execution_of(new) or current_execution()
    await write_labels(client, flow_run_id, {EXECUTION_LABEL: execution})
    flow_run = await client.read_flow_run(flow_run_id)
    if execution_of(flow_run) != execution:
        raise Superseded(flow_run)
    return flow_run


def check_lease(flow_run: FlowRun) -> None:
    """See that nobody has taken up a flow run since the present body did.

    Raises:
        Superseded: Somebody has.
    """
    execution = _leases.get().get(flow_run.id)
    if execution is not None and execution_of(flow_run) not in {None, execution}:
        raise Superseded(flow_run)


def execution_of(flow_run: FlowRun) -> str | None:
    """Return which body drives a flow run, or drove it last; None if none of ours did."""
    execution = (flow_run.labels or {}).get(EXECUTION_LABEL)
    return None if execution is None else str(execution)


def execution_began_at(flow_run: FlowRun) -> datetime | None:
    """Return when the body began that drove a flow run last, by the clock of its own machine."""
    try:
        return datetime.fromisoformat(str((flow_run.labels or {}).get(EXECUTION_BEGAN_LABEL, "")))
    except ValueError:
        return None


def lost_lease(flow_run: FlowRun) -> bool:
    """Whether this process has driven a flow run, and another does now."""
    ours = the_supervisor().tokens.get(flow_run.id, set())
    return bool(ours) and execution_of(flow_run) not in {None, *ours}
