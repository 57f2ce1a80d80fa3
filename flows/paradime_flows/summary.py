"""The summary of a Bolt run, as markdown for a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from paradime_blocks.models import BoltAttempt, BoltCommand, BoltRunState, BoltRunStatus, run_url
from paradime_flows.text import cell, shorten

_MARKS = {
    BoltRunState.SUCCESS: "✅",
    BoltRunState.FAILED: "❌",
    BoltRunState.ERROR: "❌",
    BoltRunState.CANCELED: "🛑",
    BoltRunState.SKIPPED: "⏭️",
}


@dataclass
class RunRecord:
    """What is known of a Bolt run when it is archived.

    Attributes:
        schedule_name: Its schedule, if known.
        run_id: The run; None if none was started.
        state: Its state when last seen.
        status: Its status when last seen.
        branch: The branch or commit that was asked for; None for the schedule's own.
        outcome: What the flow makes of it, as a sentence; for a failure, the cause.
        attempts: All runs of this intent, oldest first.
        notes: The decision trail.
        links: Links to what was archived, as (text, URL).
        problems: What could not be archived, and why.
    """

    schedule_name: str | None
    run_id: int | None = None
    state: BoltRunState | None = None
    status: BoltRunStatus | None = None
    branch: str | None = None
    outcome: str | None = None
    attempts: Sequence[BoltAttempt] = ()
    notes: Sequence[tuple[str, str]] = ()
    links: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def render_summary(record: RunRecord) -> str:
    """Return the summary of a run as markdown; text that comes from Bolt is escaped."""
    title = cell(record.schedule_name or "Bolt run")
    state = str(record.state) if record.state is not None else "no run"
    mark = _MARKS.get(record.state, "⏳") if record.state is not None else "❔"
    parts = [f"# {mark} {title}: {cell(state)}"]
    if record.outcome:
        parts.append(cell(record.outcome, 600))
    parts.append(_table(("", ""), [(f"**{name}**", value) for name, value in _facts(record)]))
    if record.status is not None and record.status.commands:
        parts.append("## Commands")
        rows = [_command_row(n, command) for n, command in enumerate(record.status.commands, 1)]
        parts.append(_table(("", "Command", "Return code", "Started (UTC)", "Duration"), rows))
    if len(record.attempts) > 1:
        parts.append("## Attempts")
        rows = [
            (str(n), f"[{attempt.run_id}]({attempt.url})", cell(str(attempt.state)), _moment(attempt.started_at))
            for n, attempt in enumerate(record.attempts, 1)
        ]
        parts.append(_table(("", "Bolt run", "State", "Started (UTC)"), rows))
    if record.links:
        parts.append("## Resources")
        parts.append("\n".join(f"- {cell(text)} ({cell(where)})" for text, where in record.links))
    if record.notes:
        parts.append("## What was decided")
        parts.append(_table(("When", "What"), [(cell(at), cell(note, 400)) for at, note in record.notes]))
    if record.problems:
        parts.append("## Not archived")
        parts.append("\n".join(f"- {cell(problem, 400)}" for problem in record.problems))
    return "\n\n".join(parts) + "\n"


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    facts = []
    if record.run_id is not None:
        facts.append(("Bolt run", f"[{record.run_id}]({run_url(record.run_id)})"))
    facts.append(("Branch or commit", cell(record.branch) if record.branch else "the schedule's own"))
    status = record.status
    if status is not None:
        facts.append(("Started (UTC)", _moment(status.started_at)))
        facts.append(("Ended (UTC)", _moment(status.ended_at)))
        if status.started_at and status.ended_at:
            facts.append(("Duration", shorten((status.ended_at - status.started_at).total_seconds())))
    return facts


def _command_row(n: int, command: BoltCommand) -> tuple[str, ...]:
    code = "" if command.return_code is None else str(command.return_code)
    mark = "⏳" if command.return_code is None else ("❌" if command.failed else "✅")
    seconds = command.duration_seconds
    return (
        f"{mark} {n}",
        cell(command.command),
        code,
        _moment(command.start_dttm),
        "" if seconds is None else shorten(seconds),
    )


def _moment(value: datetime | None) -> str:
    return "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
