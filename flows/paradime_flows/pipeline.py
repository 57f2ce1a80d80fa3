"""The definition of a pipeline: plain data, the same in Python, in the Prefect UI's form and in a YAML file."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from typing_extensions import Self

from paradime_blocks import BoltRequestError
from paradime_blocks.options import (
    Commands,
    Flag,
    NonEmpty,
    Plain,
    TimeoutSeconds,
    TriggerOptions,
    described,
    option_types,
)
from paradime_blocks.sync import sync_form
from paradime_blocks.text.reasons import reasons
from paradime_flows.choices import OnFailure
from paradime_flows.parameters import (
    CredentialsParameter,
    DelaySeconds,
    NonRetryableErrors,
    Retries,
    RunOptions,
)
from paradime_flows.prefect_api import bolt_client

if TYPE_CHECKING:
    from paradime_blocks.models import BoltScheduleSummary

# This limits the number of labels on the flow run. Real pipelines have far fewer steps.
MOST_STEPS = 500
MAX_PARALLEL = 10


class Step(BaseModel):
    """One step of a pipeline: a schedule, what to run of it, and the steps that must succeed before it.

    Example:
        ```python
        from paradime_flows.pipeline import Step

        step = Step(schedule_name="transform", after=["extract"], commands=["dbt build"], retries=2)
        assert step.key == "transform"
        ```
    """

    model_config = ConfigDict(extra="forbid")

    schedule_name: NonEmpty = Field(
        default=..., description="The schedule's name as Paradime shows it, or its slug."
    )
    name: Plain[NonEmpty] = Field(
        default=None, description="The step's own name. Empty: the schedule's name. Each name must be unique."
    )
    after: list[NonEmpty] = Field(
        default_factory=list,
        description="Names of the steps that must succeed before this one starts.",
    )
    commands: Plain[Commands] = described(RunOptions, "commands")
    continue_on_error: Plain[Flag] = described(RunOptions, "continue_on_error")
    branch: Plain[NonEmpty] = described(RunOptions, "branch")
    timeout_seconds: Plain[TimeoutSeconds] = described(RunOptions, "timeout_seconds")
    retries: Retries = described(RunOptions, "retries", default=0)
    retry_delay_seconds: DelaySeconds = described(RunOptions, "retry_delay_seconds", default=30.0)
    non_retryable_errors: Plain[NonRetryableErrors] = described(RunOptions, "non_retryable_errors")

    @property
    def key(self) -> str:
        """The step's own name, or the name of its schedule if it has no own name."""
        return self.name or self.schedule_name

    @property
    def fingerprint(self) -> str:
        """A hash of what the step runs. A step that succeeded earlier is skipped only if its hash has not changed."""
        asked = self.model_dump(mode="json", include={"schedule_name", *option_types(TriggerOptions)})
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def problems_of(steps: Sequence[Step]) -> list[str]:
    """Return the problems of a set of steps, each as a sentence. The list is empty if the steps can be run."""
    problems = []
    names = [step.key for step in steps]
    double = sorted({name for name in names if names.count(name) > 1})
    problems += [f"Two steps are called {name!r}; give one of them its own name." for name in double]
    for step in steps:
        unknown = sorted(set(step.after) - set(names))
        problems += [
            f"Step {step.key!r} comes after {name!r}, but no step has that name." for name in unknown
        ]
    try:
        TopologicalSorter({step.key: step.after for step in steps}).prepare()
    except CycleError as error:
        problems.append(f"The steps form a cycle: {' → '.join(reversed(error.args[1]))}.")
    return problems


def check_steps(steps: Sequence[Step]) -> None:
    """Refuse a set of steps that cannot be run.

    Raises:
        BoltRequestError: The steps cannot be run; the message lists all problems.
    """
    problems = problems_of(steps)
    if problems:
        raise BoltRequestError(" ".join(problems), guidance="Nothing was started.")


class Pipeline(BaseModel):
    """A pipeline: the parameters of `run_pipeline` that define it.

    Example:
        ```python
        from paradime_flows.pipeline import Pipeline

        steps = [{"schedule_name": "extract"}, {"schedule_name": "publish", "after": ["extract"]}]
        nightly = Pipeline(steps=steps)
        assert Pipeline.from_yaml(nightly.to_yaml()) == nightly
        ```
    """

    model_config = ConfigDict(extra="forbid")

    steps: list[Step] = Field(default=..., min_length=1, max_length=MOST_STEPS)
    on_failure: OnFailure = "stop"
    max_parallel: int = Field(default=MAX_PARALLEL, ge=1, le=100)

    @model_validator(mode="after")
    def _steps_fit_together(self) -> Self:
        problems = problems_of(self.steps)
        if problems:
            raise ValueError(" ".join(problems))
        return self

    def parameters(self) -> dict[str, Any]:
        """Return the parameters for `run_pipeline` and `prefect.yaml`: plain data, without defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def to_yaml(self) -> str:
        """Return the pipeline as YAML text. You can put this text under `parameters:` in `prefect.yaml`."""
        text = io.StringIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        yaml.dump(self.parameters(), text)
        return text.getvalue()

    @classmethod
    def from_yaml(cls, source: str | Path) -> Self:
        """Read a pipeline from YAML. The YAML is a mapping with `steps`, or only the list of steps.

        Args:
            source: The path of a file; or the YAML text, which must have more than one line.

        Raises:
            BoltRequestError: The file cannot be read, or is not a valid pipeline; the message says why.
        """
        try:
            whole = isinstance(source, str) and "\n" in source
            text = str(source) if whole else Path(source).read_text(encoding="utf-8")
            data = YAML(typ="safe", pure=True).load(text)
            return cls.model_validate({"steps": data} if isinstance(data, list) else data)
        except (OSError, YAMLError) as error:
            raise BoltRequestError(f"The pipeline cannot be read: {error}", guidance="") from error
        except ValidationError as error:
            raise BoltRequestError(f"The YAML is not a pipeline: {reasons(error)}", guidance="") from None

    @classmethod
    async def afrom_bolt(cls, credentials: CredentialsParameter = None) -> Self:
        """Propose a pipeline from the workspace's schedules. It is a draft that a person should check.

        All active schedules that are not suspended become steps. Bolt knows only one reason for an order: a schedule
        may defer to another schedule, and then uses what the other schedule built. So the step of the schedule that
        defers comes after the step of the other schedule.

        Args:
            credentials: A `ParadimeCredentials` block, its name, or None for the `PARADIME_*` environment variables.

        Raises:
            BoltRequestError: The workspace has no active schedule, or too many active schedules for one pipeline.
            BoltError: Bolt refused the request, or its answer was not usable.
        """
        async with bolt_client(credentials) as client:
            found = [schedule async for schedule in client.iter_bolt_schedules()]
        schedules = {schedule.name: schedule for schedule in found if not schedule.suspended}
        if not schedules:
            msg = "The workspace has no active schedule."
            raise BoltRequestError(msg, guidance="Create one in Paradime first.")
        if len(schedules) > MOST_STEPS:
            msg = f"The workspace has {len(schedules)} active schedules; a pipeline has at most {MOST_STEPS} steps."
            raise BoltRequestError(
                msg, guidance="Write pipelines of the steps that belong together yourself."
            )
        after: dict[str, list[str]] = {name: [] for name in schedules}
        for name, schedule in schedules.items():
            earlier = _defers_to(schedule)
            if earlier in schedules and not _reaches(after, earlier, name):
                after[name] = [earlier]
        return cls(steps=[Step(schedule_name=name, after=after[name]) for name in schedules])

    @classmethod
    def from_bolt(cls, credentials: CredentialsParameter = None) -> Self:
        """Propose a pipeline from the workspace's schedules, as `afrom_bolt` does."""
        return sync_form(cls.afrom_bolt)(credentials)


def _defers_to(schedule: BoltScheduleSummary) -> str:
    deferred = schedule.deferred_schedule
    return (deferred.deferred_schedule_name or "") if deferred is not None and deferred.enabled else ""


def _reaches(after: dict[str, list[str]], start: str, goal: str) -> bool:
    """Whether `start` comes after `goal`, directly or through other steps. `after` has at most one step for each."""
    seen = start
    while seen != goal and after.get(seen):
        (seen,) = after[seen]
    return seen == goal
