"""Attempts of flow runs, started by hand, and the records of their flow runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from faults.bench import SCHEDULE, credentials_for
from prefect.client.schemas.objects import StateType

from paradime_blocks.schedule import BoltSchedule
from paradime_flows.ledger.phase import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from faults.prefect_in_memory import PrefectInMemory

    from paradime_blocks.testing import BoltSimulator
    from paradime_flows.ledger.record import Record
    from paradime_flows.runner.lifecycle import RunLifecycle


def block(simulator: BoltSimulator, **options: Any) -> BoltSchedule:
    return BoltSchedule(credentials=credentials_for(simulator), schedule_name=SCHEDULE, **options)


async def begun(
    simulator: BoltSimulator, flow_run_id: UUID, key: str = "run", **policies: Any
) -> RunLifecycle:
    """Begin an attempt; it resumes what the flow run's labels record."""
    from paradime_flows.runner.lifecycle import RunLifecycle, RunPolicies

    schedule = block(simulator)
    chosen = RunPolicies(**policies)
    return await RunLifecycle.begin(schedule, flow_run_id, chosen, schedule.request(), key=key)


@contextmanager
def resuming(prefect: PrefectInMemory, earlier: UUID) -> Iterator[None]:
    """Let the attempts that begin meanwhile find an earlier flow run of the same call."""
    from paradime_flows.ledger.retried_parents import enter
    from paradime_flows.runner import begin

    async def found(*arguments: Any) -> tuple[list[Any], None]:
        await enter(*arguments)
        return [await prefect.read_flow_run(earlier)], None

    with mock.patch.object(begin, "enter", found):
        yield


def running(prefect: PrefectInMemory, *, parent: UUID | None = None) -> UUID:
    flow_run_id = prefect.new_flow_run(parent=parent)
    prefect.set_state(flow_run_id, StateType.RUNNING)
    return flow_run_id


def record_of(prefect: PrefectInMemory, flow_run_id: UUID) -> Record:
    from paradime_flows.ledger.record import read_records

    (record,) = read_records(prefect.flow_runs[flow_run_id])
    return record


def unanswered(prefect: PrefectInMemory, flow_run_id: UUID) -> None:
    """Leave the flow run as an attempt that was killed before the trigger's answer: an open intent without a run id."""
    record = record_of(prefect, flow_run_id)
    record.run_id, record.state, record.phase = None, None, Phase.SENDING
    prefect.flow_runs[flow_run_id].labels.update(record.to_labels())
