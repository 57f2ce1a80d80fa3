"""Finds what a pipeline's earlier attempts left behind: outcomes to reuse, and Bolt runs that no step resumes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
from prefect import Flow, Task
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from pydantic import ValidationError

from paradime_blocks import BoltError, ParadimeCredentials
from paradime_flows.ledger import Record, Superseded, read_records, supersede
from paradime_flows.pipelines.plan import StepOutcome
from paradime_flows.prefect_api import STEP_LABEL_PREFIX, is_over, prefect_client, run_logger, subflows_of
from paradime_flows.runner import write_final_state
from paradime_flows.supervision import Event, reconcile_run


@dataclass(eq=False)
class EarlierAttempts:
    """What the earlier attempts of a pipeline left behind."""

    flow_run: FlowRun
    credentials: ParadimeCredentials
    # The other flow runs in which earlier attempts ran, newest first.
    earlier: Sequence[FlowRun]
    # The names of the steps that can resume a Bolt run.
    resumable: set[str] = field(default_factory=set, init=False)
    _children: list[FlowRun] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        # The id of the current attempt. Prefect does not increase the count when the flow run is suspended and resumed.
        self.attempt = f"{self.flow_run.id}.{self.flow_run.run_count}"
        # The newest stored outcome of each step. The key is the step's name.
        self.outcomes: dict[str, StepOutcome] = {}
        for one in [*self.earlier[::-1], self.flow_run]:
            self.outcomes.update(read_outcomes(one))

    async def prepare(self, outcomes: Mapping[str, StepOutcome], flow: Flow[..., Any]) -> None:
        """End the earlier flow runs, find what the steps can resume, and cancel the Bolt runs that no step resumes."""
        async with prefect_client() as client:
            for one in self.earlier:
                if not is_over(one):
                    # Its process may still be alive: it would start more steps, and cancel the running ones at its end.
                    # If the earlier flow run is just starting again, it notices this flow run and stops.
                    with suppress(Superseded):
                        await supersede(client, await client.read_flow_run(one.id))
                        await write_final_state(one, self.flow_run)
            self._children = await subflows_of(client, [one.id for one in [*self.earlier, self.flow_run]])
        if self._children:
            # Prefect would reuse a subflow run of an earlier attempt for a call with the same number, although this
            # attempt may run other steps, or in another order. So the number of the next call is the present time.
            context = FlowRunContext.get()
            assert context is not None  # noqa: S101 - a pipeline runs in a flow run
            key = Task(name=flow.name, fn=flow.fn).task_key
            context.task_run_dynamic_keys[key] = time.time_ns() // 1_000_000
        async with anyio.create_task_group() as group:
            for child in self._children:
                before, now = self.outcomes.get(child.name), outcomes.get(child.name)
                is_unchanged = now is not None and (before is None or before.fingerprint == now.fingerprint)
                records = read_records(child)
                if is_unchanged and any(record.is_unreported for record in records):
                    self.resumable.add(child.name)
                elif not is_over(child) or any(record.is_open for record in records):
                    group.start_soon(self._end, child, records)

    async def _end(self, child: FlowRun, records: Sequence[Record]) -> None:
        """End a step's subflow run. Its Bolt run is cancelled: it could conflict with new runs of the schedules."""
        reason = f"Flow run {self.flow_run.name!r} runs this step again from the beginning."
        try:
            for record in records:
                if record.is_open:
                    await reconcile_run(record, self.credentials, Event.ORPHANED, reason)
            await write_final_state(child, self.flow_run)
        except BoltError as error:
            # The record stays open, so the sweeper cleans it up later.
            run_logger().error("%s", error)
        except Superseded as superseded:
            run_logger().info("%s", superseded)

    def newest_run_of(self, name: str) -> int:
        """Return the newest Bolt run that a step has had in earlier attempts; 0 if it has had none."""
        noted = self.outcomes.get(name)
        records = [each for child in self._children if child.name == name for each in read_records(child)]
        return max((each.run_id or 0 for each in (noted, *records) if each is not None), default=0)


def read_outcomes(flow_run: FlowRun) -> dict[str, StepOutcome]:
    """Read the outcomes of steps from the labels of a flow run."""
    found = {}
    for label, value in (flow_run.labels or {}).items():
        if label.startswith(STEP_LABEL_PREFIX):
            with suppress(ValidationError):
                outcome = StepOutcome.model_validate_json(str(value))
                found[outcome.name] = outcome
    return found
