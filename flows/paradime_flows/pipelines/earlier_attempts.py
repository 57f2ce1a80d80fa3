"""Finds what earlier attempts of a pipeline have left: outcomes to reuse, Bolt runs to resume, flow runs to end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.tasks import Task
from pydantic import ValidationError

from paradime_blocks import BoltRunState, ParadimeCredentials
from paradime_flows.ledger import (
    Ownership,
    Superseded,
    earlier_calls,
    execution_began_at,
    read_ownerships,
    supersede,
)
from paradime_flows.pipelines.plan import StepOutcome, StepState, carried_over
from paradime_flows.prefect_api import (
    STEP_LABEL_PREFIX,
    has_its_own_process,
    lineage,
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
    """What the earlier attempts of a pipeline have left.

    Args:
        flow_run: The pipeline's flow run.
        credentials: The credentials of the workspace.
        earlier: The other flow runs in which earlier attempts of the pipeline ran, oldest first.
        attempt: The id of the current attempt.

    Attributes:
        outcomes: The newest outcome of each step. The key is the step's name.
        under_way: The start time of each step whose newest stored outcome is RUNNING. The key is the step's name.
        resumable: The subflow of each step that has left a Bolt run to resume. The key is the step's name.
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
        cls, client: PrefectClient, flow_run: FlowRun, credentials: ParadimeCredentials
    ) -> EarlierAttempts:
        """Read what the earlier attempts have left.

        Args:
            client: An open client.
            flow_run: The pipeline's flow run.
            credentials: The credentials of the workspace.
        """
        return cls(
            flow_run,
            credentials,
            await earlier_calls(client, flow_run),
            await _attempt_of(client, flow_run),
        )

    def carried_over(self, steps: Sequence[Step]) -> dict[str, StepOutcome]:
        """Return the outcomes to begin with."""
        return carried_over(steps, self.outcomes, attempt=self.attempt)

    async def prepare(
        self, steps: Mapping[str, Step], outcomes: Mapping[str, StepOutcome], flow: Flow[..., Any]
    ) -> None:
        """Find what the steps can resume, and end what they do not resume.

        Args:
            steps: The steps, by name.
            outcomes: The outcomes to begin with.
            flow: The flow that runs each step.
        """
        async with get_client() as client:
            gone = [one for one in self.earlier if not _is_over(one)]
            for one in gone:
                # The process of the earlier flow run may live. It would start more steps, and cancel the running steps
                # at its end. If the earlier flow run is just starting again, it notices this flow run and stops.
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
            # The subflow was killed or suspended before it had a Bolt run.
            if child.id not in going and not _is_over(child) and not _is_open(child):
                await write_final_state(child.id, self.flow_run)
        changed = [name for name in self.resumable if not self._is_unchanged(steps.get(name), outcomes)]
        await self.cancel_leftover(
            changed, f"Flow run {self.flow_run.name!r} asks for something else in this step."
        )

    async def cancel_leftover(self, names: Iterable[str], reason: str) -> None:
        """Cancel the Bolt runs that earlier attempts of the given steps have left, in parallel.

        Args:
            names: The names of the steps.
            reason: Why the Bolt runs are cancelled, as a sentence.
        """
        limiter = anyio.CapacityLimiter(_AT_ONCE)

        async def one(client: PrefectClient, name: str) -> None:
            async with limiter:
                for ownership in await self._left_by(client, name):
                    await cancel_leftover(ownership, self.credentials, reason, self.flow_run)
            # The subflow is removed only now: if an interrupt comes before this line, the Bolt run is cancelled again.
            del self.resumable[name]

        async with get_client() as client, anyio.create_task_group() as group:
            for name in list(names):
                group.start_soon(one, client, name)

    async def _left_by(self, client: PrefectClient, name: str) -> list[Ownership]:
        """Return the records of a step's previous subflow. A new subflow may have taken over these records by now."""
        previous = self.resumable[name]
        try:
            return read_ownerships(await client.read_flow_run(previous.id))
        except ObjectNotFound:
            return []
        except Exception as error:  # noqa: BLE001 - the other runs must still be cancelled
            run_logger().warning("Could not read flow run %s: %s", previous.id, error)
            return [] if name in self._resumed else read_ownerships(previous)

    def previous_of(self, name: str) -> UUID | None:
        """Return the previous subflow of a step that is about to start. The step resumes this subflow's Bolt run."""
        self._resumed.add(name)
        previous = self.resumable.get(name)
        return None if previous is None else previous.id

    def _is_unchanged(self, step: Step | None, outcomes: Mapping[str, StepOutcome]) -> bool:
        """Whether a step makes the same request as before, and all steps that it depends on are skipped."""
        if step is None or not all(outcomes[name].reused for name in step.after):
            return False
        before = self.outcomes.get(step.key)
        return before is None or before.fingerprint == step.fingerprint


def read_outcomes(flow_run: FlowRun) -> dict[str, StepOutcome]:
    """Return the outcomes of the steps of earlier attempts, from a flow run's labels."""
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
    """Return an id of the current attempt of a pipeline's flow run. A suspension and resumption does not change the id.

    When a flow run is resumed, Prefect does not increase the run count of the flow run, but increases the run counts of
    its subflows. So the retries of a subflow are counted by its states.
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
    """For each step, return the newest subflow of an earlier attempt that has left a Bolt run to resume.

    Args:
        children: The subflows of the pipeline's flow run.
        under_way: The start time of each step whose newest stored outcome is RUNNING. If a subflow of such a step has
            succeeded since then, the pipeline died before it could write the step's success.
    """
    found: dict[str, FlowRun] = {}
    now = datetime.now(timezone.utc)
    for child in sorted(children, key=lambda child: child.created or now):
        since = (under_way or {}).get(child.name)
        unnoticed = since is not None and (execution_began_at(child) or since) > since
        if any(
            can_be_resumed(ownership) or (unnoticed and ownership.state == BoltRunState.SUCCESS)
            for ownership in read_ownerships(child)
        ):
            found[child.name] = child
    return found


def _is_over(flow_run: FlowRun) -> bool:
    return flow_run.state is not None and flow_run.state.is_final()


def _is_open(flow_run: FlowRun) -> bool:
    return any(ownership.is_open for ownership in read_ownerships(flow_run))


async def _number_subflows(client: PrefectClient, flow_run_id: UUID, flow: Flow[..., Any]) -> None:
    """Make Prefect give the next subflows numbers that no earlier subflow has.

    Prefect numbers the subflows of a flow run in the order of the calls. In the next attempt, Prefect reuses the
    subflow run with the same number. But in the next attempt, other steps may run, and in another order.
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
