"""Finds what a pipeline's earlier attempts left behind: outcomes to reuse, and Bolt runs that no step resumes.

A step resumes its Bolt run by itself: its subflow run finds the subflow runs of the same step in earlier attempts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
from prefect import Flow, Task
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from pydantic import ValidationError

from paradime_blocks import BoltError, ParadimeCredentials
from paradime_flows.ledger import Record, Superseded, read_records, supersede
from paradime_flows.pipelines.plan import StepOutcome
from paradime_flows.prefect_api import (
    STEP_LABEL_PREFIX,
    has_its_own_process,
    is_over,
    lineage,
    prefect_client,
    run_logger,
    subflows_of,
)
from paradime_flows.runner import write_final_state
from paradime_flows.supervision import Event, reconcile_run


@dataclass(eq=False)
class EarlierAttempts:
    """What the earlier attempts of a pipeline left behind."""

    flow_run: FlowRun
    credentials: ParadimeCredentials
    # The other flow runs in which earlier attempts ran, newest first.
    earlier: Sequence[FlowRun] = ()
    # The id of the current attempt.
    attempt: str = ""
    # The names of the steps that can resume a Bolt run.
    resumable: set[str] = field(default_factory=set, init=False)
    _children: list[FlowRun] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        # The newest stored outcome of each step. The key is the step's name.
        self.outcomes: dict[str, StepOutcome] = {}
        for one in [*self.earlier[::-1], self.flow_run]:
            self.outcomes.update(read_outcomes(one))

    async def prepare(self, outcomes: Mapping[str, StepOutcome], flow: Flow[..., Any]) -> None:
        """End the earlier flow runs, find what the steps can resume, and cancel the Bolt runs that no step can resume.

        `outcomes` has the outcome of each step at the start of the current attempt. `flow` runs each step.
        """
        for one in self.earlier:
            if not is_over(one):
                # Its process may still be alive. It would start more steps, and cancel the running steps at its end.
                # If the earlier flow run is just starting again, it notices this flow run and stops.
                with suppress(Superseded):
                    async with prefect_client() as client:
                        _, left = await supersede(client, await client.read_flow_run(one.id))
                    await write_final_state(left, self.flow_run)
        async with prefect_client() as client:
            self._children = await subflows_of(client, [one.id for one in [*self.earlier, self.flow_run]])
        if self._children:
            _number_calls_anew(flow)
        async with anyio.create_task_group() as group:
            for child in self._children:
                records = [each for each in read_records(child) if each.is_unreported and not each.is_of_task]
                if records and self._is_unchanged(child.name, outcomes):
                    self.resumable.add(child.name)
                    continue
                # These Bolt runs could conflict with new runs of the schedules.
                for record in records:
                    if record.is_open:
                        group.start_soon(self._cancel, child, record)
                if not records and not is_over(child):
                    # The subflow run was killed or suspended before it triggered a Bolt run.
                    await write_final_state(child, self.flow_run)

    async def _cancel(self, child: FlowRun, record: Record) -> None:
        reason = f"Flow run {self.flow_run.name!r} runs this step again from the beginning."
        try:
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

    def _is_unchanged(self, name: str, outcomes: Mapping[str, StepOutcome]) -> bool:
        before = self.outcomes.get(name)
        return name in outcomes and (before is None or before.fingerprint == outcomes[name].fingerprint)


def read_outcomes(flow_run: FlowRun) -> dict[str, StepOutcome]:
    """Read the outcomes of steps from the labels of a flow run."""
    found = {}
    for label, value in (flow_run.labels or {}).items():
        if label.startswith(STEP_LABEL_PREFIX):
            with suppress(ValidationError):
                outcome = StepOutcome.model_validate_json(str(value))
                found[outcome.name] = outcome
    return found


async def attempt_of(client: PrefectClient, flow_run: FlowRun) -> str:
    """Return an id for the current attempt of a pipeline. A suspension of the flow run does not change the id.

    When a suspended flow run is resumed, Prefect increases the run counts of its subflow runs. So the retries of a
    subflow run are counted from its states.
    """
    outermost, retries = flow_run, 0
    async for one in lineage(client, flow_run):
        outermost = one
        retries += sum(state.name == "AwaitingRetry" for state in await client.read_flow_run_states(one.id))
        if has_its_own_process(one):
            break
    return f"{outermost.id}.{outermost.run_count}.{retries}"


def _number_calls_anew(flow: Flow[..., Any]) -> None:
    """Make Prefect give the next subflow runs numbers that no earlier subflow run has: it would reuse that one.

    The next attempt may run other steps, or in another order. So the next number is the present time.
    """
    context = FlowRunContext.get()
    assert context is not None  # noqa: S101 - a pipeline runs in a flow run
    key = Task(name=flow.name, fn=flow.fn).task_key
    context.task_run_dynamic_keys[key] = time.time_ns() // 1_000_000
