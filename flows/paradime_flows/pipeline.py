"""The definition of a pipeline: plain data, the same in Python, in the Prefect UI's form and in a YAML file."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
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
from paradime_flows.schedules_file import FileSchedule, read_schedules

if TYPE_CHECKING:
    from paradime_blocks.models import BoltScheduleSummary

# A flow run has one label for each step, so this limits the number of labels. Real pipelines have far fewer steps than
# this limit.
MOST_STEPS = 500
MAX_PARALLEL = 10


class Step(BaseModel):
    """One step of a pipeline: a schedule, options for its Bolt run, and the steps that must succeed first.

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
        default=None,
        description="The step's own name. If empty, the step has its schedule's name. All steps need different names.",
    )
    after: list[NonEmpty] = Field(
        default_factory=list,
        description="The names of the steps that must succeed before this step starts.",
    )
    attach_seconds: float = Field(
        default=0,
        ge=0,
        le=3600,
        description=(
            "If Bolt itself starts the schedule after the schedule of an earlier step: how long the step waits for "
            "that Bolt run to appear, in seconds. The step then waits for this Bolt run instead of starting one. "
            "If no Bolt run appears, the step starts one. 0: the step always starts one."
        ),
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
        """A hash of the step's schedule and trigger options.

        A retry of the pipeline skips a step that has succeeded, but only if the hash of the step has not changed.
        """
        asked = self.model_dump(mode="json", include={"schedule_name", *option_types(TriggerOptions)})
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def problems_of(steps: Sequence[Step]) -> list[str]:
    """Return what is wrong with the steps, one sentence for each problem. The list is empty if the steps are valid."""
    problems = []
    names = [step.key for step in steps]
    double = sorted({name for name in names if names.count(name) > 1})
    problems += [f"Two steps have the name {name!r}; give each step its own name." for name in double]
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
    """Raise an error if the steps of a pipeline are not valid.

    Raises:
        BoltRequestError: The steps are not valid; the message lists all problems.
    """
    problems = problems_of(steps)
    if problems:
        raise BoltRequestError(" ".join(problems), guidance="No step was started.")


class Pipeline(BaseModel):
    """The definition of a pipeline: the steps, what happens when a step fails, and how many steps run at once.

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
        """Return the pipeline as parameters for `run_pipeline` or `prefect.yaml`, without default values."""
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
        """Read a pipeline from YAML. The YAML is a mapping with the key `steps`, or only the list of steps.

        Args:
            source: The path of a YAML file, or the YAML text. A string with more than one line counts as YAML text.

        Raises:
            BoltRequestError: The file cannot be read, or the YAML is not a valid pipeline; the message says why.
        """
        try:
            whole = isinstance(source, str) and "\n" in source
            text = str(source) if whole else Path(source).read_text(encoding="utf-8")
            data = YAML(typ="safe", pure=True).load(text)
            return cls.model_validate({"steps": data} if isinstance(data, list) else data)
        except (OSError, YAMLError) as error:
            raise BoltRequestError(f"The pipeline cannot be read: {error}", guidance="") from error
        except ValidationError as error:
            raise BoltRequestError(
                f"The YAML is not a valid pipeline: {reasons(error)}", guidance=""
            ) from None

    @classmethod
    def from_schedules_file(cls, path: str | Path, *, attach_seconds: float = 0) -> Self:
        """Read a pipeline from `paradime_schedules.yml`: Bolt's own order, `schedule_trigger` or `run_after`.

        Bolt itself starts a schedule that has such a trigger. A step for this schedule would start the schedule a
        second time. So this method warns of each such schedule, unless `attach_seconds` says to wait for the run that
        Bolt starts.

        Args:
            path: The path of the file in the dbt repository, or of a folder with such files.
            attach_seconds: How long each step waits for the run that Bolt starts by itself, in seconds; see
                `Step.attach_seconds`. With 0, the step starts the schedule, too.

        Raises:
            BoltRequestError: The file cannot be read, or its schedules are not a valid pipeline.
        """
        schedules = {schedule.name: schedule for schedule in read_schedules(path)}
        steps = []
        for name, schedule in schedules.items():
            is_ours = schedule.starts_after_success and not schedule.workspace and schedule.after in schedules
            if schedule.after is not None and not (is_ours and attach_seconds):
                warnings.warn(_warning(schedule, is_ours=is_ours), stacklevel=2)
            steps.append(
                Step(
                    schedule_name=name,
                    after=[schedule.after] if is_ours and schedule.after else [],
                    attach_seconds=attach_seconds if is_ours else 0,
                )
            )
        try:
            return cls(steps=steps)
        except ValidationError as error:
            raise BoltRequestError(f"{path} is no valid pipeline: {reasons(error)}", guidance="") from None

    @classmethod
    async def afrom_bolt(cls, credentials: CredentialsParameter = None) -> Self:
        """Propose a pipeline from the workspace's schedules. The proposal is a draft that a person should check.

        Each active schedule that is not suspended becomes a step. Bolt's API shows only one kind of dependency: a
        schedule can defer to another schedule, and then dbt uses the tables that the other schedule built. If
        schedule A defers to schedule B, the step of A runs after the step of B. Bolt also starts schedules after other
        schedules. Only the file `paradime_schedules.yml` shows this order; `from_schedules_file` reads the file.

        Args:
            credentials: A `ParadimeCredentials` block, the block's name, or None to use the `PARADIME_*` environment
                variables.

        Raises:
            BoltRequestError: The workspace has no active schedule, or too many active schedules for one pipeline.
            BoltError: Bolt refused the request, or Bolt's answer was not valid.
        """
        async with bolt_client(credentials) as client:
            found = [schedule async for schedule in client.iter_bolt_schedules()]
        schedules = {schedule.name: schedule for schedule in found if not schedule.suspended}
        if not schedules:
            msg = "The workspace has no active schedule."
            raise BoltRequestError(msg, guidance="Create a schedule in Paradime first.")
        if len(schedules) > MOST_STEPS:
            msg = f"The workspace has {len(schedules)} active schedules; a pipeline has at most {MOST_STEPS} steps."
            raise BoltRequestError(
                msg,
                guidance="Write several smaller pipelines yourself, each with the steps that belong together.",
            )
        after: dict[str, list[str]] = {name: [] for name in schedules}
        for name, schedule in schedules.items():
            earlier = _defers_to(schedule)
            if earlier in schedules and not _reaches(after, earlier, name):
                after[name] = [earlier]
        return cls(steps=[Step(schedule_name=name, after=after[name]) for name in schedules])

    @classmethod
    def from_bolt(cls, credentials: CredentialsParameter = None) -> Self:
        """Propose a pipeline from the workspace's schedules. This is the sync form of `afrom_bolt`."""
        return sync_form(cls.afrom_bolt)(credentials)


def _warning(schedule: FileSchedule, *, is_ours: bool) -> str:
    start = f"Bolt itself starts {schedule.name!r} after {schedule.after!r}"
    if is_ours:
        again = (
            "and so does the pipeline: it would run twice. Remove the trigger in Bolt, or set attach_seconds."
        )
        return f"{start}, {again}"
    where = f" in workspace {schedule.workspace!r}" if schedule.workspace else ""
    how = f", on {' or '.join(schedule.on)}" if schedule.on else ""
    return f"{start}{where}{how}. The pipeline does not have this order: its steps start after steps that succeeded."


def _defers_to(schedule: BoltScheduleSummary) -> str:
    deferred = schedule.deferred_schedule
    return (deferred.deferred_schedule_name or "") if deferred is not None and deferred.enabled else ""


def _reaches(after: dict[str, list[str]], start: str, goal: str) -> bool:
    """Whether the step `start` comes after the step `goal`, directly or through other steps.

    The value of each key in `after` is a list with at most one step.
    """
    seen = start
    while seen != goal and after.get(seen):
        (seen,) = after[seen]
    return seen == goal
