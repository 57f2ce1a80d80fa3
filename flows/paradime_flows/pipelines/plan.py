"""Decides which steps of a pipeline start next. This module does no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from paradime_blocks.models import BoltAttempt, BoltRunState

if TYPE_CHECKING:
    from paradime_flows.choices import OnFailure
    from paradime_flows.pipeline import Step


class StepState(str, Enum):
    """The state of a step of a pipeline."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    NOT_RUN = "not run"

    def __str__(self) -> str:
        return str(self.value)


class StepOutcome(BaseModel):
    """The state of a step, and the facts about the step's Bolt runs.

    Attributes:
        name: The step's name.
        state: The step's state.
        fingerprint: A hash of the requests of the step and of all steps before it. If the hash has changed, a retry of
            the pipeline runs the step again.
        flow_run_id: The id of the flow run of `run_schedule` that ran the step.
        run_id: The id of the step's last Bolt run.
        bolt_state: The state in which the step's last Bolt run ended.
        attempts: All Bolt runs of the step, oldest first.
        started_at: When the step started, in UTC.
        ended_at: When the step ended, in UTC.
        message: A sentence that says why the step did not succeed. The text is empty if the step succeeded.
        reused: Whether the step succeeded in an earlier attempt of the pipeline's flow run.
        attempt: The id of the pipeline's attempt that stored this outcome. The id does not change if the flow run is
            suspended and resumed.
    """

    name: str
    state: StepState = StepState.WAITING
    fingerprint: str = ""
    flow_run_id: str | None = None
    run_id: int | None = None
    bolt_state: BoltRunState | None = None
    attempts: list[BoltAttempt] = Field(default_factory=list)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    message: str = ""
    reused: bool = False
    attempt: str = ""


@dataclass
class Decision:
    """Which steps the pipeline starts now, which steps it drops, and whether it cancels the running steps.

    Attributes:
        start: The names of the steps to start.
        drop: The reason for each step that will not run. The key is the step's name.
        stop: Why the pipeline cancels the running steps; None if the running steps continue.
    """

    start: list[str] = field(default_factory=list)
    drop: dict[str, str] = field(default_factory=dict)
    stop: str | None = None


_BAD = {StepState.FAILED, StepState.CANCELED}
_LOST = {*_BAD, StepState.NOT_RUN}


def decide(
    steps: Sequence[Step],
    outcomes: Mapping[str, StepOutcome],
    *,
    on_failure: OnFailure,
    max_parallel: int,
    under_way: Collection[str] = (),
) -> Decision:
    """Decide which steps the pipeline starts and drops, and whether the pipeline cancels the running steps.

    Args:
        steps: The steps. They have already been checked.
        outcomes: The outcome of each step so far. The key is the step's name.
        on_failure: What happens to the other steps after a step has failed.
        max_parallel: How many steps may run at the same time.
        under_way: The names of the steps that can resume a Bolt run of an earlier attempt. These steps are started
            first, even if more than `max_parallel` steps then run.
    """
    decision = Decision()
    states = {step.key: outcomes[step.key].state for step in steps}
    bad = [name for name, state in states.items() if state in _BAD]
    if bad and on_failure != "continue":
        first = f"Step {bad[0]!r} {'has failed' if states[bad[0]] is StepState.FAILED else 'was cancelled'}"
        resumed = under_way if on_failure == "finish" else ()
        waiting = [name for name, state in states.items() if state is StepState.WAITING]
        decision.start = [name for name in waiting if name in resumed]
        decision.drop = {
            name: f"{first}, and on_failure is {on_failure}." for name in waiting if name not in resumed
        }
        decision.stop = f"{first}, and on_failure is stop." if on_failure == "stop" else None
        return decision
    room = max_parallel - sum(state is StepState.RUNNING for state in states.values())
    changed = True
    while changed:
        # A step that depends on a dropped step is dropped, too. The loop repeats until no more steps are dropped.
        changed = False
        for step in steps:
            missing = [name for name in step.after if states[name] in _LOST]
            if states[step.key] is StepState.WAITING and missing:
                decision.drop[step.key] = (
                    f"The step comes after step {missing[0]!r}, which has not succeeded."
                )
                states[step.key] = StepState.NOT_RUN
                changed = True
    ready = [
        step.key
        for step in steps
        if states[step.key] is StepState.WAITING
        and all(states[name] is StepState.SUCCEEDED for name in step.after)
    ]
    first_of_all = [name for name in ready if name in under_way]
    others = [name for name in ready if name not in under_way]
    decision.start = [*first_of_all, *others[: max(0, room - len(first_of_all))]]
    return decision


def carried_over(
    steps: Sequence[Step], earlier: Mapping[str, StepOutcome], *, attempt: str = ""
) -> dict[str, StepOutcome]:
    """Return the outcomes at the start of an attempt. A step that succeeded in an earlier attempt is not run again.

    A step is run again if its request has changed, or if it depends on a step that is run again. If the same attempt is
    resumed after a suspension, a failed step stays failed.

    Args:
        steps: The steps. They have already been checked.
        earlier: The outcomes of the earlier attempts. The key is the step's name.
        attempt: The id of the current attempt. The text is empty if no outcome in `earlier` can be from the current
            attempt.
    """
    outcomes: dict[str, StepOutcome] = {}
    waiting = list(steps)
    while waiting:
        step = next(step for step in waiting if all(name in outcomes for name in step.after))
        waiting.remove(step)
        before = earlier.get(step.key)
        requests = [step.fingerprint, *sorted(outcomes[name].fingerprint for name in step.after)]
        fingerprint = hashlib.sha256(" ".join(requests).encode()).hexdigest()[:16]
        outcomes[step.key] = StepOutcome(name=step.key, fingerprint=fingerprint)
        if before is None or before.fingerprint != fingerprint:
            continue
        succeeded = before.state is StepState.SUCCEEDED and all(outcomes[name].reused for name in step.after)
        if succeeded or (before.state in _LOST and attempt and before.attempt == attempt):
            outcomes[step.key] = before.model_copy(update={"reused": succeeded})
    return {step.key: outcomes[step.key] for step in steps}
