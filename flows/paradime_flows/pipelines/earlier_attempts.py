"""Finds what a pipeline's earlier attempts left behind: outcomes to reuse, Bolt runs to resume, flow runs to end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.tasks import Task
from pydantic import ValidationError

from paradime_blocks import BoltRunState, ParadimeCredentials
from paradime_flows.ledger import (
    Record,
    Superseded,
    read_records,
    supersede,
)
from paradime_flows.pipelines.plan import StepOutcome, StepState, carried_over
from paradime_flows.prefect_api import (
    STEP_LABEL_PREFIX,
    has_its_own_process,
    lineage,
    prefect_client,
    run_logger,
    subflows_of,
)
from paradime_flows.runner import can_be_resumed, cancel_leftover, write_final_state

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.flows import Flow

    from paradime_flows.pipeline import Step

_AT_ONCE = 16
_PAGE = 200


class EarlierAttempts:
    """The outcomes, Bolt runs and flow runs that the earlier attempts of a pipeline left behind.

    Args:
        flow_run: The pipeline's flow run.
        credentials: The credentials of the workspace.
        earlier: The other flow runs in which earlier attempts of the pipeline ran, oldest first.
        attempt: The id of the current attempt.

    Attributes:
        outcomes: The newest outcome of each step. The key is the step's name.
        under_way: The start time of each step whose newest stored outcome is RUNNING. The key is the step's name.
        resumable: The newest subflow run with a Bolt run to resume, for each step that has one. The key is the step's
            name.
    """

    def __init__(
        self,
        flow_run: FlowRun,
        credentials: ParadimeCredentials,
        earlier: Sequence[FlowRun] = (),
        attempt: str = "",
    ) -> None:
        self.flow_run = flow_run
        self.credentials = credentials
        self.earlier = earlier
        self.attempt = attempt
        self.outcomes: dict[str, StepOutcome] = {}
        for one in [*earlier, flow_run]:
            self.outcomes.update(read_outcomes(one))
        self.resumable: dict[str, FlowRun] = {}
        self._resumed: set[str] = set()
        self.under_way = {
            name: outcome.started_at
            for name, outcome in self.outcomes.items()
            if outcome.state is StepState.RUNNING and outcome.started_at is not None
        }

    @classmethod
    async def of(
        cls,
        client: PrefectClient,
        flow_run: FlowRun,
        credentials: ParadimeCredentials,
        earlier: Sequence[FlowRun] = (),
    ) -> EarlierAttempts:
        """Read from Prefect what the earlier attempts of a pipeline left behind.

        Args:
            client: An open Prefect client.
            flow_run: The pipeline's flow run.
            credentials: The credentials of the workspace.
            earlier: The other flow runs in which earlier attempts of the pipeline ran, newest first.
        """
        return cls(flow_run, credentials, earlier[::-1], await _attempt_of(client, flow_run))

    def carried_over(self, steps: Sequence[Step]) -> dict[str, StepOutcome]:
        """Return the outcome of each step at the start of the current attempt. The key is the step's name."""
        return carried_over(steps, self.outcomes, attempt=self.attempt)

    async def prepare(
        self, steps: Mapping[str, Step], outcomes: Mapping[str, StepOutcome], flow: Flow[..., Any]
    ) -> None:
        """Find the Bolt runs that the steps can resume. End the earlier flow runs and Bolt runs that no step resumes.

        Args:
            steps: The steps. The key is the step's name.
            outcomes: The outcome of each step at the start of the current attempt. The key is the step's name.
            flow: The flow that runs each step.
        """
        async with prefect_client() as client:
            gone = [one for one in self.earlier if not _is_over(one)]
            for one in gone:
                # The process of the earlier flow run may still be alive. It would start more steps, and it would
                # cancel the running steps at its end. If the earlier flow run is just starting again, the earlier flow
                # run notices this flow run and stops.
                with suppress(Superseded):
                    await supersede(client, one.id, self.flow_run)
            children = await subflows_of(client, [one.id for one in [*self.earlier, self.flow_run]])
            if children:
                await _number_subflows(client, self.flow_run.id, flow)
        for one in gone:
            await write_final_state(one.id, self.flow_run)
        self.resumable = resumable_subflows(children, self.under_way)
        going = {previous.id for previous in self.resumable.values()}
        for child in children:
            # The subflow run was killed or suspended before it triggered a Bolt run.
            if child.id not in going and not _is_over(child) and not _is_open(child):
                await write_final_state(child.id, self.flow_run)
        changed = [name for name in self.resumable if not self._is_unchanged(steps.get(name), outcomes)]
        await self.cancel_leftover(
            changed, f"Flow run {self.flow_run.name!r} runs this step again from the beginning."
        )

    async def cancel_leftover(self, names: Iterable[str], reason: str) -> None:
        """Cancel the Bolt runs that earlier attempts of the given steps left behind. The cancels run in parallel.

        Args:
            names: The names of the steps.
            reason: Why the Bolt runs are cancelled, as a sentence.
        """
        limiter = anyio.CapacityLimiter(_AT_ONCE)

        async def one(client: PrefectClient, name: str) -> None:
            async with limiter:
                for record in await self._left_by(client, name):
                    await cancel_leftover(record, self.credentials, reason, self.flow_run)
            # The subflow run is removed only now. So if an interrupt comes before this line, the next call cancels the
            # Bolt run again.
            del self.resumable[name]

        async with prefect_client() as client, anyio.create_task_group() as group:
            for name in list(names):
                group.start_soon(one, client, name)

    async def _left_by(self, client: PrefectClient, name: str) -> list[Record]:
        """Return the Bolt run records of a step's previous subflow run.

        The records are read from Prefect again, because a new subflow run may have taken over some of the records.
        """
        previous = self.resumable[name]
        try:
            return read_records(await client.read_flow_run(previous.id))
        except ObjectNotFound:
            return []
        except Exception as error:  # noqa: BLE001 - the other runs must still be cancelled
            run_logger().warning("Could not read flow run %s: %s", previous.id, error)
            return [] if name in self._resumed else read_records(previous)

    def previous_of(self, name: str) -> UUID | None:
        """Return the id of a starting step's previous subflow run; None if there is no previous subflow run."""
        self._resumed.add(name)
        previous = self.resumable.get(name)
        return None if previous is None else previous.id

    def _is_unchanged(self, step: Step | None, outcomes: Mapping[str, StepOutcome]) -> bool:
        """Whether a step makes the same request as before, and all steps that the step comes after are skipped."""
        if step is None or not all(outcomes[name].reused for name in step.after):
            return False
        before = self.outcomes.get(step.key)
        return before is None or before.fingerprint == step.fingerprint


def read_outcomes(flow_run: FlowRun) -> dict[str, StepOutcome]:
    """Read the outcomes of steps from the labels of a flow run. The key is the step's name."""
    found = {}
    for label, value in (flow_run.labels or {}).items():
        if not label.startswith(STEP_LABEL_PREFIX):
            continue
        try:
            outcome = StepOutcome.model_validate_json(str(value))
        except ValidationError:
            continue
        found[outcome.name] = outcome
    return found


async def _attempt_of(client: PrefectClient, flow_run: FlowRun) -> str:
    """Return an id for the current attempt of a pipeline. A suspension of the flow run does not change the id.

    When a suspended flow run is resumed, Prefect does not increase the run count of this flow run, but increases the
    run counts of its subflow runs. So the retries of a subflow run are counted from the states of the subflow run.
    """
    outermost, retries = flow_run, 0
    async for one in lineage(client, flow_run):
        outermost = one
        retries += sum(state.name == "AwaitingRetry" for state in await client.read_flow_run_states(one.id))
        if has_its_own_process(one):
            break
    return f"{outermost.id}.{outermost.run_count}.{retries}"


def resumable_subflows(
    children: Iterable[FlowRun], under_way: Mapping[str, datetime] | None = None
) -> dict[str, FlowRun]:
    """Return, for each step, the newest subflow run that has a Bolt run to resume. The key is the step's name.

    Args:
        children: The subflow runs of the pipeline's flow run.
        under_way: The start time of each step whose newest stored outcome is RUNNING. If a subflow run of such a step
            has succeeded since the start time, the pipeline died before it could store the step's success.
    """
    found: dict[str, FlowRun] = {}
    now = datetime.now(timezone.utc)
    for child in sorted(children, key=lambda child: child.created or now):
        since = (under_way or {}).get(child.name)
        unnoticed = since is not None and child.state is not None and child.state.timestamp > since
        if any(
            can_be_resumed(record) or (unnoticed and record.state == BoltRunState.SUCCESS)
            for record in read_records(child)
        ):
            found[child.name] = child
    return found


def _is_over(flow_run: FlowRun) -> bool:
    return flow_run.state is not None and flow_run.state.is_final()


def _is_open(flow_run: FlowRun) -> bool:
    return any(record.is_open for record in read_records(flow_run))


async def _number_subflows(client: PrefectClient, flow_run_id: UUID, flow: Flow[..., Any]) -> None:
    """Make Prefect give the next subflow runs numbers that no earlier subflow run has.

    Prefect numbers the subflow runs of a flow run in the order of the calls. In the next attempt of the flow run,
    Prefect reuses the subflow run that has the same number. But the next attempt may run other steps, or may run the
    steps in another order.
    """
    context = FlowRunContext.get()
    if context is None:
        return
    numbers = [0]
    this = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    while True:
        page = await client.read_task_runs(flow_run_filter=this, limit=_PAGE, offset=len(numbers) - 1)
        numbers += [int(task_run.dynamic_key) if task_run.dynamic_key.isdigit() else 0 for task_run in page]
        if len(page) < _PAGE:
            break
    key = Task(name=flow.name, fn=flow.fn).task_key
    context.task_run_dynamic_keys[key] = max(numbers)
