"""Renders the page of a pipeline: the outcome, times and links of each step, and the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final
from uuid import UUID

from paradime_blocks.models import run_url
from paradime_blocks.text import cell, one_line, shorten
from paradime_flows.pipelines.plan import StepOutcome, StepState
from paradime_flows.prefect_api import flow_run_url
from paradime_flows.reporting.markdown import moment, table

if TYPE_CHECKING:
    from paradime_flows.pipeline import Step

_MARKS = {
    StepState.WAITING: "⏳",
    StepState.RUNNING: "🏃",
    StepState.SUCCEEDED: "✅",
    StepState.FAILED: "❌",
    StepState.CANCELED: "🛑",
    StepState.NOT_RUN: "⏭️",
}
_HEAD = (
    "",
    "Step",
    "Schedule",
    "After",
    "Outcome",
    "Started (UTC)",
    "Duration",
    "Bolt run",
    "Flow run",
)
# All pipelines without a name share this name.
DEFAULT_NAME: Final = "pipeline"
_MESSAGE_CHARACTERS: Final = 500
_CAUSE_CHARACTERS: Final = 250
_MOST_ARROWS: Final = 30
_ORDER = (StepState.SUCCEEDED, StepState.FAILED, StepState.CANCELED, StepState.RUNNING, StepState.WAITING)


def headline(outcomes: Sequence[StepOutcome]) -> str:
    """Return the state of a pipeline in one sentence: the number of steps in each state."""
    counts = [
        f"{number} {state}"
        for state in (*_ORDER, StepState.NOT_RUN)
        if (number := sum(outcome.state is state for outcome in outcomes))
    ]
    steps = "step" if len(outcomes) == 1 else "steps"
    return f"{len(outcomes)} {steps}: {', '.join(counts)}."


def render_pipeline(name: str, steps: Sequence[Step], outcomes: Mapping[str, StepOutcome]) -> str:
    """Return the page of a pipeline as markdown. Names and messages are escaped.

    Args:
        name: The pipeline's name.
        steps: The steps.
        outcomes: The outcome of each step so far. The key is the step's name.
    """
    found = [outcomes[step.key] for step in steps]
    worst = next(
        (
            state
            for state in (StepState.FAILED, StepState.CANCELED, StepState.RUNNING, StepState.NOT_RUN)
            if any(outcome.state is state for outcome in found)
        ),
        StepState.SUCCEEDED if all(o.state is StepState.SUCCEEDED for o in found) else StepState.WAITING,
    )
    rows = [_row(step, outcomes[step.key]) for step in steps]
    # Prefect's V1 UI cuts off wide tables, and shows the graph as text.
    reasons = "\n".join(
        f"- **{cell(outcome.name)}**: {outcome.state}. {cell(outcome.message, _MESSAGE_CHARACTERS)}"
        for outcome in found
        if outcome.message
    )
    parts = [f"# {_MARKS[worst]} {cell(title_of(name))}", headline(found), _order(steps), table(_HEAD, rows)]
    where = "If this is text, open the page in Prefect's V2 UI: it draws the graph."
    parts += [reasons, "## Graph", where, _graph(steps, outcomes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def title_of(name: str) -> str:
    """Return the title of a pipeline's page."""
    return "Pipeline" if name == DEFAULT_NAME else f"Pipeline {name}"


def why_not(name: str, outcomes: Sequence[StepOutcome]) -> tuple[str, list[str]]:
    """Return why a pipeline did not succeed, and a sentence for each step that did not succeed.

    The first failed step comes first: Prefect's pages show only the beginning of the text.

    Args:
        name: The pipeline's name.
        outcomes: The outcome of each step.
    """
    bad = [outcome for outcome in outcomes if outcome.state is not StepState.SUCCEEDED]
    first = next((outcome for outcome in bad if outcome.state is StepState.FAILED), bad[0])
    why = one_line(first.message, _CAUSE_CHARACTERS).removesuffix(".") or "no reason is known"
    of_pipeline = "" if name == DEFAULT_NAME else f" of pipeline '{one_line(name)}'"
    told = f"Step '{one_line(first.name)}'{of_pipeline} {first.state}: {why}. {headline(outcomes)}"
    return told, [f"{outcome.name}: {outcome.state}. {outcome.message}" for outcome in bad]


def _order(steps: Sequence[Step]) -> str:
    """Return the order of the steps as one line; empty if no step waits for another step, or if it would be long."""
    if sum(len(step.after) for step in steps) > _MOST_ARROWS:
        return ""
    names = [step.key for step in steps]
    if len(steps) > 1 and all(
        step.after == [earlier] for earlier, step in zip(names, steps[1:], strict=False)
    ):
        return " → ".join(map(cell, names))
    arrows = [f"{', '.join(map(cell, step.after))} → {cell(step.key)}" for step in steps if step.after]
    return "; ".join(arrows)


def _row(step: Step, outcome: StepOutcome) -> tuple[str, ...]:
    end = outcome.ended_at or (datetime.now(timezone.utc) if outcome.state is StepState.RUNNING else None)
    seconds = (end - outcome.started_at).total_seconds() if end and outcome.started_at else None
    runs = [attempt.run_id for attempt in outcome.attempts] or ([outcome.run_id] if outcome.run_id else [])
    page = flow_run_url(UUID(outcome.flow_run_id)) if outcome.flow_run_id else None
    return (
        _MARKS[outcome.state],
        cell(step.key),
        cell(step.schedule_name),
        ", ".join(cell(earlier) for earlier in step.after),
        f"{outcome.state}{' (earlier attempt)' if outcome.reused else ''}",
        moment(outcome.started_at),
        "" if seconds is None else shorten(seconds),
        ", ".join(f"[{run_id}]({run_url(run_id)})" for run_id in runs),
        f"[open]({page})" if page else "",
    )


def _graph(steps: Sequence[Step], outcomes: Mapping[str, StepOutcome]) -> str:
    """Return the graph as Mermaid text. Prefect's V2 UI draws the graph, and its V1 UI shows the text."""
    ids = {step.key: f"s{number}" for number, step in enumerate(steps)}
    lines = [
        f'    {ids[step.key]}["{_MARKS[outcomes[step.key].state]} {_label(step.key)}"]' for step in steps
    ]
    lines += [f"    {ids[earlier]} --> {ids[step.key]}" for step in steps for earlier in step.after]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```"])


def _label(name: str) -> str:
    # Quotes, markup, entities or a code fence in the quoted label could break the page.
    return "".join(
        character if character.isalnum() or character in " -_." else f"#{ord(character)};"
        for character in one_line(name, 60)
    )
