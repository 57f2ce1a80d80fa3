"""Attempts of flow runs, started by hand, and the records of their flow runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faults.bench import SCHEDULE, credentials_for
from prefect.client.schemas.objects import StateType

from paradime_blocks.schedule import BoltSchedule

if TYPE_CHECKING:
    from uuid import UUID

    from faults.prefect_in_memory import PrefectInMemory

    from paradime_blocks.testing import BoltSimulator
    from paradime_flows.ledger.record import Ownership
    from paradime_flows.runner.lifecycle import RunLifecycle


def block(simulator: BoltSimulator, **options: Any) -> BoltSchedule:
    return BoltSchedule(credentials=credentials_for(simulator), schedule_name=SCHEDULE, **options)


async def begun(
    simulator: BoltSimulator, flow_run_id: UUID, key: str = "run", **policies: Any
) -> RunLifecycle:
    """Begin an attempt; it resumes what the flow run's labels record."""
    from paradime_flows.runner.lifecycle import RunLifecycle
    from paradime_flows.runner.policies import RunPolicies

    return await RunLifecycle.begin(block(simulator), flow_run_id, RunPolicies(**policies), key=key)


def running(prefect: PrefectInMemory, *, parent: UUID | None = None) -> UUID:
    flow_run_id = prefect.new_flow_run(parent=parent)
    prefect.set_state(flow_run_id, StateType.RUNNING)
    return flow_run_id


def ownership_of(prefect: PrefectInMemory, flow_run_id: UUID) -> Ownership:
    from paradime_flows.ledger.record import read_ownerships

    (ownership,) = read_ownerships(prefect.flow_runs[flow_run_id])
    return ownership


def unanswered(prefect: PrefectInMemory, flow_run_id: UUID) -> None:
    """Leave the flow run as an attempt that was killed before the trigger's answer: an open intent without a run id."""
    ownership = ownership_of(prefect, flow_run_id)
    ownership.run_id, ownership.state, ownership.closed = None, None, False
    prefect.flow_runs[flow_run_id].labels.update(ownership.to_labels())
