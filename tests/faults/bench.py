"""The fault tests' workbench: a Bolt whose clock moves with each request, and whole runs of the flow in memory."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from faults.engine import in_flow_run
from faults.prefect_in_memory import PrefectInMemory, in_place_of_prefect
from support.credentials import credentials_for as _credentials_for
from support.in_process import BoltInProcess
from support.virtual_time import until

from paradime_blocks.errors import BoltError
from paradime_blocks.testing.commands import SimulatedCommand
from paradime_blocks.testing.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prefect.client.schemas.actions import ArtifactCreate
    from prefect.client.schemas.objects import Artifact, FlowRun
    from prefect.states import State

    from paradime_blocks.testing import BoltSimulator
    from paradime_blocks.testing.faults import Exchange
    from paradime_blocks.testing.reply import Later, Reply
    from paradime_blocks.testing.runs import SimulatedRun
    from paradime_flows.ledger.record import Record

SCHEDULE = "daily"
# The time limit of a request in memory; virtual time, so the test does not wait for it.
credentials_for = functools.partial(_credentials_for, request_timeout_seconds=8.0)
STEP_SECONDS = 0.8
# A second each: with STEP_SECONDS, the run has ended at the fourth status request.
FIRST, SECOND = "dbt seed", "dbt run"
LOG_OF = {FIRST: "the seeds are sown", SECOND: "the models are built"}


@dataclass(frozen=True)
class Stepping(Fault):
    """Moves Bolt's clock with each status request, so that calls can be counted and named.

    Attributes:
        simulator: The simulator; its clock does not move otherwise.
        inner: The fault, which happens once.
        call: The call that the fault hits, counted from 1.
        ended: Whether to count only calls after the run has ended.
    """

    simulator: BoltSimulator
    inner: Fault | None = None
    call: int = 1
    ended: bool = False
    times: int | None = field(default=None, kw_only=True)
    seen: list[int] = field(default_factory=list, compare=False, repr=False)

    def answer(self, exchange: Exchange) -> Reply | Later | None:
        """Pass the call to the fault if it is the right one; then move the clock."""
        runs = self.simulator.runs()
        counts = not self.ended or (bool(runs) and not any(run.is_active for run in runs))
        if counts:
            self.seen.append(1)
        hit = counts and len(self.seen) == self.call
        # The answer is the state at the time of the request, however long a fault holds it back.
        reply = None if hit and self.inner is not None else exchange.act()
        self.simulator.clock.advance(STEP_SECONDS)
        if hit and self.inner is not None:
            return self.inner.answer(exchange)
        return reply

    @property
    def calls(self) -> int:
        """How many calls were counted."""
        return len(self.seen)

    @property
    def has_hit(self) -> bool:
        """Whether the fault has hit its call."""
        return len(self.seen) >= self.call


def bolt(
    ending: str,
    *,
    speed: float = 0,
    simulator_class: type[BoltSimulator] = BoltInProcess,
    **schedule: Any,
) -> BoltSimulator:
    """Return a Bolt, not started, whose clock moves only on request, with one schedule and the given end."""
    simulator = simulator_class(speed=speed)
    second = {
        "success": SimulatedCommand(SECOND),
        "failure": SimulatedCommand(SECOND, return_code=1),
        "recovery": SimulatedCommand(SECOND, return_code=(1, 0)),
        "timeout": SimulatedCommand(SECOND, duration_seconds=float("inf")),
    }[ending]
    first = SimulatedCommand(FIRST, stdout=f"{LOG_OF[FIRST]}\n", resources={"target/run_results.json": "{}"})
    second = dataclasses.replace(second, stdout=f"{LOG_OF[SECOND]}\n", resources={})
    simulator.add_schedule(SCHEDULE, commands=[first, second], **{"setup_commands": False, **schedule})
    return simulator


@dataclass
class Outcome:
    """The outcome of one run of the flow.

    Attributes:
        state: The flow run's state in Prefect.
        error: What the flow raised.
        result: What it returned.
        runs: The Bolt runs at the end, oldest first.
        record: The record in the flow run's labels.
        artifacts: The artifacts by key.
        requests: The number of requests by operation.
        seconds: The duration.
    """

    state: State[Any]
    error: BaseException | None
    result: Any
    runs: list[SimulatedRun]
    record: Record | None
    artifacts: dict[str, str]
    requests: dict[str, int]
    seconds: float

    @property
    def active(self) -> list[SimulatedRun]:
        """The runs that have not ended."""
        return [run for run in self.runs if run.is_active]

    @property
    def summary(self) -> str:
        """The summary artifact; empty if there is none."""
        return self.artifacts.get(f"paradime-{SCHEDULE}", "")

    @property
    def logs(self) -> set[str]:
        """The commands that have a log artifact."""
        texts = [text for key, text in self.artifacts.items() if key != f"paradime-{SCHEDULE}"]
        return {command for command, log in LOG_OF.items() if any(log in text for text in texts)}

    def __str__(self) -> str:
        runs = ", ".join(f"{run.id} {run.state}" for run in self.runs) or "no run"
        error = f"{type(self.error).__name__}: {self.error}"
        return f"{self.state.name}; {error}; {runs}; {self.requests}\n{self.summary}"


async def run_flow(
    simulator: BoltSimulator, *, request_timeout_seconds: float = 8.0, **parameters: Any
) -> Outcome:
    """Run `run_schedule` against a started simulator with its own Prefect, and collect the outcome."""
    from paradime_flows.run_schedule import run_schedule

    began = time.monotonic()
    prefect = PrefectInMemory()
    flow_run_id = prefect.new_flow_run()
    credentials = credentials_for(simulator, request_timeout_seconds=request_timeout_seconds)
    with in_place_of_prefect(prefect, archive=True):
        state, result, error = await in_flow_run(
            prefect, flow_run_id, run_schedule, SCHEDULE, credentials, **parameters
        )
    written = [each for each in prefect.artifacts.values() if each.flow_run_id == flow_run_id]
    return outcome_of(simulator, state, error, result, prefect.flow_runs[flow_run_id], written, began)


def outcome_of(
    simulator: BoltSimulator,
    state: State[Any],
    error: BaseException | None,
    result: Any,
    flow_run: FlowRun,
    artifacts: Iterable[Artifact | ArtifactCreate],
    began: float,
) -> Outcome:
    """Collect the outcome of a flow run. Of several artifacts with one key, the last counts."""
    from paradime_flows.ledger.record import read_records

    records = read_records(flow_run)
    requests = Counter(name for request in simulator.requests for name in request.operations)
    return Outcome(
        state,
        error,
        result,
        simulator.runs(),
        records[0] if records else None,
        {str(each.key): str(each.data) for each in artifacts},
        dict(requests),
        time.monotonic() - began,
    )


async def reached(simulator: BoltSimulator, condition: Callable[[BoltSimulator], object]) -> None:
    """Let time pass until a condition on the simulator is true."""
    await until(lambda: condition(simulator))


def is_clear(error: BaseException | None) -> bool:
    """Whether an error is one of ours, so that it says what happened and what to do."""
    return isinstance(error, BoltError) and bool(str(error))
